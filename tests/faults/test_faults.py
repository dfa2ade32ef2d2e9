"""Each way in which a cluster can fail, under a steady load of calls through the real gRPC server.

Of every fault is asserted: each call ends by its deadline with the error table's status, right answers
are right, the service recovers by itself once the fault is over, and its threads and sockets are back
where they were.
"""

import gc
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from tests.couchbase_node import Rights, TestCluster
from tests.couchbase_node.protocol import Opcode, Status
from tests.faults.load import MISCONFIGURED, OK, TIMEOUT, UNAVAILABLE, USERS, Load
from tests.support import CallError, GetUser, document, eventually
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings

# One after the other on one of the test processes: they are about time, and each loads the machine by itself.
pytestmark = pytest.mark.xdist_group("faults")

DEADLINE = 1.0
STORE_TIMEOUT = 0.4
RECOVERY = 30.0  # for a busy machine; it takes less than three
FAULT_SECONDS = 1.2  # longer than the store's timeout, so that calls, probes and connections all meet the fault
WORKERS = 4


def key(username: str) -> str:
    return f"userprofile::{username}"


def fill(cluster: TestCluster) -> None:
    for username in USERS:
        cluster.put(key(username), document(username, full_name=f"Name of {username}"))


def settings(cluster: TestCluster, **overrides: object) -> ServeSettings:
    return ServeSettings(
        **{
            "store": f"couchbase://{cluster.hosts}/default",
            "couchbase_username": "username",
            "couchbase_password": SecretStr("password"),
            "listen": "127.0.0.1:0",
            "workers": WORKERS,
            "store_timeout": STORE_TIMEOUT,
            **overrides,
        }
    )


@dataclass
class Service:
    """A server over a cluster, under load."""

    cluster: TestCluster
    address: str
    load: Load
    resources: Counter[str] = field(default_factory=Counter)
    """What it held when it was young and whole."""

    def health(self) -> int:
        with grpc.insecure_channel(self.address) as channel:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status


@contextmanager
def running(cluster: TestCluster, **overrides: object) -> Iterator[Service]:
    with (
        UserProfileServer(settings(cluster, **overrides)) as address,
        Load(address, deadline=DEADLINE) as load,
    ):
        yield Service(cluster, address, load)
    load.check_deadlines()
    assert "WRONG ANSWER" not in load.since(0)


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """A service over one node, shared by the tests: that it is whole again after each is what they assert."""
    with TestCluster() as cluster:
        fill(cluster)
        with running(cluster) as service:
            yield service


def resources() -> Counter[str]:
    """Threads, native ones included, by name, and open files by kind."""
    gc.collect()  # a connection's last thread ends with the last exception that knows it, and those are cyclic
    found: Counter[str] = Counter()
    for entry in [*Path("/proc/self/task").iterdir(), *Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):  # gone meanwhile
            found[
                (entry / "comm").read_text() if entry.parent.name == "task" else str(entry.readlink()).partition(":")[0]
            ] += 1
    for thread in ("event_engine\n", "grpc_global_tim\n"):  # grpc's, as many as the last seconds' calls have needed
        del found[thread]
    # Calls that wait for a busy machine's CPU look like those that wait for a store: there may be spares at any time.
    found["python\n"] -= sum(thread.name.startswith("spare ") for thread in threading.enumerate())
    del found["socket"]  # the SDK takes its time to connect again to nodes that it has no need of yet
    return found


def whole(service: Service, within: float = RECOVERY) -> None:
    """Waits until calls are answered again."""
    eventually(service.load.flowing, lambda: f"recovered; of late: {service.load.since(time.monotonic() - 1)}", within)


@contextmanager
def fault(service: Service) -> Iterator[float]:
    """What is done in its block is a fault, which is over at its end."""
    eventually(service.load.flowing, "whole before the fault", 10)
    service.health()  # starts the thread that answers it
    service.resources = service.resources or resources()
    began = time.monotonic()
    yield began
    whole(service)
    # A connection that was given up closes its threads and sockets a moment later.
    eventually(lambda: resources() <= service.resources, lambda: f"gone: {resources() - service.resources}")
    most = WORKERS * (len(service.cluster.nodes) + 1)
    eventually(
        lambda: service.cluster.connections <= most,
        lambda: f"gone: {service.cluster.connections} connections, not {most}",
    )


def last(seconds: float = FAULT_SECONDS) -> None:
    """Lets a fault last."""
    time.sleep(seconds)


