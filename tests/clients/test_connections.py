"""Several connections of a client to one server address: how calls are spread over them, and that nothing is lost."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import userprofile
from tests.canary import raises
from tests.clients.twins import MakeClient
from tests.supervised import Supervised, descriptors_of
from tests.support import WAIT, eventually
from userprofile import User
from userprofile.testing import FakeUserProfileServer
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

ESTABLISHED = "01"


class CountingServer(pb_grpc.UserProfileServiceServicer):
    """Everybody exists. Counts the calls of each connection."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._server = grpc.server(ThreadPoolExecutor(8))
        pb_grpc.add_UserProfileServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        self.calls[context.peer()] += 1
        return pb.GetUserResponse(user=user_pb.User(username=request.username))

    def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext) -> Any:
        self.calls[context.peer()] += 1
        results = (
            pb.BatchGetUsersResponse.Result(username=name, user=user_pb.User(username=name))
            for name in request.usernames
        )
        return pb.BatchGetUsersResponse(results=results)

    def stop(self) -> None:
        self._server.stop(grace=0).wait()


@pytest.fixture
def server() -> Iterator[CountingServer]:
    server = CountingServer()
    yield server
    server.stop()


@pytest.mark.parametrize("connections", [1, 2, 5])
def test_calls_take_turns(make_client: MakeClient, server: CountingServer, connections: int) -> None:
    client = make_client(server.target, connections=connections)
    for _ in range(20):
        assert client.get_user("johndoe") == User("johndoe")
    assert list(server.calls.values()) == [20 // connections] * connections


def test_batches_take_turns(make_client: MakeClient, server: CountingServer) -> None:
    client = make_client(server.target, connections=4)
    assert len(client.get_users(f"user{number}" for number in range(800))) == 800
    assert list(server.calls.values()) == [2] * 4


def test_two_clients_share_none(make_client: MakeClient, server: CountingServer) -> None:
    for client in (make_client(server.target, connections=2) for _ in range(2)):
        for _ in range(4):
            client.get_user("johndoe")
    assert list(server.calls.values()) == [2] * 4


def test_threads_get_even_shares(make_client: MakeClient, server: CountingServer) -> None:
    client = make_client(server.target, connections=4, timeout=WAIT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.get_user, ["johndoe"] * 400))
    assert sorted(server.calls.values()) == [100] * 4


def test_the_health_check_is_one_call(make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
    client = make_client(fake_userprofile.target, connections=3, health_checking=True)
    assert client.check_health()
    assert client.find_user("nobody") is None


@pytest.mark.parametrize("connections", [0, -1, 65, 1000])
def test_no_number_of_connections(make_client: MakeClient, connections: int) -> None:
    with raises(ValueError, match=f"connections must be 1 to 64, not {connections}"):
        make_client(connections=connections)


@pytest.mark.parametrize("name", ["connections", "retries"])
@pytest.mark.parametrize("number", [2.0, "2", None])
def test_a_number_is_an_int(make_client: MakeClient, name: str, number: object) -> None:
    with raises(TypeError, match=f"{name} must be an int, not {type(number).__name__}"):
        make_client(**{name: number})


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said_to_be_so(make_client: MakeClient, unused_target: str) -> None:
    client = make_client(unused_target, connections=3)
    for _ in range(4):
        with raises(userprofile.ServiceUnavailableError, match="could be reached within 0.5 s") as caught:
            client.get_user("johndoe", timeout=0.5)
        assert caught.value.reason == "SERVICE_UNREACHABLE"


def test_closing_ends_the_calls_of_all(make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
    fake_userprofile.delay = WAIT
    client = make_client(fake_userprofile.target, connections=3, timeout=WAIT)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(client.get_user, "johndoe") for _ in range(6)]
        eventually(lambda: len(fake_userprofile.requests) == 6, "all calls are in progress")
        client.close()
        for call in calls:
            with raises(userprofile.UserProfileError, match="The client was closed"):
                call.result(WAIT)
    with raises(RuntimeError, match="closed"):
        client.get_user("johndoe")


def connections_of(pid: int, port: int) -> int:
    """Returns how many connections to this port a process has accepted (proc_net_tcp of the kernel)."""
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    accepted = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED}
    return len(accepted & set(descriptors_of(pid).values()))


@pytest.mark.slow
class TestSeveralProcesses:
    """Of one server, on one port: the system gives each new connection to one of them."""

    @pytest.fixture
    def supervised(self, user_store_url: str) -> Iterator[Supervised]:
        with Supervised(user_store_url) as server:
            server.in_log("ready: all 2 processes")
            yield server

    def test_all_of_them_are_reached(self, make_client: MakeClient, supervised: Supervised) -> None:
        client = make_client(supervised.address, connections=32, timeout=WAIT)
        for _ in range(32):
            client.get_user("johndoe")
        port = int(supervised.address.rpartition(":")[2])
        shares = [connections_of(pid, port) for pid in supervised.children()]
        assert (len(shares), sum(shares)) == (2, 32)
        assert all(shares)  # but once in two thousand million times

    def test_one_that_is_lost_costs_no_call(self, make_client: MakeClient, supervised: Supervised) -> None:
        client = make_client(supervised.address, connections=8, timeout=WAIT)
        outcomes: list[Any] = []
        done = threading.Event()

        def call() -> None:
            while not done.is_set():
                try:
                    outcomes.append(client.get_user("johndoe").username)
                except userprofile.UserProfileError as error:
                    outcomes.append(error)

        def more() -> None:
            before = len(outcomes)
            eventually(lambda: len(outcomes) > before + 100, "calls succeed")

        with ThreadPoolExecutor(8) as pool:
            callers = [pool.submit(call) for _ in range(8)]
            try:
                more()
                os.kill(supervised.children()[0], signal.SIGKILL)
                more()
            finally:
                done.set()
            for caller in callers:
                caller.result(WAIT)
        assert set(outcomes) == {"johndoe"}
