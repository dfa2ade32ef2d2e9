"""Each way in which a cluster can fail, under a steady load of calls through the real gRPC server.

Of every fault is asserted: each call ends with the error table's status, responses are right, the service recovers
by itself once the fault is over, and its threads and sockets are back where they were. `make test-timing` asserts
besides that calls end by their deadline, that recovery takes less than three seconds, and that calls that have no part
in the fault are in time.
"""

import gc
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.couchbase_node import Rights, TestCluster
from tests.couchbase_node.protocol import Opcode, Status
from tests.faults.load import MISCONFIGURED, OK, TIMEOUT, UNAVAILABLE, USERS, Load
from tests.store_contract.stores import couchbase_settings
from tests.support import WAIT, CallError, GetUser, document, eventually, health_stub
from tests.timing import judging, promise
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import Settings

pytestmark = pytest.mark.timing
ONE = pytest.mark.xdist_group("one node")  # one after the other, for they share a service

DEADLINE = 1.0
STORE_TIMEOUT = 0.4
RECOVERY = 3.0
FAULT_SECONDS = 0.8  # longer than the store's timeout, so that calls, probes and connections all meet the fault
WORKERS = 4
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def key(username: str) -> str:
    return f"userprofile::{username}"


def fill(cluster: TestCluster) -> None:
    for username in USERS:
        cluster.put(key(username), document(username, full_name=f"Name of {username}"))


def settings(cluster: TestCluster, **overrides: Any) -> Settings:
    values = {"workers": WORKERS, "store_timeout": STORE_TIMEOUT, **overrides}
    return couchbase_settings(f"couchbase://{cluster.hosts}/default", **values)


@dataclass
class Service:
    """A server over a cluster."""

    cluster: TestCluster
    address: str
    load: Load = field(init=False)
    """That of the last `under_load`."""
    resources: Counter[str] = field(default_factory=Counter)
    """What it held, under load, when it was young and whole."""

    def health(self) -> int:
        with grpc.insecure_channel(self.address) as channel:
            status: int = health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status
            return status


@contextmanager
def running(cluster: TestCluster, **overrides: Any) -> Iterator[Service]:
    with UserProfileServer(settings(cluster, **overrides)) as address:
        yield Service(cluster, address)


@contextmanager
def under_load(service: Service) -> Iterator[None]:
    """Calls the service all the time."""
    with Load(service.address, deadline=promise(DEADLINE)) as service.load:
        yield
    assert "WRONG RESPONSE" not in service.load.since(0)
    if judging():
        service.load.check_deadlines()


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
    if sys.version_info < (3, 14):  # from then on the system knows threads by the names that Python gives them
        found["python\n"] -= sum(thread.name.startswith("spare ") for thread in threading.enumerate())
    for name in [name for name in found if name.startswith("spare ")]:
        del found[name]
    del found["socket"]  # the SDK takes its time to connect again to nodes that it has no need of yet
    return found


def whole(service: Service, within: float = RECOVERY) -> None:
    """Waits until calls succeed again."""
    began = time.monotonic()
    eventually(service.load.flowing, lambda: f"recovered; so far: {service.load.since(began)}", promise(within))


@contextmanager
def fault(service: Service) -> Iterator[float]:
    """What is done in its block is a fault, under load, which is over at its end."""
    with under_load(service):
        eventually(service.load.flowing, "whole before the fault")
        service.health()  # starts the thread that serves it
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


def outcomes_of_a_while(service: Service, began: float) -> Counter[str]:
    """Lets a fault last, until some call that began after `began` has ended, and returns how those have."""
    last()
    eventually(lambda: service.load.since(began), "a call has ended")
    return service.load.since(began)


FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
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


def check(seen: Counter[str], *outcomes: str) -> None:
    """Checks how calls ended. On a busy machine any may miss the store's timeout, and then the store is given up."""
    expected = {*outcomes} if judging() else {*outcomes, TIMEOUT, UNAVAILABLE}
    assert seen.keys() <= expected, seen
    assert seen, "no call has ended"


def check_all_well(seen: Counter[str]) -> None:
    """Checks that calls succeeded, of which one in twenty may be late."""
    check(seen, OK, TIMEOUT)
    assert OK in seen
    if judging():
        assert seen[TIMEOUT] * 20 <= seen.total(), seen


@ONE
@pytest.mark.parametrize("name", FAULTS)
def test_a_node_that_misbehaves(one: Service, name: str) -> None:
    faults, outcomes = FAULTS[name]
    with fault(one):
        one.cluster.fault(**faults)
        time.sleep(0.05)  # calls in flight when it began may still succeed
        began = time.monotonic()
        last()
        eventually(lambda: outcomes & one.load.since(began).keys(), "a call has ended as it should")
        seen = one.load.since(began)
        one.cluster.fault()
    check(seen, *outcomes)
    assert one.health() == SERVING


