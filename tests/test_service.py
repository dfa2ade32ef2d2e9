"""The servicer alone, without a transport (grpcio-testing), and get_user without gRPC at all."""

import time

import grpc
import grpc_testing
import pytest

from tests.canary import raises
from tests.support import ScriptedStore
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile_server.errors import InvalidUsernameError, UserNotFoundError
from userprofile_server.rpc.service import UserProfileService, to_message
from userprofile_server.users.lookup import get_user
from userprofile_server.users.models import User

SERVICE = pb.DESCRIPTOR.services_by_name["UserProfileService"]


def test_message_in_message_out() -> None:
    servicer = UserProfileService(lambda: ScriptedStore(lambda _timeout: None), store_timeout=1)
    server = grpc_testing.server_from_dictionary({SERVICE: servicer}, grpc_testing.strict_real_time())
    method = SERVICE.methods_by_name["GetUser"]
    call = server.invoke_unary_unary(method, (), pb.GetUserRequest(username="johndoe"), timeout=5)
    response, _, code, _ = call.termination()
    assert code is grpc.StatusCode.OK
    assert response == pb.GetUserResponse(user=user_pb.User(username="johndoe"))


@pytest.mark.parametrize(
    ("remaining", "for_one", "for_a_batch"),
    [
        (None, 30, 30),
        (100, 30, 30),
        (10, 9.995, 9.9),  # the batch's response takes up to a tenth of a second
        (1, 0.995, 0.9),
        (0.5, 0.495, 0.45),  # or a tenth of the remaining time, if that is less
        (0.02, 0.015, 0.015),  # and at least what one response takes
        (0.005, None, None),
        (0, None, None),
    ],
)
def test_the_store_gets_the_remaining_time_less_that_of_the_response(
    remaining: float | None, for_one: float | None, for_a_batch: float | None
) -> None:
    timeouts: list[float] = []
    servicer = UserProfileService(lambda: ScriptedStore(timeouts.append), store_timeout=30)
    clock = grpc_testing.strict_fake_time(0)
    server = grpc_testing.server_from_dictionary({SERVICE: servicer}, clock)
    for method, request, expected in [
        ("GetUser", pb.GetUserRequest(username="johndoe"), for_one),
        ("BatchGetUsers", pb.BatchGetUsersRequest(usernames=["johndoe"]), for_a_batch),
    ]:
        timeouts.clear()
        call = server.invoke_unary_unary(SERVICE.methods_by_name[method], (), request, timeout=remaining)
        call.termination()
        assert timeouts == ([] if expected is None else [pytest.approx(expected)]), method


@pytest.mark.parametrize("value", [None, ""])
def test_to_message_sets_just_what_is_not_none(value: str | None) -> None:
    message = to_message(User(username="johndoe", email=value, full_name=value))
    assert message.HasField("email") is (value is not None)
    assert message.HasField("full_name") is (value is not None)
    assert not message.HasField("disabled")


def test_get_user_needs_a_store_and_nothing_of_grpc() -> None:
    store = ScriptedStore(lambda _timeout: None)
    assert get_user(store, "johndoe", timeout=1).username == "johndoe"
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
