"""What both Python clients make of answers that no server of ours gives."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

from tests.canary import raises
from tests.clients.twins import MakeClient
from userprofile import UserProfileError
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

NOT_A_DETAIL = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")

Serve = Callable[[Any], str]


class Strange(pb_grpc.UserProfileServiceServicer):
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> Any:
        if isinstance(self._answer, status_pb2.Status):
            context.set_trailing_metadata((("grpc-status-details-bin", self._answer.SerializeToString()),))
            context.abort(grpc.StatusCode.DATA_LOSS, self._answer.message)
        return self._answer

    BatchGetUsers = GetUser


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(answer: Any) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        pb_grpc.add_UserProfileServiceServicer_to_server(Strange(answer), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=0).wait()


@pytest.mark.parametrize(
    "response", [pb.GetUserResponse(), pb.GetUserResponse(user=pb.User(username="alice"))], ids=["nobody", "alice"]
)
def test_another_user_or_none_is_not_the_one_who_was_asked_for(
    make_client: MakeClient, serve: Serve, response: pb.GetUserResponse
) -> None:
    client = make_client(serve(response))
    for ask in (client.get_user, client.find_user):
        with raises(UserProfileError, match="doesn't understand") as caught:
            ask("johndoe")
        assert caught.value.code is grpc.StatusCode.UNKNOWN


def test_results_that_are_missing_swapped_or_unknown_are_errors(make_client: MakeClient, serve: Serve) -> None:
    swapped = [pb.UserResult(user=pb.User(username=name)) for name in ("bob", "alice")]
    client = make_client(serve(pb.BatchGetUsersResponse(results=[*swapped, pb.UserResult()])))
    for _, outcome in client.iter_users(["alice", "bob", "carol", "dave"]):
        assert isinstance(outcome, UserProfileError)
        assert outcome.code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("code", [0, 999])
def test_an_error_with_a_code_that_is_none_is_unknown(make_client: MakeClient, serve: Serve, code: int) -> None:
    result = pb.UserResult(error=status_pb2.Status(code=code, message="all is well", details=[NOT_A_DETAIL]))
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result])))
    ((_, outcome),) = client.iter_users(["johndoe"])
    assert (outcome.code, outcome.message) == (grpc.StatusCode.UNKNOWN, "all is well")


def test_details_that_cannot_be_read_are_passed_over(make_client: MakeClient, serve: Serve) -> None:
    status = status_pb2.Status(code=15, message="Lost.", details=[NOT_A_DETAIL])
    client = make_client(serve(status))
    for ask in (lambda: client.get_user("johndoe"), lambda: client.get_users(["johndoe"])):
        with raises(UserProfileError, match="Lost") as caught:
            ask()
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DATA_LOSS, None)
