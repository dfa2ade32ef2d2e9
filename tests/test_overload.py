"""More calls than can be served: who is refused, with what, and that nobody else notices."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.canary import guard
from tests.support import WAIT, CallError, GetUser, eventually
from tests.test_get_user import ScriptedServer, Serve, serve  # noqa: F401, a fixture
from tests.test_health import SERVING, check
from userprofile import UserProfileClient
from userprofile_server.errors import OverloadedError
from userprofile_server.rpc.executor import Executor
from userprofile_server.security.tokens import new_token

OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


class Gate:
    """Reads of the store begin, and end when the gate is opened."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, _timeout: float) -> None:
        self.begun.release()
        assert self._open.wait(WAIT)

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()


def waiting(server: ScriptedServer) -> int:
    return server.server._executor._backlog.waiting


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def full(serve: Serve, gate: Gate) -> ScriptedServer:  # noqa: F811
    """A server with one worker, and no room for one more call."""
    return serve(gate, workers=1, max_queued=2)


def fill(server: ScriptedServer, gate: Gate) -> list[Any]:
    """Begins a call, has others wait as the next, and two in the backlog."""
    calls = begin(server, gate)
    for number in range(1, 3):
        calls.append(server.get_user.future("johndoe"))
        eventually(lambda expected=number: waiting(server) == expected, "it waits")  # type: ignore[misc]
    return calls


def begin(server: ScriptedServer, gate: Gate) -> list[Any]:
    """Begins a call, and as many as may be next."""
    executor = server.server._executor
    calls = [server.get_user.future("johndoe")]
    assert gate.begun.acquire(timeout=WAIT)
    for number in range(1, executor._most_next + 1):
        calls.append(server.get_user.future("johndoe"))
        eventually(lambda expected=number: executor._next.qsize() == expected, "it is one of the next")  # type: ignore[misc]
    return calls


def test_a_call_without_room_is_refused_at_once_and_told_when_to_come_back(full: ScriptedServer, gate: Gate) -> None:
    calls = fill(full, gate)
    error = full.get_user.error("johndoe", metadata=(("x-request-id", "mine"),))
    assert (error.code, error.reason) == OVERLOADED
    assert error.message == "The server is overloaded."
    assert error.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
    assert 250 <= int(error.metadata["grpc-retry-pushback-ms"]) <= 1000
    assert error.metadata["x-request-id"] == error.request_id == "mine"
    gate.open()
    assert [call.result(WAIT).user.username for call in calls] == ["johndoe"] * len(calls)


def test_who_would_not_be_there_any_more_is_not_told_to_come_back(full: ScriptedServer, gate: Gate) -> None:
    fill(full, gate)
    with grpc.insecure_channel(full.address) as channel:
        began = time.monotonic()
        errors = [GetUser(channel).error("johndoe", timeout=0.2) for _ in range(3)]
        in_time = time.monotonic() - began < 0.2
    refused = [error for error in errors if error.reason == OVERLOADED[1]]
    assert refused or not in_time
    assert {error.metadata["grpc-retry-pushback-ms"] for error in refused} <= {"-1"}
    gate.open()


def test_health_is_asked_all_the_same(full: ScriptedServer, gate: Gate) -> None:
    fill(full, gate)
    for _ in range(20):
        assert check(full.channel) == SERVING
        assert full.get_user.error("johndoe").reason == OVERLOADED[1]
    gate.open()


def test_a_refusal_costs_no_worker(full: ScriptedServer, gate: Gate) -> None:
    fill(full, gate)
    assert {full.get_user.error("johndoe").reason for _ in range(50)} == {OVERLOADED[1]}
    assert not gate.begun.acquire(blocking=False), "no other call has begun"
    gate.open()


def test_a_refusal_leaves_nothing_to_the_garbage_collector(full: ScriptedServer, gate: Gate) -> None:
    fill(full, gate)
    gc.disable()
    try:
        assert {full.get_user.error("johndoe").reason for _ in range(20)} == {OVERLOADED[1]}
        eventually(lambda: not any(isinstance(it, OverloadedError) for it in gc.get_objects()), "all are freed")
    finally:
        gc.enable()
    gate.open()


def test_calls_whose_callers_have_gone_cost_no_read(full: ScriptedServer, gate: Gate) -> None:
    calls = fill(full, gate)
    for call in calls[1:]:
        call.cancel()
    eventually(lambda: len(full.server._grpc._state.rpc_states) == 1, "the server knows")  # type: ignore[attr-defined]
    gate.open()
    assert calls[0].result(WAIT).user.username == "johndoe"
    eventually(lambda: not waiting(full) and not full.server._executor._next.qsize(), "the others are passed over")
    assert full.get_user("johndoe").username == "johndoe"
    assert gate.begun.acquire(timeout=WAIT), "the last one"
    assert not gate.begun.acquire(blocking=False), "and none between"


def test_the_bytes_of_requests_that_wait_are_bounded_too(serve: Serve, gate: Gate) -> None:  # noqa: F811
    server = serve(gate, workers=1, max_queued_bytes=1000)
    calls = begin(server, gate)
    long = server.get_user.future("x" * 2000)
    eventually(lambda: waiting(server) == 1, "it waits")
    assert server.get_user.error("johndoe").reason == OVERLOADED[1]
    gate.open()
    assert all(call.result(WAIT) for call in calls)
    assert CallError.of(lambda: long.result(WAIT)).reason == "INVALID_USERNAME"


