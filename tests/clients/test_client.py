"""What both Python clients do, beyond the table of test_conformance.py."""

import asyncio
import copy
import dataclasses
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import userprofile
from tests.canary import raises
from tests.clients import raw_server as raw
from tests.clients.twins import MakeClient
from tests.support import eventually, run
from tests.timing import judging
from userprofile import User, UserProfileError
from userprofile.calls import CallFactory
from userprofile.errors import from_status
from userprofile.testing import FakeUserProfileServer


@pytest.fixture
def silent_target() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_a_user_is_frozen(client: Any) -> None:
    user = client.get_user("johndoe")
    assert user == User("johndoe", "johndoe@example.com", "John Doe", disabled=False)
    with raises(dataclasses.FrozenInstanceError):
        user.email = "other"


class TestErrors:
    def test_say_all_that_is_known(self, client: Any) -> None:
        with raises(userprofile.UserNotFoundError) as caught:
            client.get_user("nobody", request_id="find-me")
        error = caught.value
        assert (error.code, error.reason, error.message) == (
            grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND", "There is no such user.",
        )  # fmt: skip
        assert str(error) == "There is no such user. (NOT_FOUND, USER_NOT_FOUND, request id find-me)"

    def test_fit_into_match_statements(self, client: Any) -> None:
        with raises(UserProfileError) as caught:
            client.get_user("")
        match caught.value:
            case userprofile.UserNotFoundError():
                matched = "class"
            case UserProfileError(reason="INVALID_USERNAME", retryable=False):
                matched = "reason"
            case _:
                matched = "nothing"
        assert matched == "reason"

    def test_survive_pickling(self, client: Any) -> None:
        with raises(userprofile.UserNotFoundError) as caught:
            client.get_user("nobody")
        with raises(userprofile.BatchError) as caught_batch:
            client.get_users(["johndoe", ""])
        for error in (caught.value, caught_batch.value):
            copied = pickle.loads(pickle.dumps(error))
            assert type(copied) is type(error)
            assert str(copied) == str(error)
            assert copied.retryable == error.retryable
        assert copied.users == caught_batch.value.users
        assert copied.errors.keys() == {""}

    def test_keep_what_others_have_put_on_them(self, client: Any) -> None:
        with raises(userprofile.BatchError) as caught:
            client.get_users(["johndoe", ""])
        error = caught.value
        error.add_note("while greeting")
        error.errors[""].add_note("the first")
        error.trace = "4bf9"
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (again.__notes__, again.trace) == (["while greeting"], "4bf9")
            assert again.errors[""].__notes__ == ["the first"]

    @pytest.mark.parametrize(
        ("reason", "expected", "retryable"),
        [
            ("STORE_UNAVAILABLE", userprofile.ServiceUnavailableError, True),
            ("STORE_TIMEOUT", userprofile.ServiceUnavailableError, False),
            ("CORRUPT_DOCUMENT", userprofile.CorruptProfileError, False),
            ("PROFILE_TOO_LARGE", userprofile.ProfileTooLargeError, False),
            ("STORE_MISCONFIGURED", UserProfileError, False),
            ("INTERNAL", UserProfileError, False),
        ],
    )
    def test_are_one_tree(
        self,
        make_client: MakeClient,
        fake_userprofile: FakeUserProfileServer,
        reason: str,
        expected: type[UserProfileError],
        retryable: bool,
    ) -> None:
        fake_userprofile.fail(reason)
        with raises(expected) as caught:
            make_client(fake_userprofile.target, retries=0).get_user("johndoe")
        assert type(caught.value) is expected
        assert (caught.value.reason, caught.value.retryable) == (reason, retryable)

    @pytest.mark.timing
    @pytest.mark.parametrize("timeout", [0.5, 1, 2])
    def test_a_timeout_that_ends_between_two_retries_has_the_reason(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, timeout: float
    ) -> None:
        fake_userprofile.fail("STORE_UNAVAILABLE")
        client = make_client(fake_userprofile.target, timeout=timeout)
        for _ in range(1 if judging() else 10):
            with raises(UserProfileError) as caught:
                client.get_user("johndoe")
            if caught.value.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                break  # on a busy machine the response to the last attempt may come too late
        assert isinstance(caught.value, userprofile.ServiceUnavailableError)
        assert (caught.value.reason, caught.value.retryable) == ("STORE_UNAVAILABLE", True)

    @pytest.mark.parametrize("name", ["STORE_UNAVAILABLE", "STORE_TIMEOUT", "OF_A_LATER_VERSION"])
    @pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED])
    @pytest.mark.parametrize("says", [True, False])
    def test_are_retryable_if_the_response_says_so(self, name: str, code: grpc.StatusCode, says: bool) -> None:
        details: list[Message] = [error_details_pb2.ErrorInfo(domain="userprofile", reason=name)]
        if says:
            details.append(error_details_pb2.RetryInfo())
        status = status_pb2.Status(code=code.value[0])
        for detail in details:
            status.details.add().Pack(detail)
        assert from_status(status, None).retryable is says

    @pytest.mark.parametrize(("pushback", "retryable"), [("-1", False), ("100", True)])
    def test_of_others_are_retryable_unless_they_forbid_it(
        self, make_client: MakeClient, pushback: str, retryable: bool
    ) -> None:
        with raw.RawServer(raw.failure(14, ("grpc-retry-pushback-ms", pushback))) as server:
            with raises(userprofile.ServiceUnavailableError) as caught:
                make_client(server.target, retries=0).get_user("johndoe")
        assert caught.value.retryable is retryable

    def test_name_a_service_that_is_not_there(self, make_client: MakeClient, unused_target: str) -> None:
        with raises(userprofile.ServiceUnavailableError, match="Connection refused") as caught:
            make_client(unused_target).get_user("johndoe", request_id="mine", timeout=0.5)
        assert (caught.value.reason, caught.value.request_id) == ("SERVICE_UNREACHABLE", "mine")
        assert caught.value.retryable


