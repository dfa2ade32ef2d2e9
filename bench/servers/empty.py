"""The minimum of the stack: grpcio, our messages, our number of threads, and a handler that does nothing."""

from concurrent.futures import ThreadPoolExecutor

import grpc

from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

RESPONSE = pb.GetUserResponse(
    user=user_pb.User(username="johndoe", email="johndoe@example.com", full_name="John Doe", disabled=False)
)


class Empty(pb_grpc.UserProfileServiceServicer):
    """Returns the same response to every call."""

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns the response."""
        return RESPONSE


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    # Only GetUser is measured.
    pb_grpc.add_UserProfileServiceServicer_to_server(Empty(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
