"""The servicer alone, without a transport (grpcio-testing), and get_user without gRPC at all."""

import time

import grpc
import grpc_testing
import pytest

from tests.canary import raises
from tests.support import ScriptedStore
from userprofile.v1 import user_profile_pb2 as pb
from userprofile_server.errors import InvalidUsernameError, UserNotFoundError
from userprofile_server.models import User
from userprofile_server.service import UserProfileService, to_message
from userprofile_server.users import get_user

SERVICE = pb.DESCRIPTOR.services_by_name["UserProfileService"]


def test_message_in_message_out() -> None:
    servicer = UserProfileService(lambda: ScriptedStore(lambda _timeout: None), store_timeout=1)
    server = grpc_testing.server_from_dictionary({SERVICE: servicer}, grpc_testing.strict_real_time())
    method = SERVICE.methods_by_name["GetUser"]
    call = server.invoke_unary_unary(method, (), pb.GetUserRequest(username="johndoe"), timeout=5)
    response, _, code, _ = call.termination()
    assert code is grpc.StatusCode.OK
    assert response == pb.GetUserResponse(user=pb.User(username="johndoe"))


@pytest.mark.parametrize("value", [None, ""])
def test_to_message_sets_just_what_is_not_none(value: str | None) -> None:
    message = to_message(User(username="johndoe", email=value, full_name=value))
    assert message.HasField("email") is (value is not None)
    assert message.HasField("full_name") is (value is not None)
    assert not message.HasField("disabled")


def test_get_user_needs_a_store_and_nothing_of_grpc() -> None:
    store = ScriptedStore(lambda _timeout: None)
    assert get_user(store, "johndoe", timeout=1) == User(username="johndoe")
    with raises(UserNotFoundError):
        get_user(store, "nobody", timeout=1)


@pytest.mark.parametrize("username", ["", "x" * 234, "a\nb", "\ud800"])
def test_get_user_does_not_bother_the_store_with_a_name_that_nobody_can_have(username: str) -> None:
    reads: list[float] = []
    with raises(InvalidUsernameError):
        get_user(ScriptedStore(reads.append), username, timeout=1)
    assert reads == []


def test_the_longest_name_is_233_bytes() -> None:
    with raises(UserNotFoundError):
        get_user(ScriptedStore(lambda _timeout: None), "x" * 233, timeout=time.monotonic())