class TestNames:
    @pytest.mark.parametrize("username", ["", "x" * 234, "x" * 100_000, "\ud800"])
    def test_that_nobody_can_have_are_refused_by_every_method(self, client: Any, username: str) -> None:
        for call in (client.get_user, client.find_user):
            with raises(userprofile.InvalidUsernameError, match="username must ") as caught:
                call(username)
            assert caught.value.reason == "INVALID_USERNAME"
        (_, user), (_, error) = client.iter_users(["johndoe", username])
        assert isinstance(user, User)
        assert isinstance(error, userprofile.InvalidUsernameError)

    def test_that_cannot_be_sent_at_all_are_refused_without_a_call(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        client = make_client(fake_userprofile.target)
        assert [type(error) for _, error in client.iter_users(["\ud800", "x" * 601])] == [
            userprofile.InvalidUsernameError, userprofile.InvalidUsernameError,
        ]  # fmt: skip
        assert fake_userprofile.requests == []

    def test_a_hundred_of_the_longest_fit_into_a_request(self, client: Any) -> None:
        names = [f"{number:03}" + "x" * 597 for number in range(100)]
        assert {type(error) for _, error in client.iter_users(names)} == {userprofile.InvalidUsernameError}

    def test_are_strings(self, client: Any) -> None:
        calls: list[Callable[[], object]] = [
            lambda: client.get_user(None),
            lambda: client.get_users([5]),
            lambda: client.find_user(b"johndoe"),
        ]
        for call in calls:
            with raises(TypeError, match="a username is a string"):
                call()

    def test_a_lone_name_is_not_taken_for_a_list_of_letters(self, client: Any) -> None:
        with raises(TypeError, match="expected an iterable of usernames, got a single string"):
            client.get_users("johndoe")
        with raises(TypeError, match="expected an iterable of usernames, got a single string"):
            next(client.iter_users("johndoe"))


class TestManyUsers:
    @pytest.fixture
    def server(self, fake_userprofile: FakeUserProfileServer) -> FakeUserProfileServer:
        fake_userprofile.add(*(User(f"user{number}") for number in range(0, 1000, 2)))
        return fake_userprofile

    def test_are_requested_by_the_hundred_and_each_once(
        self, make_client: MakeClient, server: FakeUserProfileServer
    ) -> None:
        names = [f"user{number}" for number in range(250)]
        found = make_client(server.target).get_users(iter(names * 2))
        assert list(found) == names[::2]
        assert all(user.username == name for name, user in found.items())
        assert sorted(len(request.usernames) for request in server.requests) == [50, 100, 100]

    def test_nobody_is_nobody(self, make_client: MakeClient, server: FakeUserProfileServer) -> None:
        assert make_client(server.target).get_users([]) == {}
        assert server.requests == []

    def test_are_taken_from_their_source_only_as_they_are_needed(
        self, make_client: MakeClient, server: FakeUserProfileServer
    ) -> None:
        taken = 0

        def names() -> Iterator[str]:
            nonlocal taken
            while True:
                taken += 1
                yield "user0"

        outcomes = make_client(server.target).iter_users(names())
        for _ in range(150):
            next(outcomes)
        assert taken <= 600
        outcomes.close()

    def test_get_users_stops_where_a_call_fails_as_a_whole(
        self, make_client: MakeClient, server: FakeUserProfileServer
    ) -> None:
        server.fail("STORE_UNAVAILABLE")
        with raises(userprofile.ServiceUnavailableError) as caught:
            make_client(server.target, retries=0).get_users(f"user{number}" for number in range(10_000))
        assert caught.value.reason == "STORE_UNAVAILABLE"
        assert len(server.requests) <= 5

    def test_iter_users_gives_each_name_an_outcome_through_an_outage(
        self, make_client: MakeClient, server: FakeUserProfileServer
    ) -> None:
        outcomes = []
        for number, outcome in enumerate(make_client(server.target, retries=0).iter_users(["user0"] * 2000)):
            outcomes.append(outcome)
            if number == 100:
                server.fail("STORE_UNAVAILABLE")
            if number == 1200:
                server.recover()
        assert len(outcomes) == 2000
        kinds = [type(outcome) for _, outcome in outcomes]
        assert kinds[0] is User
        assert userprofile.ServiceUnavailableError in kinds
        assert kinds[-1] is User


class TestTime:
    @pytest.mark.parametrize("where", ["client", "call"])
    def test_a_call_takes_no_longer_than_its_timeout(
        self, make_client: MakeClient, silent_target: str, where: str
    ) -> None:
        client = make_client(silent_target, timeout=0.05 if where == "client" else 3600)
        for call in (client.get_user, lambda name, **options: client.get_users([name], **options)):
            with raises(userprofile.DeadlineExceededError) as caught:
                call("johndoe", **({} if where == "client" else {"timeout": 0.05}))
            assert caught.value.request_id
            assert caught.value.message.startswith(f"no response from {silent_target} within 0.05 s (")

    def test_a_call_can_wait_for_a_server_until_its_time_is_up(
        self, make_client: MakeClient, unused_target: str
    ) -> None:
        in_vain = "could be reached within 0.2 s: .*refused"
        client = make_client(unused_target, wait_for_ready=False)
        with raises(userprofile.ServiceUnavailableError, match=in_vain) as caught:
            client.get_user("johndoe", timeout=0.2, wait_for_ready=True)
        assert (caught.value.reason, caught.value.retryable) == ("SERVICE_UNREACHABLE", True)
        waiting = make_client(unused_target, retries=0)
        for call in (waiting.get_user, lambda name, **options: waiting.get_users([name], **options)):
            with raises(userprofile.ServiceUnavailableError, match=in_vain):
                call("johndoe", timeout=0.2)
        with raises(userprofile.ServiceUnavailableError, match="^(failed to connect|connections to all)"):
            waiting.get_user("johndoe", wait_for_ready=False)

    def test_a_call_whose_time_is_up_before_its_retries_says_that_no_server_could_be_reached(
        self, make_client: MakeClient, unused_target: str
    ) -> None:
        client = make_client(unused_target, wait_for_ready=False, timeout=0.2)
        for call in (client.get_user, lambda name: client.get_users([name])):
            with raises(
                userprofile.ServiceUnavailableError, match=r"could be reached within 0.2 s: .*refused"
            ) as caught:
                call("johndoe")
            assert (caught.value.reason, caught.value.retryable) == ("SERVICE_UNREACHABLE", True)

    @pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e18])
    def test_a_timeout_has_to_be_one(self, make_client: MakeClient, timeout: float) -> None:
        with raises(ValueError, match="at most a day"):
            make_client(timeout=timeout)
        with raises(ValueError, match="at most a day"):
            make_client().get_user("johndoe", timeout=timeout)
        with raises(ValueError, match="above zero"):
            make_client(timeout=0)

    @pytest.mark.parametrize("timeout", ["5", timedelta(seconds=5), Decimal(5), [5]])
    def test_a_timeout_is_a_number_of_seconds(self, make_client: MakeClient, timeout: Any) -> None:
        says = f"a timeout is a number of seconds, not {type(timeout).__name__}"
        with raises(TypeError, match=says):
            make_client(timeout=timeout)
        with raises(TypeError, match=says):
            make_client().get_user("johndoe", timeout=timeout)

    def test_a_call_whose_time_is_over_fails_so(self, client: Any) -> None:
        with raises(userprofile.DeadlineExceededError, match="the deadline had passed before the call"):
            client.get_user("johndoe", timeout=-0.5)

    def test_every_call_has_a_deadline(self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
        client = make_client(fake_userprofile.target)
        client.find_user("johndoe")
        client.get_users(["johndoe"])
        for request in fake_userprofile.requests:
            assert request.time_remaining is not None
            assert 0 < request.time_remaining <= 6  # the default of 5, and what grpc rounds


class TestMetadata:
    def test_of_client_and_call_are_sent_with_the_request_id(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        client = make_client(fake_userprofile.target, metadata=[("x-tenant", "acme")])
        client.find_user("johndoe", metadata=[("x-trace-bin", b"\x00\xff")], request_id="mine")
        client.get_users(["johndoe"])
        first, second = (request.metadata for request in fake_userprofile.requests)
        assert (first["x-tenant"], first["x-trace-bin"], first["x-request-id"]) == ("acme", b"\x00\xff", "mine")
        assert second["x-tenant"] == "acme"
        assert len(second["x-request-id"]) == 32
        assert "authorization" not in first

    @pytest.mark.parametrize(
        ("metadata", "says"),
        [
            ([("X-Upper", "a")], "lower-case"),
            ([("grpc-timeout", "1S")], "grpc-"),
            ([("x-a", "secret\n")], "value of 'x-a' must be printable ASCII"),
            ([("x-a-bin", "secret")], "bytes"),
            ([("authorization", "Bearer secret")], "`token`"),
            ([("x-request-id", "secret")], "`request_id`"),
        ],
    )
    def test_that_cannot_be_sent_is_refused_without_being_shown(
        self, make_client: MakeClient, metadata: Any, says: str
    ) -> None:
        with raises(ValueError, match=says) as caught:
            make_client(metadata=metadata)
        assert "secret" not in str(caught.value)
        with raises(ValueError, match=says):
            make_client().get_user("johndoe", metadata=metadata)

    @pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "ü"])
    def test_a_request_id_has_to_fit_a_log_line(self, make_client: MakeClient, request_id: str) -> None:
        with raises(ValueError, match="visible ASCII"):
            make_client().get_user("johndoe", request_id=request_id)

    def test_an_option_that_does_not_exist_is_an_error(self, make_client: MakeClient) -> None:
        with raises(TypeError, match="deadline"):
            make_client().get_user("johndoe", deadline=1)


