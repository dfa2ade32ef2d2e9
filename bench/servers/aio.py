"""The naive server on asyncio: grpc.aio and the SDK's acouchbase, with tracing off."""

import asyncio
from typing import Any

import grpc
from acouchbase.cluster import AsyncCluster
from couchbase.exceptions import DocumentNotFoundException

from bench.servers import tutorial
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc


class Async(pb_grpc.UserProfileServiceServicer):
    """All tasks share one collection."""

    def __init__(self, collection: Any) -> None:
        """Takes an AsyncCollection."""
        self._collection = collection

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        """Returns the user without the hash."""
        try:
            result = await self._collection.get(f"userprofile::{request.username}")
        except DocumentNotFoundException:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such user.")
        user = tutorial.UserInDB(**result.content_as[dict])
        return pb.GetUserResponse(
            user=user_pb.User(
                username=user.username, email=user.email, full_name=user.full_name, disabled=user.disabled
            )
        )


async def serve() -> None:
    """Runs until the process is killed."""
    cluster = AsyncCluster(tutorial.URL.connection, tutorial.cluster_options(tuned=True))
    await cluster.on_connect()
    bucket = cluster.bucket(tutorial.URL.bucket)
    await bucket.on_connect()
    server = grpc.aio.server()
    # Only GetUser is measured.
    pb_grpc.add_UserProfileServiceServicer_to_server(Async(bucket.default_collection()), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