@ONE
def test_a_node_that_is_merely_slow_is_waited_for(one: Service) -> None:
    with fault(one) as began:
        one.cluster.fault(delay=STORE_TIMEOUT / 8)
        last()
        one.cluster.fault()
    check_all_well(one.load.since(began))


@ONE
def test_connections_that_are_reset_are_made_again(one: Service) -> None:
    with fault(one) as began:
        for _ in range(5):
            one.cluster.close_connections()
            last(0.2)
    check(one.load.since(began), OK, UNAVAILABLE, TIMEOUT)


@ONE
def test_a_node_that_refuses(one: Service) -> None:
    with fault(one):
        one.cluster.stop()
        began = time.monotonic()
        eventually(lambda: one.load.recent().keys() == {UNAVAILABLE}, "the node is known to be lost")
        seen = outcomes_of_a_while(one, began)
        one.cluster.start()
    check(seen, UNAVAILABLE, TIMEOUT)


@ONE
def test_once_the_cluster_is_known_to_be_lost_nobody_waits_for_it(one: Service) -> None:
    with fault(one), grpc.insecure_channel(one.address) as channel:
        one.cluster.fault(frozen=True)
        eventually(lambda: one.load.recent().keys() == {UNAVAILABLE}, "the cluster is known to be lost")
        # Had the call waited, it would be the store's timeout, or less time than that would be over.
        error = GetUser(channel).error("user0", timeout=promise(STORE_TIMEOUT / 2))
        one.cluster.fault()
    assert f"{error.code.name} {error.reason}" == UNAVAILABLE


@ONE
def test_a_node_that_flaps(one: Service) -> None:
    with fault(one) as began:
        for _ in range(5):
            one.cluster.stop()
            last(0.1)
            one.cluster.start()
            last(0.1)
    check(one.load.since(began), OK, UNAVAILABLE, TIMEOUT)


@ONE
def test_a_password_that_is_changed_and_changed_back(one: Service) -> None:
    with fault(one):
        one.cluster.users["username"] = "another"
        one.cluster.close_connections()
        began = time.monotonic()
        eventually(lambda: MISCONFIGURED in one.load.since(began), "calls say that it is our mistake")

        def tries_in_a_while() -> int:
            before = logins(one.cluster)
            last()
            return logins(one.cluster) - before

        # Until a connection is given up, the SDK tries about a hundred times a second.
        eventually(lambda: tries_in_a_while() < WORKERS * 10, "logging in again and again is held back")
        before = logins(one.cluster)
        eventually(lambda: logins(one.cluster) > before, "it goes on trying")
        seen = one.load.since(began)
        one.cluster.users["username"] = "password"
    check(seen, UNAVAILABLE, TIMEOUT, MISCONFIGURED)


def logins(cluster: TestCluster) -> int:
    return sum(node.requests.get(Opcode.SASL_AUTH, 0) for node in cluster.nodes)


