"""A first attempt at the same service: grpcio, one shared connection, the SDK's defaults, the whole document parsed."""

from concurrent.futures import ThreadPoolExecutor

import grpc

from bench.servers import tutorial
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc


class Naive(pb_grpc.UserProfileServiceServicer):
    """All threads share one collection."""

    def __init__(self) -> None:
        """Connects."""
        self._collection = tutorial.open_collection(tuned=False)

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns the user without the hash."""
        user = tutorial.get_user(self._collection, request.username)
        if user is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "There is no such user.")
        fields = user.model_dump(exclude={"hashed_password", "type"})
        return pb.GetUserResponse(user=user_pb.User(**fields))


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(10))
    # Only GetUser is measured.
    pb_grpc.add_UserProfileServiceServicer_to_server(Naive(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