@pytest.mark.parametrize("connections", [1, 5])
def test_the_flood_of_one_caller_leaves_the_others_their_turns(
    tmp_path: Path,
    serve: Serve,  # noqa: F811
    connections: int,
) -> None:
    """One connection, or any number of them on a Unix socket, which can't be told apart."""
    server = serve(lambda _timeout: time.sleep(0.002), workers=2, listen=f"127.0.0.1:0,unix:{tmp_path}/socket")
    tcp, unix = server.address.split(",")
    option = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        one, *floods = (
            stack.enter_context(grpc.insecure_channel(address, option))
            for address in [tcp, *[tcp if connections == 1 else unix] * connections]
        )
        methods = [GetUser(channel) for channel in floods] * (600 // connections)
        flood = [get_user.future("johndoe", timeout=3600) for get_user in methods]  # no deadline refuses them
        for _ in range(10):  # each of them would wait for a hundred others, the calls of one connection
            assert GetUser(one)("johndoe").username == "johndoe"
        assert not all(call.done() for call in flood)
        assert all(call.result(WAIT) for call in flood)


def test_one_caller_has_one_share_whatever_his_connections(tmp_path: Path, serve: Serve, gate: Gate) -> None:  # noqa: F811
    policy, tokens = tmp_path / "policy.json", tmp_path / "tokens"
    policy.write_text('{"name": "p", "allow_rules": [{"name": "all", "source": {"principals": ["*"]}}]}')
    one, other = (
        [("authorization", f"Bearer {guard(new_token(name, tokens))}")] for name in ("one-caller", "other-caller")
    )
    server = serve(gate, workers=1, tokens=str(tokens), policy=str(policy))
    gate.open()
    for known in (one, other):
        assert server.get_user("johndoe", metadata=known).username == "johndoe"
    gate.close()
    executor = server.server._executor
    calls = [server.get_user.future("johndoe", metadata=one) for _ in range(executor._most_next + 1)]
    eventually(lambda: executor._next.qsize() == executor._most_next, "no more may be next")
    with ExitStack() as stack:
        option = [("grpc.use_local_subchannel_pool", 1)]
        for number, metadata in enumerate([one, one, one, other, other, [("authorization", "Bearer unknown")], []], 1):
            get_user = GetUser(stack.enter_context(grpc.insecure_channel(server.address, option)))
            calls.append(get_user.future("johndoe", metadata=metadata))
            eventually(lambda expected=number: waiting(server) == expected, "it waits")  # type: ignore[misc]
        assert len(executor._backlog._queues) == 4, "two callers who are known, and two connections"
        gate.open()
        outcomes = [call.exception(WAIT) for call in calls]
    assert [error.code() for error in outcomes if error] == [grpc.StatusCode.UNAUTHENTICATED] * 2


@pytest.mark.parametrize("step", ["admits", "submit"])
def test_a_bug_on_grpcs_own_thread_fails_one_call_and_not_the_service(
    serve: Serve,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    correct = getattr(Executor, step)
    bugs = iter([ValueError("a bug")])

    def once_wrong(*arguments: Any) -> Any:
        for bug in bugs:
            raise bug
        return correct(*arguments)

    monkeypatch.setattr(Executor, step, once_wrong)
    server = serve()
    error = server.get_user.error("johndoe")
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert server.get_user("johndoe").username == "johndoe"


def test_no_call_has_to_start_a_thread(serve: Serve) -> None:  # noqa: F811
    """The system may refuse one, once spare threads have taken up a container's limit."""
    before = set(threading.enumerate())
    serve()
    assert {"health_0", "reflection_0"} <= {thread.name for thread in set(threading.enumerate()) - before}


def test_a_store_that_becomes_slow_at_once_has_calls_refused_that_have_waited_for_too_long(
    serve: Serve,  # noqa: F811
) -> None:
    """They were admitted while it was fast, and each is refused when its turn comes, without a read."""
    reads: list[float] = []

    def read(_timeout: float) -> None:
        reads.append(0.05)
        time.sleep(0.05)

    server = serve(read, workers=1, queue_target=0.02, queue_burst=0.1)
    calls = [server.get_user.future("johndoe", timeout=WAIT) for _ in range(100)]
    outcomes = [CallError(call).reason if call.exception(WAIT) else "a user" for call in calls]
    assert set(outcomes) == {"a user", OVERLOADED[1]}
    assert len(reads) == outcomes.count("a user") <= 20
    assert outcomes.index(OVERLOADED[1]) < 9, "not all that had been admitted"


def test_clients_come_back_by_themselves(serve: Serve) -> None:  # noqa: F811
    server = serve(lambda _timeout: time.sleep(0.005), workers=1, max_queued=1)
    with UserProfileClient(server.address, timeout=WAIT) as client, ThreadPoolExecutor(20) as pool:
        users = list(pool.map(client.get_user, ["johndoe"] * 20))
    assert [user.username for user in users] == ["johndoe"] * 20


def test_a_drain_serves_what_waits(full: ScriptedServer, gate: Gate) -> None:
    calls = fill(full, gate)
    stopping = threading.Thread(target=full.server.stop, args=[WAIT])
    stopping.start()
    gate.open()
    assert [call.result(WAIT).user.username for call in calls] == ["johndoe"] * len(calls)
    stopping.join(WAIT)
    assert not stopping.is_alive()