FAULTS: dict[str, tuple[dict[str, object], set[str]]] = {
    # The faults of a node, and the outcomes that calls may have meanwhile.
    "frozen": ({"frozen": True}, {TIMEOUT, UNAVAILABLE}),
    "accepts and says nothing": ({"mute": True}, {TIMEOUT, UNAVAILABLE}),
    "slower than the timeout": ({"delay": STORE_TIMEOUT * 2}, {TIMEOUT, UNAVAILABLE}),
    "resets in the middle of a frame": ({"reset_mid_frame": True}, {TIMEOUT, UNAVAILABLE}),
    "cuts frames off": ({"truncate": True}, {TIMEOUT, UNAVAILABLE}),
    "temporary failure": ({"statuses": {Opcode.GET: Status.TEMPORARY_FAILURE}}, {UNAVAILABLE}),
    "not my vbucket": ({"statuses": {Opcode.GET: Status.NOT_MY_VBUCKET}}, {UNAVAILABLE, TIMEOUT}),
    "no access": ({"statuses": {Opcode.GET: Status.NO_ACCESS}}, {MISCONFIGURED}),
    "unknown status": ({"statuses": {Opcode.GET: 0xEE}}, {UNAVAILABLE}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_node_that_misbehaves(one: Service, name: str) -> None:
    faults, outcomes = FAULTS[name]
    with fault(one):
        one.cluster.fault(**faults)
        time.sleep(0.05)  # what was on its way when it began may still be answered
        began = time.monotonic()
        last()
        eventually(lambda: one.load.since(began), "a call has ended")
        seen = one.load.since(began)
        one.cluster.fault()
    assert seen.keys() <= outcomes
    assert one.health() == health_pb2.HealthCheckResponse.SERVING


def all_well(outcomes: Counter[str]) -> bool:
    """Whether calls were answered rightly. A busy machine may make a few of them late, one in twenty at most."""
    return OK in outcomes and outcomes.keys() <= {OK, TIMEOUT} and outcomes[TIMEOUT] * 20 <= outcomes.total()


def test_a_node_that_is_merely_slow_is_waited_for(one: Service) -> None:
    with fault(one) as began:
        one.cluster.fault(delay=STORE_TIMEOUT / 8)
        last()
        one.cluster.fault()
    assert all_well(one.load.since(began))


def test_connections_that_are_reset_are_made_again(one: Service) -> None:
    with fault(one) as began:
        for _ in range(5):
            one.cluster.close_connections()
            last(0.2)
    assert one.load.since(began).keys() <= {OK, UNAVAILABLE, TIMEOUT}


def test_a_node_that_refuses(one: Service) -> None:
    with fault(one):
        one.cluster.stop()
        began = time.monotonic()
        last(3)
        seen = one.load.since(began)
        one.cluster.start()
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT}


def test_once_the_cluster_is_known_to_be_lost_nobody_waits_for_it(one: Service) -> None:
    with fault(one), grpc.insecure_channel(one.address) as channel:
        one.cluster.fault(frozen=True)
        last(3)
        # Less time than any timeout of the store: had the call waited, its deadline would be over.
        error = GetUser(channel).error("user0", timeout=STORE_TIMEOUT / 2)
        one.cluster.fault()
    assert f"{error.code.name} {error.reason}" == UNAVAILABLE


def test_a_node_that_flaps(one: Service) -> None:
    with fault(one) as began:
        for _ in range(8):
            one.cluster.stop()
            last(0.15)
            one.cluster.start()
            last(0.15)
    assert one.load.since(began).keys() <= {OK, UNAVAILABLE, TIMEOUT}


def test_a_password_that_is_changed_and_changed_back(one: Service) -> None:
    with fault(one):
        one.cluster.users["username"] = "another"
        one.cluster.close_connections()
        began = time.monotonic()
        eventually(lambda: MISCONFIGURED in one.load.since(began), "calls say that it is our mistake")
        last()  # until every connection has been given up
        tries = sum(node.requests.get(Opcode.SASL_AUTH, 0) for node in one.cluster.nodes)
        last()
        tries = sum(node.requests[Opcode.SASL_AUTH] for node in one.cluster.nodes) - tries
        seen = one.load.since(began)
        one.cluster.users["username"] = "password"
    assert 0 < tries < WORKERS * 10, "logging in again and again is held back"
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT, MISCONFIGURED}


