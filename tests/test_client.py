"""The Python client against a real server."""

import dataclasses
import pickle
import socket
from collections.abc import Iterator

import grpc
import pytest

import userprofile
from tests.canary import raises
from tests.support import documents_in, eventually
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from userprofile import UserProfileClient
from userprofile_server import errors
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings


@pytest.fixture
def client(address: str) -> Iterator[UserProfileClient]:
    with UserProfileClient(address) as client:
        yield client


def test_get_user_returns_a_frozen_user(client: UserProfileClient) -> None:
    user = client.get_user("johndoe")
    assert user == userprofile.User("johndoe", "johndoe@example.com", "John Doe", disabled=False)
    with raises(dataclasses.FrozenInstanceError):
        user.email = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("username", "expected"),
    [("absent", (None, None, None)), ("null", (None, None, None)), ("empty", ("", "", False)),
     ("true", (None, None, True))],
)  # fmt: skip
def test_unset_is_none_and_empty_is_empty(client: UserProfileClient, username: str, expected: tuple[object]) -> None:
    assert dataclasses.astuple(client.get_user(username)) == (username, *expected)


def test_find_user_returns_none_where_get_user_raises(client: UserProfileClient) -> None:
    assert client.find_user("johndoe") == client.get_user("johndoe")
    assert client.find_user("nobody") is None
    with raises(userprofile.UserNotFoundError) as caught:
        client.get_user("nobody")
    error = caught.value
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND", "There is no such user.",
    )  # fmt: skip
    assert error.request_id
    assert str(error) == f"There is no such user. (NOT_FOUND, USER_NOT_FOUND, request id {error.request_id})"


@pytest.mark.parametrize("method", ["get_user", "find_user"])
@pytest.mark.parametrize("username", ["", "x" * 234, "\ud800"])
def test_an_invalid_name_raises_whichever_way_it_is_asked(
    client: UserProfileClient, method: str, username: str
) -> None:
    with raises(userprofile.InvalidUsernameError, match="username must ") as caught:
        getattr(client, method)(username)
    assert caught.value.reason == "INVALID_USERNAME"


def test_a_corrupt_document_raises(client: UserProfileClient, user_store_url: str) -> None:
    documents_in(user_store_url, {"broken": {"disabled": "yes"}})
    with raises(userprofile.CorruptProfileError):
        client.find_user("broken")


@pytest.mark.parametrize(
    ("raised", "expected", "reason"),
    [
        (errors.StoreUnavailableError, userprofile.ServiceUnavailableError, "STORE_UNAVAILABLE"),
        (errors.StoreTimeoutError, userprofile.ServiceUnavailableError, "STORE_TIMEOUT"),
        (errors.DeadlineExceededError, userprofile.DeadlineExceededError, "DEADLINE_EXCEEDED"),
        (errors.StoreMisconfiguredError, userprofile.UserProfileError, "STORE_MISCONFIGURED"),
        (KeyError, userprofile.UserProfileError, "INTERNAL"),
    ],
)
def test_every_other_failure_is_in_the_tree(
    serve: Serve,  # noqa: F811
    raised: type[Exception],
    expected: type[userprofile.UserProfileError],
    reason: str,
) -> None:
    def fail(_timeout: float) -> None:
        raise raised

    with UserProfileClient(serve(fail).address) as client, raises(expected) as caught:
        client.get_user("johndoe")
    assert (type(caught.value), caught.value.reason) == (expected, reason)


def test_errors_survive_pickling(client: UserProfileClient) -> None:
    with raises(userprofile.UserNotFoundError) as caught:
        client.get_user("nobody")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert type(copied) is userprofile.UserNotFoundError
    assert vars(copied) == vars(caught.value)
    assert str(copied) == str(caught.value)


def test_nobody_there_is_unavailable_without_a_reason() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        with UserProfileClient(target) as client, raises(userprofile.ServiceUnavailableError) as caught:
            client.get_user("johndoe")
    assert (caught.value.reason, caught.value.request_id) == (None, None)


@pytest.mark.parametrize("where", ["client", "call"])
def test_a_call_takes_no_longer_than_its_timeout(where: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with UserProfileClient(target, timeout=0.05 if where == "client" else 3600) as client:
            call_timeout = None if where == "client" else 0.05
            with raises(userprofile.DeadlineExceededError):
                client.get_user("johndoe", timeout=call_timeout)


def test_a_client_connects_again_by_itself(user_store_url: str) -> None:
    with UserProfileServer(ServeSettings(store=user_store_url, listen="127.0.0.1:0")) as address:
        client = UserProfileClient(address)
        assert client.get_user("johndoe")
    with raises(userprofile.ServiceUnavailableError):
        client.get_user("johndoe")
    with UserProfileServer(ServeSettings(store=user_store_url, listen=address)):

        def answered() -> bool:
            try:
                return client.get_user("johndoe", timeout=5).full_name == "John Doe"
            except userprofile.ServiceUnavailableError:  # until gRPC tries again, after its backoff
                return False

        eventually(answered, "connected again")
    client.close()


def test_the_stubs_are_there_for_those_who_want_them(address: str) -> None:
    from userprofile.v1 import user_profile_pb2, user_profile_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = user_profile_pb2_grpc.UserProfileServiceStub(channel)
        response = stub.GetUser(user_profile_pb2.GetUserRequest(username="johndoe"), timeout=10)
    assert response.user.full_name == "John Doe"
