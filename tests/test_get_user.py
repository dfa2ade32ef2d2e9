"""GetUser, as a caller sees it, through a real server on a real socket."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.canary import CANARY
from tests.support import CallError, GetUser, ScriptedStore, document, open_url
from userprofile_server import errors, stores
from userprofile_server.models import User
from userprofile_server.server import MAX_REQUEST_BYTES, UserProfileServer
from userprofile_server.settings import ServeSettings

Serve = Callable[..., "ScriptedServer"]


class ScriptedServer:
    """A server over a store whose reads do what a test says."""

    def __init__(self, store: ScriptedStore, **settings: object) -> None:
        stores._OPENERS["scripted"] = lambda _settings, **_: store
        self.server = UserProfileServer(ServeSettings(store="scripted://", listen="127.0.0.1:0", **settings))
        self.address = self.server.start()
        self.channel = grpc.insecure_channel(self.address)
        self.get_user = GetUser(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.server.stop()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedServer]:
    monkeypatch.setattr(stores, "_OPENERS", dict(stores._OPENERS))
    running: list[ScriptedServer] = []

    def start(
        before_get: Callable[[float], None] = lambda _timeout: None,
        *,
        store: ScriptedStore | None = None,
        **settings: object,
    ) -> ScriptedServer:
        running.append(ScriptedServer(store or ScriptedStore(before_get), **settings))
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
def test_tells_what_is_unset_from_what_is_empty(get_user: GetUser, username: str, present: set[str]) -> None:
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
    call = get_user.channel.unary_unary("/userprofile.v1.UserProfileService/DropAllUsers")
    assert CallError.of(lambda: call(b"", timeout=10)).code is grpc.StatusCode.UNIMPLEMENTED


def test_oversized_request_is_refused_by_grpc(get_user: GetUser) -> None:
    error = CallError.of(lambda: get_user.raw(bytes(MAX_REQUEST_BYTES + 1)))
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
    store.put([stores.Document("johndoe", content)], timeout=5)
    store.close()
    error = get_user.error("johndoe")
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_DOCUMENT")
    assert error.message == "What is stored for this user is not a user profile."


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
        assert 4 < timeout < 6  # grpc rounds what it tells the server

    def test_the_store_gets_the_configured_timeout_if_the_caller_sets_none(self, serve: Serve) -> None:
        timeouts: list[float] = []
        server = serve(timeouts.append, store_timeout=1.5)
        server.channel.unary_unary("/userprofile.v1.UserProfileService/GetUser")(b"\x0a\x07johndoe")
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
def test_every_worker_has_a_store_of_its_own_unless_they_share_one(
    monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    together = threading.Barrier(3)
    used: set[tuple[int, str]] = set()

    class Recording(ScriptedStore):
        def get(self, username: str, *, timeout: float) -> User:
            used.add((id(self), threading.current_thread().name))
            together.wait(timeout=10)
            return User(username=username)

    monkeypatch.setitem(stores._OPENERS, "recording", lambda _settings, **_: Recording(lambda _timeout: None))
    settings = ServeSettings(store="recording://", listen="127.0.0.1:0", workers=3, share_handle=share)
    with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
        with ThreadPoolExecutor(3) as callers:
            list(callers.map(GetUser(channel), ["johndoe"] * 3))
    assert len({thread for _, thread in used}) == 3
    assert len({store for store, _ in used}) == (1 if share else 3)


def test_sixteen_callers_make_twenty_thousand_calls_without_an_error(address: str) -> None:
    def call_often(_number: int) -> int:
        with grpc.insecure_channel(address) as channel:
            get_user = GetUser(channel)
            return sum(get_user("johndoe", timeout=60).full_name == "John Doe" for _ in range(1250))

    with ThreadPoolExecutor(16) as callers:
        assert sum(callers.map(call_often, range(16))) == 20_000


def test_a_unix_socket_serves_as_well(user_store_url: str, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'socket'}"
    with UserProfileServer(ServeSettings(store=user_store_url, listen=listen)) as address:
        assert address == listen
        with grpc.insecure_channel(address) as channel:
            assert GetUser(channel)("johndoe").full_name == "John Doe"
