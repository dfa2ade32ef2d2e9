"""`userprofile.testing`, as seen by those who test their own code with it. test_conformance.py has its responses."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.canary import raises
from tests.support import CallError, GetUser, eventually
from userprofile import (
    CorruptProfileError,
    DeadlineExceededError,
    ServiceUnavailableError,
    User,
    UserNotFoundError,
    UserProfileClient,
    UserProfileError,
)
from userprofile.testing import FakeUserProfileServer


def test_start_returns_the_target_and_the_same_one_again_after_a_restart() -> None:
    server = FakeUserProfileServer([User("johndoe")])
    assert server.target == ""
    target = server.start()
    assert target == server.target
    with UserProfileClient(target, retries=0) as client:
        assert client.get_user("johndoe") == User("johndoe")
        server.stop()
        with raises(ServiceUnavailableError):
            client.get_user("johndoe", wait_for_ready=False)
        assert server.start() == target
        assert client.get_user("johndoe") == User("johndoe")
        assert client.check_health() is True
    server.stop()


def test_a_with_block_gives_the_server_itself_and_stops_it() -> None:
    fake = FakeUserProfileServer()
    with fake as server, UserProfileClient(server.target, retries=0) as client:
        assert server is fake
        assert client.find_user("johndoe") is None
        server.stop()
        with raises(ServiceUnavailableError):
            client.find_user("johndoe", wait_for_ready=False)


def test_one_that_was_never_started_can_be_stopped() -> None:
    FakeUserProfileServer().stop()


def test_one_that_runs_is_not_started_again_and_shares_no_port() -> None:
    with FakeUserProfileServer() as server:
        with raises(RuntimeError, match="not stopped"):
            server.start()
        other = FakeUserProfileServer()
        other.target = server.target
        with raises(RuntimeError, match="Failed to bind"):
            other.start()
        other.stop()
    other.start()
    other.stop()


def test_requests_are_kept_as_they_came(fake_userprofile: FakeUserProfileServer) -> None:
    with UserProfileClient(fake_userprofile.target, metadata=[("x-tenant", "acme")]) as client:
        client.find_user("johndoe", request_id="one", timeout=1000)
        client.get_users(["alice", "bob"])
    with grpc.insecure_channel(fake_userprofile.target) as channel:
        GetUser(channel).error("nobody", timeout=None)
    one, several, bare = fake_userprofile.requests
    assert (one.method, one.usernames) == ("GetUser", ("johndoe",))
    assert (several.method, several.usernames) == ("BatchGetUsers", ("alice", "bob"))
    assert (one.metadata["x-request-id"], one.metadata["x-tenant"]) == ("one", "acme")
    assert one.time_remaining == pytest.approx(1000, abs=60)
    assert bare.time_remaining is None


def test_users_may_change_at_any_time(fake_userprofile: FakeUserProfileServer) -> None:
    with UserProfileClient(fake_userprofile.target) as client:
        assert client.find_user("johndoe") is None
        fake_userprofile.add(User("johndoe"), User("alice"))
        assert client.get_users(["johndoe", "alice"]) == fake_userprofile.users
        fake_userprofile.add(User("johndoe", full_name="John"))
        assert client.get_user("johndoe").full_name == "John"
        del fake_userprofile.users["johndoe"]
        assert client.find_user("johndoe") is None


def test_failures_are_of_one_user_or_of_all_until_it_recovers(fake_userprofile: FakeUserProfileServer) -> None:
    fake_userprofile.add(User("johndoe"), User("alice"))
    with UserProfileClient(fake_userprofile.target, retries=0) as client:
        fake_userprofile.fail("CORRUPT_DOCUMENT", username="johndoe")
        with raises(CorruptProfileError):
            client.get_user("johndoe")
        assert client.get_user("alice")
        fake_userprofile.fail("STORE_UNAVAILABLE")
        with raises(ServiceUnavailableError):
            client.get_user("alice")
        with raises(CorruptProfileError):  # what was said of one user is more than what was said of all
            client.get_user("johndoe")
        fake_userprofile.recover()
        assert client.get_users(["johndoe", "alice"]).keys() == {"johndoe", "alice"}


@pytest.mark.parametrize("reason", ["USER_NOT_FOUND", "store_timeout", "", "NO_SUCH_REASON"])
def test_what_a_store_cannot_fail_by_is_refused_with_the_reasons_that_there_are(reason: str) -> None:
    with raises(ValueError, match=rf"^'{reason}' is not one of .*STORE_DAMAGED, .*STORE_UNAVAILABLE"):
        FakeUserProfileServer().fail(reason)


@pytest.mark.parametrize("slow", ["all calls", "a failure", "the failure of one"])
def test_a_delay_is_felt_by_calls_and_ends_when_it_recovers(fake_userprofile: FakeUserProfileServer, slow: str) -> None:
    fake_userprofile.add(User("johndoe"))
    if slow == "all calls":
        fake_userprofile.delay = 30
    else:
        username = "johndoe" if slow == "the failure of one" else None
        fake_userprofile.fail("STORE_TIMEOUT", username=username, after=30)
    with UserProfileClient(fake_userprofile.target) as client:
        with raises(DeadlineExceededError):
            client.get_user("johndoe", timeout=0.2)
        assert len(fake_userprofile.requests) == 1
        fake_userprofile.recover()
        assert client.get_user("johndoe") == User("johndoe")


def test_stopping_ends_calls_in_progress_and_their_threads(
    fake_userprofile: FakeUserProfileServer,
) -> None:
    fake_userprofile.delay = 30
    with UserProfileClient(fake_userprofile.target, retries=0) as client, ThreadPoolExecutor(1) as caller:
        call = caller.submit(client.get_user, "johndoe", timeout=60, wait_for_ready=False)
        eventually(lambda: fake_userprofile.requests, "the call has arrived")
        fake_userprofile.stop()
        assert isinstance(call.exception(timeout=20), UserProfileError)
        eventually(lambda: not any("fake userprofile" in thread.name for thread in threading.enumerate()), "all end")


def test_errors_have_the_details_of_the_services(fake_userprofile: FakeUserProfileServer) -> None:
    with grpc.insecure_channel(fake_userprofile.target) as channel:
        get_user = GetUser(channel)
        error = get_user.error("", metadata=[("x-request-id", "mine")])
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_USERNAME")
        assert error.request_id == "mine"
        (violation,) = error.detail(error_details_pb2.BadRequest).field_violations
        assert (violation.field, violation.reason) == ("username", "INVALID_USERNAME")
        missing = get_user.error("nobody")
        assert (missing.reason, missing.request_id) == ("USER_NOT_FOUND", None)
        assert missing.detail(error_details_pb2.BadRequest) is None
        pushbacks = {}
        for reason in ("STORE_TIMEOUT", "STORE_UNAVAILABLE"):
            fake_userprofile.fail(reason)
            pushbacks[reason] = get_user.error("nobody").metadata.get("grpc-retry-pushback-ms")
        assert pushbacks == {"STORE_TIMEOUT": "-1", "STORE_UNAVAILABLE": None}


def test_an_overloaded_server_says_when_to_retry_if_the_deadline_leaves_time_for_it(
    fake_userprofile: FakeUserProfileServer,
) -> None:
    fake_userprofile.fail("OVERLOADED")
    with grpc.insecure_channel(fake_userprofile.target, [("grpc.enable_retries", 0)]) as channel:
        get_user = GetUser(channel)
        assert get_user.error("johndoe").metadata["grpc-retry-pushback-ms"] == "250"
        hurried: list[CallError] = []

        def fails_in_time() -> bool:  # which a busy machine may not do
            hurried.append(get_user.error("johndoe", timeout=0.2))
            return hurried[-1].reason == "OVERLOADED"

        eventually(fails_in_time, "a call fails in time")
    assert hurried[-1].metadata["grpc-retry-pushback-ms"] == "-1"


def test_health_reports_the_status_that_was_set(fake_userprofile: FakeUserProfileServer) -> None:
    with UserProfileClient(fake_userprofile.target) as client:
        for serving in (False, True):
            fake_userprofile.set_serving(serving)
            assert client.check_health() is serving


def test_the_fixture_is_a_running_server_without_users(fake_userprofile: FakeUserProfileServer) -> None:
    assert (fake_userprofile.users, fake_userprofile.requests) == ({}, [])
    with UserProfileClient(fake_userprofile.target) as client, raises(UserNotFoundError):
        client.get_user("johndoe")
