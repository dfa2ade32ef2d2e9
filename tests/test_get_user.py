"""GetUser, as a caller sees it, through a real server on a real socket."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.canary import CANARY, raises
from tests.support import CallError, GetUser, ScriptedStore, bare_call, document, open_url, settings_for
from userprofile import ServiceUnavailableError, UserProfileClient
from userprofile_server import errors
from userprofile_server.limits import LimitSettings
from userprofile_server.server import UserProfileServer
from userprofile_server.stores.base import Document
from userprofile_server.users.documents import document_key

Serve = Callable[..., "ScriptedServer"]


class ScriptedServer:
    """A server over a store whose reads do what a test says."""

    def __init__(self, open_store: Callable[[], ScriptedStore], **settings: Any) -> None:
        self.server = UserProfileServer(settings_for("sqlite:///unused.db", **settings), open_store=open_store)
        self.address = self.server.start()
        self.channel = grpc.insecure_channel(self.address)
        self.get_user = GetUser(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.server.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    running: list[ScriptedServer] = []

    def start(
        before_get: Callable[[float], None] = lambda _timeout: None,
        *,
        store: ScriptedStore | None = None,
        open_store: Callable[[], ScriptedStore] | None = None,
        **settings: Any,
    ) -> ScriptedServer:
        open_store = open_store or (lambda: store or ScriptedStore(before_get))
        running.append(ScriptedServer(open_store, **settings))
        return running[-1]

    yield start
    for server in running:
        server.close()


def test_returns_the_public_profile(get_user: GetUser) -> None:
    user = get_user("johndoe")
    assert (user.username, user.email, user.full_name) == ("johndoe", "johndoe@example.com", "John Doe")
    assert user.HasField("disabled")
    assert user.disabled is False


@pytest.mark.parametrize(
    ("username", "present"),
    [
        ("absent", set()),
        ("null", set()),
        ("empty", {"email", "full_name", "disabled"}),
        ("true", {"disabled"}),
    ],
)
def test_distinguishes_unset_from_empty(get_user: GetUser, username: str, present: set[str]) -> None:
    user = get_user(username)
    assert {name for name in ("email", "full_name", "disabled") if user.HasField(name)} == present


def test_finds_names_beyond_ascii(get_user: GetUser) -> None:
    assert get_user("jürgen 🦊").full_name == "Jürgen"


def test_unknown_user_is_not_found(get_user: GetUser) -> None:
    error = get_user.error("nobody")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND")
    assert "nobody" not in error.message


@pytest.mark.parametrize(
    "username",
    ["", "x" * 234, "é" * 117, "a\nb", "\x00", "tab\t", "\x7f", "\x85"],
    ids=["empty", "234 bytes", "117 two-byte letters", "newline", "NUL", "tab", "DEL", "C1"],
)
def test_invalid_name_is_refused_and_the_field_named(get_user: GetUser, username: str) -> None:
    error = get_user.error(username)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_USERNAME")
    (violation,) = error.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field == "username"
    assert violation.description.startswith("must ")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"not protobuf at all"],
    ids=["no field", "cut off", "not utf-8", "text"],
)
def test_request_that_is_not_the_message_is_the_callers_mistake(get_user: GetUser, request_bytes: bytes) -> None:
    error = CallError.of(lambda: get_user.raw(request_bytes))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


def test_unknown_method_is_unimplemented(get_user: GetUser) -> None:
    call = bare_call(get_user.channel, "/userprofile.v1.UserProfileService/DropAllUsers")
    assert CallError.of(lambda: call(b"", timeout=10)).code is grpc.StatusCode.UNIMPLEMENTED


def test_oversized_request_is_refused_by_grpc(get_user: GetUser) -> None:
    error = CallError.of(lambda: get_user.raw(bytes(LimitSettings().max_request_bytes + 1)))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "content",
    [
        CANARY.encode(),
        document("johndoe")[:-1],
        b"[" + document("johndoe") + b"]",
        document("johndoe", username=None),
        document("johndoe", disabled=CANARY),
        document("johndoe", type="order"),
        document("alice"),
    ],
    ids=["not json", "cut off", "array", "no username", "wrong type", "another type", "another username"],
)
def test_corrupt_document_is_data_loss(user_store_url: str, get_user: GetUser, content: bytes) -> None:
    store = open_url(user_store_url)
    store.put([Document(document_key("johndoe"), content)], timeout=5)
    store.close()
    error = get_user.error("johndoe")
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_DOCUMENT")
    assert error.message == "The document stored for this user is not a user profile."


class TestRequestId:
    def test_the_callers_own_comes_back(self, get_user: GetUser) -> None:
        _, call = get_user.with_call("johndoe", metadata=[("x-request-id", "from-the-caller")])
        assert dict(call.trailing_metadata())["x-request-id"] == "from-the-caller"

    def test_is_made_where_the_caller_has_none(self, get_user: GetUser) -> None:
        ids = {dict(get_user.with_call("johndoe")[1].trailing_metadata())["x-request-id"] for _ in range(3)}
        assert len(ids) == 3

    @pytest.mark.parametrize("bad", ["", "x" * 129, "a b"])
    def test_is_made_where_the_callers_own_does_not_fit_a_log_line(self, get_user: GetUser, bad: str) -> None:
        _, call = get_user.with_call("johndoe", metadata=[("x-request-id", bad)])
        assert dict(call.trailing_metadata())["x-request-id"] not in ("", bad)

    def test_stands_in_an_errors_metadata_and_details(self, get_user: GetUser) -> None:
        error = get_user.error("nobody", metadata=[("x-request-id", "from-the-caller")])
        assert error.metadata["x-request-id"] == "from-the-caller"
        assert error.request_id == "from-the-caller"


class TestDeadline:
    def test_the_store_gets_the_configured_timeout_if_the_caller_has_more(self, serve: Serve) -> None:
        timeouts: list[float] = []
        serve(timeouts.append, store_timeout=1.5).get_user("johndoe", timeout=30)
        assert timeouts == [1.5]

    def test_the_store_gets_what_is_left_to_the_caller_if_that_is_less(self, serve: Serve) -> None:
        timeouts: list[float] = []
        serve(timeouts.append, store_timeout=30).get_user("johndoe", timeout=5)
        (timeout,) = timeouts
        assert 4 < timeout < 6  # grpc rounds the timeout that it sends

    def test_the_store_gets_the_configured_timeout_if_the_caller_sets_none(self, serve: Serve) -> None:
        timeouts: list[float] = []
        server = serve(timeouts.append, store_timeout=1.5)
        bare_call(server.channel, "/userprofile.v1.UserProfileService/GetUser")(b"\x0a\x07johndoe")
        assert timeouts == [1.5]

    def test_a_call_whose_time_is_spent_is_not_sent_to_the_store(self, serve: Serve) -> None:
        reads: list[float] = []
        error = serve(reads.append).get_user.error("johndoe", timeout=0.004)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reads == []

    def test_a_slow_store_is_unavailable_and_a_retry_unwanted(self, serve: Serve) -> None:
        def time_out(_timeout: float) -> None:
            raise errors.StoreTimeoutError("the secret host 10.0.0.1 timed out")

        error = serve(time_out, store_timeout=1).get_user.error("johndoe", timeout=30)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_TIMEOUT")
        assert error.metadata["grpc-retry-pushback-ms"] == "-1"
        assert "secret" not in str(vars(error))

    def test_a_store_that_used_up_the_callers_time_is_a_deadline(self, serve: Serve) -> None:
        timed_out = threading.Event()

        def time_out(_timeout: float) -> None:
            timed_out.set()
            raise errors.StoreTimeoutError

        error = serve(time_out, store_timeout=60).get_user.error("johndoe", timeout=5)
        assert timed_out.is_set()
        assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


class TestStoreErrors:
    @pytest.mark.parametrize(
        ("raised", "code", "reason"),
        [
            (errors.StoreUnavailableError, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
            (errors.StoreMisconfiguredError, grpc.StatusCode.INTERNAL, "STORE_MISCONFIGURED"),
        ],
    )
    def test_have_their_status_and_keep_their_text(
        self, serve: Serve, raised: type[Exception], code: grpc.StatusCode, reason: str
    ) -> None:
        def fail(_timeout: float) -> None:
            raise raised("secret text of a driver")

        error = serve(fail).get_user.error("johndoe")
        assert (error.code, error.reason) == (code, reason)
        assert "secret" not in str(vars(error))

    def test_a_retry_is_suggested_where_it_helps(self, serve: Serve) -> None:
        def fail(_timeout: float) -> None:
            raise errors.StoreUnavailableError

        error = serve(fail).get_user.error("johndoe", timeout=60)
        assert "grpc-retry-pushback-ms" not in error.metadata
        assert error.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1

    def test_a_caller_whose_time_would_end_before_the_next_retry_reads_the_reason(self, serve: Serve) -> None:
        attempts: list[float] = []

        def fail(timeout: float) -> None:
            attempts.append(timeout)
            raise errors.StoreUnavailableError

        with UserProfileClient(serve(fail).address, timeout=2) as client:
            with raises(ServiceUnavailableError) as caught:
                client.get_user("johndoe")
        assert (caught.value.reason, caught.value.retryable) == ("STORE_UNAVAILABLE", True)
        assert 2 <= len(attempts) <= 4  # the fourth pause would be 2 seconds

    @pytest.mark.parametrize("raised", [errors.StoreTimeoutError, errors.StoreMisconfiguredError])
    def test_no_retry_is_suggested_where_it_does_not_help(self, serve: Serve, raised: type[Exception]) -> None:
        def fail(_timeout: float) -> None:
            raise raised

        assert serve(fail).get_user.error("johndoe", timeout=60).detail(error_details_pb2.RetryInfo) is None


class Panic(BaseException):
    """What native modules raise when they panic derives from BaseException alone."""


@pytest.mark.parametrize("bug", [ValueError, Exception, SystemExit, Panic, errors.DomainError])
def test_a_bug_is_internal_with_a_request_id_and_nothing_of_its_text(
    serve: Serve, caplog: pytest.LogCaptureFixture, bug: type[BaseException]
) -> None:
    def fail(_timeout: float) -> None:
        raise bug("secret text of a bug")

    error = serve(fail).get_user.error("johndoe", metadata=[("x-request-id", "find-me")])
    assert (error.code, error.reason, error.request_id) == (grpc.StatusCode.INTERNAL, "INTERNAL", "find-me")
    assert "secret" not in str(vars(error))
    assert any(record.levelname == "ERROR" for record in caplog.records)


@pytest.mark.parametrize("share", [False, True])
def test_every_worker_has_a_store_of_its_own_unless_they_share_one(share: bool) -> None:
    together = threading.Barrier(3)
    used: set[tuple[int, str]] = set()

    class Recording(ScriptedStore):
        def get(self, key: str, *, timeout: float) -> bytes | None:
            used.add((id(self), threading.current_thread().name))
            together.wait(timeout=10)
            return super().get(key, timeout=timeout)

    settings = settings_for("of-our-own://", workers=3, shared_connection=share)
    server = UserProfileServer(settings, open_store=lambda: Recording(lambda _timeout: None))
    with server as address, grpc.insecure_channel(address) as channel:
        with ThreadPoolExecutor(3) as callers:
            list(callers.map(GetUser(channel), ["johndoe"] * 3))
    assert len({thread for _, thread in used}) == 3
    assert len({store for store, _ in used}) == (1 if share else 3)


def test_sixteen_concurrent_calls_all_succeed(address: str) -> None:
    def call_often(_number: int) -> int:
        with grpc.insecure_channel(address) as channel:
            get_user = GetUser(channel)
            return sum(get_user("johndoe", timeout=60).full_name == "John Doe" for _ in range(125))

    with ThreadPoolExecutor(16) as callers:
        assert sum(callers.map(call_often, range(16))) == 2000


def test_a_unix_socket_serves_as_well(user_store_url: str, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'socket'}"
    with UserProfileServer(settings_for(user_store_url, listen=listen)) as address:
        assert address == listen
        with grpc.insecure_channel(address) as channel:
            assert GetUser(channel)("johndoe").full_name == "John Doe"
