"""The floor of the stack: grpcio, our messages, our number of threads, and a handler that does nothing."""

from concurrent.futures import ThreadPoolExecutor

import grpc

from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

RESPONSE = pb.GetUserResponse(
    user=pb.User(username="johndoe", email="johndoe@example.com", full_name="John Doe", disabled=False)
)


class Empty(pb_grpc.UserProfileServiceServicer):
    """Knows one answer."""

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns it."""
        return RESPONSE


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_UserProfileServiceServicer_to_server(Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