@ONE
def test_a_bucket_that_is_dropped_and_made_again(one: Service, caplog: pytest.LogCaptureFixture) -> None:
    """While the user may use its name, it can't be distinguished from one that isn't ready yet: it is unavailable."""
    with fault(one):
        dropped = one.cluster.drop_bucket()
        began = time.monotonic()

        def is_logged() -> bool:
            return any("the bucket 'default' can't be opened" in record.getMessage() for record in logged(caplog))

        eventually(is_logged, "the log names the bucket")
        seen = outcomes_of_a_while(one, began)
        one.cluster.restore_bucket(dropped)
    check(seen, UNAVAILABLE, TIMEOUT)


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What an operator sees."""
    return [record for record in list(caplog.records) if record.levelno >= logging.INFO]


@ONE
def test_a_bucket_that_goes_with_the_rights_to_it(one: Service) -> None:
    with fault(one):
        one.cluster.grant(Rights(buckets=frozenset()))
        dropped = one.cluster.drop_bucket()
        began = time.monotonic()
        eventually(lambda: MISCONFIGURED in one.load.since(began), "calls say that it is our mistake")
        seen = one.load.since(began)
        one.cluster.restore_bucket(dropped)
        one.cluster.grant(Rights())
    check(seen, UNAVAILABLE, TIMEOUT, MISCONFIGURED)


@ONE
def test_rights_that_are_taken_away_and_given_back(one: Service) -> None:
    with fault(one):
        one.cluster.grant(Rights(buckets=frozenset()))
        time.sleep(0.05)  # calls in flight may still succeed
        began = time.monotonic()
        seen = outcomes_of_a_while(one, began)
        one.cluster.grant(Rights())
    check(seen, MISCONFIGURED)


@ONE
@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.TEMPORARY_FAILURE])
def test_a_node_that_warms_up_after_a_restart(one: Service, status: int) -> None:
    with fault(one):
        one.cluster.stop()
        one.cluster.fault(warming_up=status)
        began = time.monotonic()
        one.cluster.start()
        seen = outcomes_of_a_while(one, began)
        one.cluster.fault()
    check(seen, UNAVAILABLE, TIMEOUT, MISCONFIGURED)
    if status == Status.NOT_FOUND:  # of the other one the SDK says no more than of a bucket that isn't there
        assert MISCONFIGURED not in seen


@ONE
def test_a_node_that_takes_no_more_connections(one: Service) -> None:
    with fault(one):
        one.cluster.fault(full=True)
        began = time.monotonic()
        eventually(lambda: one.load.since(began).total() > 20, "calls have ended")
        check(one.load.since(began), OK)  # open connections go on
        one.cluster.close_connections()
        began = time.monotonic()
        seen = outcomes_of_a_while(one, began)
        one.cluster.fault()
    check(seen, UNAVAILABLE, TIMEOUT)


@ONE
def test_a_node_that_is_killed_and_restarted_again_and_again_leaves_nothing_behind(one: Service) -> None:
    with fault(one) as began:
        for round_ in range(20 if judging() else 8):
            one.cluster.stop()
            last(0.1 + 0.05 * (round_ % 4))
            one.cluster.start()
            whole(one)
            if round_ == 4:
                before = memory()
    check(one.load.since(began), OK, UNAVAILABLE, TIMEOUT)
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
        eventually(lambda: three.load.flowing(lambda username: not on_lost_node(username)), "the others are readable")
        healthy = three.health()
        lost = three.load.since(began, on_lost_node)
        others = three.load.since(began, lambda username: not on_lost_node(username))
        if how == "refuses":
            three.cluster.start(1)
        else:
            three.cluster.fault(1)
    assert healthy == SERVING
    check(lost, UNAVAILABLE, TIMEOUT)
    check_all_well(others)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("how", ["refuses", "frozen"])
def test_calls_for_a_lost_node_leave_time_for_the_others_however_many_they_are(how: str, share: bool) -> None:
    patient = 30.0  # so that the calls for the lost node still wait when the others have succeeded
    with TestCluster(2) as cluster:
        fill(cluster)
        lost = [username for username in USERS if cluster.owner_of(key(username)) == 1]
        others = [username for username in USERS if cluster.owner_of(key(username)) == 0]
        with (
            UserProfileServer(settings(cluster, store_timeout=patient, shared_connection=share)) as address,
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
    check_all_well(three.load.since(began))


def test_a_map_that_comes_late_after_a_move_costs_only_the_users_that_have_moved() -> None:
    with TestCluster(3) as cluster:
        fill(cluster)
        moved = {username for username in USERS if cluster.owner_of(key(username)) == 0}
        with running(cluster) as service, fault(service):
            cluster.move_vbuckets(0, 1, announce=False)
            last(0.1)
            began = time.monotonic()
            last()
            eventually(lambda: service.load.flowing(lambda username: username not in moved), "the others are readable")
            homeless = service.load.since(began, lambda username: username in moved)
            others = service.load.since(began, lambda username: username not in moved)
            cluster.announce()
    check(homeless, UNAVAILABLE, TIMEOUT)
    check_all_well(others)


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
        # On a busy machine too, the node has to have time to say that the password is wrong.
        connecting = 6.0 if judging() or outcome == MISCONFIGURED else 1.0
        with running(cluster, couchbase_bootstrap_timeout=connecting) as service, under_load(service):
            assert service.health() == NOT_SERVING
            with grpc.insecure_channel(service.address) as channel:
                # All, and in less time than connecting takes: nobody waits for a connection.
                errors = [GetUser(channel).error("user0", timeout=promise(4)) for _ in range(3 * WORKERS)]
            assert {f"{error.code.name} {error.reason}" for error in errors} == {outcome}
            mend(cluster)
            whole(service, connecting + RECOVERY)
            # Health looks once in a while; the first response may be younger than its last look.
            eventually(lambda: service.health() == SERVING, "ready", promise(RECOVERY))


def test_health_reports_a_long_silence_and_its_end() -> None:
    with TestCluster() as cluster:
        fill(cluster)
        with running(cluster, unready_after=3.0) as service, under_load(service):
            whole(service)
            cluster.stop()
            last(1)
            assert service.health() == SERVING or not judging()
            eventually(lambda: service.health() == NOT_SERVING, "unready", promise(10))
            last(3 if judging() else 0)  # lost for longer than any timeout
            cluster.start()
            whole(service)
            eventually(lambda: service.health() == SERVING, "ready", promise(RECOVERY))


def test_a_server_without_its_cluster_stops_like_any_other() -> None:
    with TestCluster() as cluster:
        cluster.fault(mute=True)
        server = UserProfileServer(settings(cluster))
        address = server.start()
        with grpc.insecure_channel(address) as channel:
            assert CallError.of(lambda: GetUser(channel)("user0")).reason == "STORE_UNAVAILABLE"
        server.stop()
        eventually(lambda: cluster.connections == 0, "all connections are closed")