def test_a_bucket_that_is_dropped_and_made_again(one: Service, caplog: pytest.LogCaptureFixture) -> None:
    """While the user may use its name, nobody can tell it from one that isn't ready yet: it is unavailable."""
    with fault(one):
        dropped = one.cluster.drop_bucket()
        began = time.monotonic()

        def told() -> bool:
            return sum("the bucket 'default' can't be opened" in record.getMessage() for record in logged(caplog)) > 0

        eventually(told, "the log names the bucket")
        last()
        seen = one.load.since(began)
        one.cluster.restore_bucket(dropped)
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT}


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What an operator sees."""
    return [record for record in list(caplog.records) if record.levelno >= logging.INFO]


def test_a_bucket_that_goes_with_the_rights_to_it(one: Service) -> None:
    with fault(one):
        one.cluster.grant(Rights(buckets=frozenset()))
        dropped = one.cluster.drop_bucket()
        began = time.monotonic()
        eventually(lambda: MISCONFIGURED in one.load.since(began), "calls say that it is our mistake")
        seen = one.load.since(began)
        one.cluster.restore_bucket(dropped)
        one.cluster.grant(Rights())
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT, MISCONFIGURED}


def test_rights_that_are_taken_away_and_given_back(one: Service) -> None:
    with fault(one):
        one.cluster.grant(Rights(buckets=frozenset()))
        time.sleep(0.05)  # what was on its way may still be answered
        began = time.monotonic()
        last()
        seen = one.load.since(began)
        one.cluster.grant(Rights())
    assert seen.keys() == {MISCONFIGURED}


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.TEMPORARY_FAILURE])
def test_a_node_that_warms_up_after_a_restart(one: Service, status: int) -> None:
    with fault(one):
        one.cluster.stop()
        one.cluster.fault(warming_up=status)
        began = time.monotonic()
        one.cluster.start()
        last()
        seen = one.load.since(began)
        one.cluster.fault()
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT, MISCONFIGURED}
    if status == Status.NOT_FOUND:  # of the other one the SDK says no more than of a bucket that isn't there
        assert MISCONFIGURED not in seen


def test_a_node_that_takes_no_more_connections(one: Service) -> None:
    with fault(one):
        one.cluster.fault(full=True)
        last(0.2)
        assert one.load.since(time.monotonic() - 0.1).keys() <= {OK}, "open connections go on"
        one.cluster.close_connections()
        began = time.monotonic()
        last()
        seen = one.load.since(began)
        one.cluster.fault()
    assert seen.keys() <= {UNAVAILABLE, TIMEOUT}


@pytest.mark.timeout(180)
def test_a_node_that_is_killed_and_restarted_twenty_times_leaves_nothing_behind(one: Service) -> None:
    with fault(one) as began:
        for round_ in range(20):
            one.cluster.stop()
            last(0.1 + 0.05 * (round_ % 4))
            one.cluster.start()
            whole(one)
            if round_ == 4:
                before = memory()
    assert one.load.since(began).keys() <= {OK, UNAVAILABLE, TIMEOUT}
    assert memory() < before + 32 * 1024 * 1024


def memory() -> int:
    """This process's resident memory, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def three() -> Iterator[Service]:
    with TestCluster(3) as cluster:
        fill(cluster)
        with running(cluster, unready_after=3.0) as service:
            yield service


@pytest.mark.parametrize("how", ["refuses", "frozen"])
def test_one_lost_node_leaves_the_others_users_readable_and_the_service_serving(three: Service, how: str) -> None:
    def on_lost_node(username: str) -> bool:
        return three.cluster.owner_of(key(username)) == 1

    with fault(three):
        if how == "refuses":
            three.cluster.stop(1)
        else:
            three.cluster.fault(1, frozen=True)
        last(0.1)
        began = time.monotonic()
        last(4)  # longer than it takes to become unready
        healthy = three.health()
        lost = three.load.since(began, on_lost_node)
        others = three.load.since(began, lambda username: not on_lost_node(username))
        if how == "refuses":
            three.cluster.start(1)
        else:
            three.cluster.fault(1)
    assert healthy == health_pb2.HealthCheckResponse.SERVING
    assert lost.keys() <= {UNAVAILABLE, TIMEOUT}
    assert lost
    assert all_well(others)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("how", ["refuses", "frozen"])