class TestContext:
    """Of a caller that is itself serving a call."""

    class Serving:
        def __init__(self, remaining: float | None, *metadata: tuple[str, str | bytes]) -> None:
            self._remaining = remaining
            self._metadata = metadata

        def time_remaining(self) -> float | None:
            return self._remaining

        def invocation_metadata(self) -> Any:
            return self._metadata

    def test_its_deadline_request_id_and_trace_are_passed_on(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        trace = [("traceparent", "00-4bf9-00f0-01"), ("tracestate", "a=b")]
        context = self.Serving(2.5, ("x-request-id", "theirs"), ("authorization", "Bearer theirs"), *trace)
        client = make_client(fake_userprofile.target)
        client.find_user("johndoe", context=context)
        client.get_users(["johndoe"], context=context)
        client.find_user("johndoe", context=context, request_id="mine", timeout=1)
        first, second, third = fake_userprofile.requests
        for request in (first, second):
            assert request.metadata["x-request-id"] == "theirs"
            assert dict(trace).items() <= request.metadata.items()
            assert "authorization" not in request.metadata
            assert request.time_remaining is not None
            assert request.time_remaining <= 3
        assert third.metadata["x-request-id"] == "mine"
        sent = CallFactory("x", timeout=1, wait_for_ready=True, metadata=()).begin(
            None, context=context, request_id="mine"
        )
        assert [value for key, value in sent.arguments["metadata"] if key == "x-request-id"] == ["mine"]
        assert third.time_remaining is not None
        assert third.time_remaining <= 1.5

    def test_what_was_given_for_the_call_wins(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        context = self.Serving(None, ("traceparent", "theirs"), ("tracestate", "a=1"), ("tracestate", "b=2"))
        seen = make_client(fake_userprofile.target)
        seen.find_user("johndoe", context=context, metadata=[("traceparent", "mine")])
        (request,) = fake_userprofile.requests
        assert (request.metadata["traceparent"], request.metadata["tracestate"]) == ("mine", "a=1,b=2")

    @pytest.mark.parametrize("received", ["", "two words", "x" * 129, "ünlesbar", "not\na line", b"bytes"])
    def test_with_an_id_that_cannot_be_one_does_not_fail_the_call_which_gets_its_own(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, received: str | bytes
    ) -> None:
        client = make_client(fake_userprofile.target)
        context = self.Serving(None, ("x-request-id", received), ("traceparent", "theirs"))
        client.find_user("johndoe", context=context)
        client.get_users(["johndoe"], context=context)
        client.find_user("johndoe", context=context, request_id="mine")
        *own, given = fake_userprofile.requests
        assert [len(request.metadata["x-request-id"]) for request in own] == [32, 32]
        assert given.metadata["x-request-id"] == "mine"
        assert {request.metadata["traceparent"] for request in fake_userprofile.requests} == {"theirs"}

    def test_with_the_longest_id_passes_it_on(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        make_client(fake_userprofile.target).find_user(
            "johndoe", context=self.Serving(None, ("x-request-id", "x" * 128))
        )
        (request,) = fake_userprofile.requests
        assert request.metadata["x-request-id"] == "x" * 128

    def test_whose_time_is_up_makes_no_call(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        with raises(userprofile.DeadlineExceededError):
            make_client(fake_userprofile.target).get_user("johndoe", context=self.Serving(-1.0))
        assert fake_userprofile.requests == []


class TestTheEnd:
    def test_a_closed_client_says_so(self, make_client: MakeClient, address: str) -> None:
        client = make_client(address)
        client.get_user("johndoe")
        client.close()
        client.close()
        calls: list[Callable[[], object]] = [
            lambda: client.get_user("johndoe"),
            lambda: client.find_user("johndoe"),
            lambda: client.get_users(["johndoe"]),
            lambda: next(client.iter_users(["johndoe"])),
            lambda: client.check_health(),
        ]
        for call in calls:
            with raises(RuntimeError, match="this client is closed"):
                call()

    def test_a_client_that_was_never_used_closes(self, make_client: MakeClient) -> None:
        make_client().close()

    @pytest.mark.parametrize(
        "operation",
        [
            lambda client: client.get_user("johndoe"),
            lambda client: client.get_users(["johndoe"]),
            lambda client: list(client.iter_users(["johndoe"])),
        ],
        ids=["get_user", "get_users", "iter_users"],
    )
    def test_calls_in_progress_are_cancelled_and_their_callers_are_not(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, operation: Callable[[Any], Any]
    ) -> None:
        fake_userprofile.delay = 30
        client = make_client(fake_userprofile.target, timeout=60)
        with ThreadPoolExecutor(1) as caller:
            call = caller.submit(operation, client)
            eventually(lambda: fake_userprofile.requests, "the call has arrived")
            client.close()
            try:
                ((_, error),) = call.result(timeout=20)  # of iter_users, which raises nothing
            except UserProfileError as raised:
                error = raised
        assert error.code is grpc.StatusCode.CANCELLED

    def test_ends_a_health_check_too(self, make_client: MakeClient, silent_target: str) -> None:
        client: Any = make_client(silent_target, timeout=60)
        with ThreadPoolExecutor(1) as caller:
            check = caller.submit(client.check_health)
            eventually(lambda: getattr(client, "client", client)._checking, "the check has begun")
            client.close()
            assert isinstance(check.exception(timeout=20), UserProfileError | RuntimeError)

    def test_ends_a_health_check_that_is_about_to_be_sent(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        client = userprofile.UserProfileClient(address)

        class Closing(set[grpc.Channel]):
            """Has another thread close the client when the check's channel is there, and its call is not."""

            def add(self, channel: grpc.Channel) -> None:
                super().add(channel)
                closing = threading.Thread(target=client.close)
                closing.start()
                closing.join()

        monkeypatch.setattr(client, "_checking", Closing())
        with raises(RuntimeError, match="this client is closed"):
            client.check_health()

    def test_threads_that_still_call_get_this_error_and_no_other(
        self, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Channels that are watched report their end differently.
        monkeypatch.setattr(grpc, "insecure_channel", grpc.insecure_channel.__wrapped__)  # type: ignore[attr-defined]
        for _ in range(10):
            client = userprofile.UserProfileClient(address)
            ends: list[BaseException] = []

            def call(client: Any = client, ends: list[BaseException] = ends) -> None:
                try:
                    while True:
                        client.get_user("johndoe")
                        client.get_users(["johndoe"])
                except BaseException as end:
                    ends.append(end)

            callers = [threading.Thread(target=call) for _ in range(8)]
            for caller in callers:
                caller.start()
            client.close()
            for caller in callers:
                caller.join(timeout=20)
            assert len(ends) == 8
            for error in ends:
                assert isinstance(error, UserProfileError | RuntimeError), repr(error)

    @pytest.mark.parametrize("intercepted", [True, False])
    def test_comes_even_after_that_of_its_event_loop(
        self, fake_userprofile: FakeUserProfileServer, intercepted: bool
    ) -> None:
        class Interceptor(grpc.aio.UnaryUnaryClientInterceptor):
            async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                return await continuation(client_call_details, request)

        fake_userprofile.delay = 30
        client = userprofile.AsyncUserProfileClient(
            fake_userprofile.target, timeout=60, interceptors=[Interceptor()] if intercepted else []
        )
        loop = asyncio.new_event_loop()
        calls = [loop.create_task(client.get_user("johndoe")), loop.create_task(client.get_users(["johndoe"]))]
        while len(fake_userprofile.requests) < 2:
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        asyncio.run(client.close())
        with raises(RuntimeError, match="this client is closed"):
            asyncio.run(client.get_user("johndoe"))
        for call in calls:
            call._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_of_an_event_loop_that_runs_comes_there_alone(self, fake_userprofile: FakeUserProfileServer) -> None:
        async def main() -> None:
            async with userprofile.AsyncUserProfileClient(fake_userprofile.target) as client:
                await client.find_user("johndoe")
                with raises(RuntimeError, match="close it there"):
                    await asyncio.to_thread(asyncio.run, client.close())
                assert await client.find_user("johndoe") is None

        asyncio.run(main())

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_a_child_process_has_to_make_its_own(self, address: str, kind: str) -> None:
        program = f"""
import asyncio, os, sys
from userprofile import AsyncUserProfileClient, UserProfileClient
async def main():
    client = AsyncUserProfileClient("{address}")
    await client.get_user("johndoe")
    if os.fork() == 0:
        try:
            await client.get_user("johndoe")
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
    await client.close()
if "{kind}" == "async":
    asyncio.run(main())
else:
    with UserProfileClient("{address}") as client:
        client.get_user("johndoe")
        if os.fork() == 0:
            try:
                client.get_user("johndoe")
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
"""
        assert run("python", "-c", program).stdout.startswith("this client was made in another process")

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_leaves_no_thread_no_socket_and_no_task(self, address: str, kind: str) -> None:
        # In a process of its own, where nobody else's come and go.
        program = f"""
import asyncio, os
from pathlib import Path
from userprofile import AsyncUserProfileClient, UserProfileClient
NAMES = ["johndoe"] * 500
async def use():
    with UserProfileClient("{address}") as client:
        client.get_user("johndoe"), client.get_users(NAMES), client.check_health()
        next(client.iter_users(NAMES))
async def use_async():
    async with AsyncUserProfileClient("{address}") as client:
        await asyncio.gather(client.get_user("johndoe"), client.get_users(NAMES), client.check_health())
        async for _ in client.iter_users(NAMES):
            break
    for _ in range(10):  # in which asyncio ends the generator that was left
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {{asyncio.current_task()}}, asyncio.all_tasks()
def held():
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    files = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum("event_engine" not in name for name in threads), sum("socket" in name for name in files)
async def main():
    once = use if "{kind}" == "sync" else use_async
    # Without any client gRPC ends altogether, and begins anew with the next one.
    bystander, async_bystander = UserProfileClient("{address}"), AsyncUserProfileClient("{address}")
    bystander.get_user("johndoe")
    await async_bystander.get_user("johndoe")
    await once()
    await asyncio.sleep(0.2)
    before = held()
    for _ in range(10):
        await once()
    for _ in range(500):
        if held() <= before:
            break
        await asyncio.sleep(0.02)
    print(held() <= before, before, held())
asyncio.run(main())
"""
        done = run("python", "-c", program)
        assert done.stdout.startswith("True"), done.stdout + done.stderr
        assert done.stderr == ""


class TestHealth:
    def test_is_what_the_server_says_of_itself(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        client = make_client(fake_userprofile.target)
        assert client.check_health() is True
        fake_userprofile.set_serving(False)
        assert client.check_health() is False
        twin: Any = getattr(client, "client", client)
        assert not twin._checking, "each check ends with its channel"

    def test_of_the_real_server_is_good(self, client: Any) -> None:
        assert client.check_health() is True

    def test_of_nobody_is_an_error(self, make_client: MakeClient, unused_target: str) -> None:
        with raises(userprofile.ServiceUnavailableError):
            make_client(unused_target).check_health()


def test_the_stubs_are_there_for_those_who_want_them(address: str) -> None:
    from userprofile.v1 import user_profile_service_pb2, user_profile_service_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = user_profile_service_pb2_grpc.UserProfileServiceStub(channel)
        response = stub.GetUser(user_profile_service_pb2.GetUserRequest(username="johndoe"), timeout=10)
    assert response.user.full_name == "John Doe"