def test_calls_for_a_lost_node_leave_time_for_the_others_however_many_they_are(how: str, share: bool) -> None:
    patient = 30.0  # so that the calls for the lost node still wait when the others have been answered
    with TestCluster(2) as cluster:
        fill(cluster)
        lost = [username for username in USERS if cluster.owner_of(key(username)) == 1]
        others = [username for username in USERS if cluster.owner_of(key(username)) == 0]
        with (
            UserProfileServer(settings(cluster, store_timeout=patient, share_handle=share)) as address,
            grpc.insecure_channel(address) as channel,
        ):
            get_user = GetUser(channel)
            for username in USERS:
                get_user(username)
            if how == "refuses":
                cluster.stop(1)
            else:
                cluster.fault(1, frozen=True)
            waiting = [get_user.future(username, timeout=2 * patient) for username in lost * 2]
            assert len(waiting) > 8 * WORKERS
            for username in others * 4:
                assert get_user(username, timeout=patient).username == username
            assert sum(not call.done() for call in waiting) > 8 * WORKERS
            if how == "refuses":
                cluster.start(1)
            else:
                cluster.fault(1)
            outcomes = Counter(call.code() for call in waiting)
    assert outcomes.keys() <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_vbuckets_that_move_to_another_node_are_followed_without_an_error(three: Service) -> None:
    with fault(three) as began:
        for source, target in [(0, 1), (1, 2), (2, 0)]:
            three.cluster.move_vbuckets(source, target)
            last(0.5)
    assert all_well(three.load.since(began))


def test_a_map_that_comes_late_after_a_move_costs_only_the_users_that_have_moved() -> None:
    with TestCluster(3) as cluster:
        fill(cluster)
        moved = {username for username in USERS if cluster.owner_of(key(username)) == 0}
        with running(cluster) as service, fault(service):
            cluster.move_vbuckets(0, 1, announce=False)
            last(0.1)
            began = time.monotonic()
            last()
            homeless = service.load.since(began, lambda username: username in moved)
            others = service.load.since(began, lambda username: username not in moved)
            cluster.announce()
    assert homeless.keys() <= {UNAVAILABLE, TIMEOUT}
    assert homeless
    assert all_well(others)


Step = Callable[[TestCluster], None]


def change_password(cluster: TestCluster) -> None:
    cluster.users["username"] = "another"


def restore_password(cluster: TestCluster) -> None:
    cluster.users["username"] = "password"


STARTS: dict[str, tuple[Step, Step, str]] = {
    "refuses": (TestCluster.stop, TestCluster.start, UNAVAILABLE),
    "says nothing": (lambda cluster: cluster.fault(mute=True), TestCluster.fault, UNAVAILABLE),
    "frozen": (lambda cluster: cluster.fault(frozen=True), TestCluster.fault, UNAVAILABLE),
    "wrong password": (change_password, restore_password, MISCONFIGURED),
}


@pytest.mark.parametrize("how", STARTS)
def test_a_server_that_starts_without_its_cluster_comes_alive_by_itself(how: str) -> None:
    break_, mend, outcome = STARTS[how]
    with TestCluster() as cluster:
        fill(cluster)
        break_(cluster)
        with running(cluster, couchbase_bootstrap_timeout=6.0) as service:
            assert service.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            with grpc.insecure_channel(service.address) as channel:
                # All at once, and with less time than connecting takes: nobody waits for a connection.
                errors = [GetUser(channel).error("user0", timeout=4) for _ in range(3 * WORKERS)]
            assert {f"{error.code.name} {error.reason}" for error in errors} == {outcome}
            mend(cluster)
            whole(service)
            # Health looks once in a while; the first answer may be younger than its last look.
            eventually(lambda: service.health() == health_pb2.HealthCheckResponse.SERVING, "ready", RECOVERY)


def test_health_tells_of_a_long_silence_and_of_its_end() -> None:
    with TestCluster() as cluster:
        fill(cluster)
        with running(cluster, unready_after=3.0) as service:
            whole(service)
            cluster.stop()
            last(1)
            assert service.health() == health_pb2.HealthCheckResponse.SERVING
            eventually(lambda: service.health() == health_pb2.HealthCheckResponse.NOT_SERVING, "unready", 10)
            last(3)  # lost for longer than any timeout
            cluster.start()
            whole(service)
            eventually(lambda: service.health() == health_pb2.HealthCheckResponse.SERVING, "ready", RECOVERY)


def test_a_server_without_its_cluster_stops_like_any_other() -> None:
    with TestCluster() as cluster:
        cluster.fault(mute=True)
        server = UserProfileServer(settings(cluster))
        address = server.start()
        with grpc.insecure_channel(address) as channel:
            assert CallError.of(lambda: GetUser(channel)("user0")).reason == "STORE_UNAVAILABLE"
        server.stop()
        eventually(lambda: cluster.connections == 0, "all connections are closed")
