"""The page of the metrics: what is on it, what is counted, and that nothing stops it."""

import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.openmetrics import parser as open_metrics

from tests.authority import Authority
from tests.canary import guard, raises
from tests.conftest import put_users
from tests.http2 import PREFACE
from tests.scraped import Scraped, metrics_address, request
from tests.supervised import Supervised
from tests.support import (
    WAIT,
    CallError,
    GetUser,
    ServerProcess,
    bare_call,
    eventually,
    health_stub,
    reflection_stub,
    run,
    settings_for,
)
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.limits import LimitSettings
from userprofile_server.listen import ListenAddress
from userprofile_server.rpc import service
from userprofile_server.security.tokens import new_token
from userprofile_server.server import UserProfileServer
from userprofile_server.telemetry import metrics, metrics_server
from userprofile_server.telemetry.metrics import METRICS
from userprofile_server.telemetry.metrics_server import MetricsServer
from userprofile_server.telemetry.page import Page
from userprofile_server.telemetry.recorder import BOUNDS, Recorder
from userprofile_server.telemetry.snapshot import process_gauges

pytestmark = pytest.mark.xdist_group("metrics")  # they share a server

SERVICE = service.SERVICE.full_name
HEALTH = "grpc.health.v1.Health"
POLICY = {
    "name": "callers",
    "allow_rules": [
        {"name": "all", "source": {"principals": ["token:a-caller"]}},
        {"name": "one", "source": {"principals": ["token:reader"]}, "request": {"paths": [f"/{SERVICE}/GetUser"]}},
    ],
}
SUFFIXES = {"counter": "", "gauge": "", "histogram": "_count"}
ONLY_OF_SEVERAL = {metrics.PROCESS_ENDS}
"""Metrics that a single process doesn't have."""


class Service(NamedTuple):
    """A server with TLS, tokens and a policy, and what its caller has."""

    channel: grpc.Channel
    tokens: dict[str, str]
    folder: Path
    metrics: str
    """The address of its page."""

    def scrape(self) -> Scraped:
        return Scraped(self.metrics)

    def as_caller(self, name: str = "a-caller") -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.tokens[name]}")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("metrics")
    authority = Authority()
    authority.issue("localhost").write(folder, "server")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    tokens = {name: guard(new_token(name, folder / "tokens")) for name in ("a-caller", "reader")}
    put_users(url := f"sqlite:///{folder / 'users.db'}")
    files = {"tls-certificate": "server.pem", "tls-key": "server.key", "tokens": "tokens", "policy": "policy.json"}
    flags = [f"--{flag}={folder / file}" for flag, file in files.items()]
    listen = ["--listen=tls://127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    with ServerProcess("", "--store", url, *listen, *flags) as server:
        target = f"localhost:{server.address.rpartition(':')[2]}"
        with grpc.secure_channel(target, grpc.ssl_channel_credentials(authority.pem)) as channel:
            yield Service(channel, tokens, folder, metrics_address(server))


@contextmanager
def counted(served: Service) -> Iterator[dict[tuple[str, frozenset[tuple[str, str]]], float]]:
    """Yields what its block will have added to the totals, of each series that has changed."""
    changed: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    before = served.scrape().totals()
    yield changed
    after = served.scrape().totals()
    changed.update({key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)})


def of(changed: dict[Any, float], name: str, *by: str) -> dict[tuple[str, ...], float]:
    """The changes of one metric, by the values of these labels."""
    return {
        tuple(dict(labels)[label] for label in by): value for (found, labels), value in changed.items() if found == name
    }


def test_every_metric_is_there_as_declared_and_no_other(served: Service) -> None:
    GetUser(served.channel)("johndoe", metadata=served.as_caller())
    GetUser(served.channel).error("nobody", metadata=served.as_caller())
    with (served.folder / "tokens").open("a") as file:
        file.write("\n")
    new_token("another", served.folder / "tokens")
    eventually(lambda: served.scrape().sum(metrics.FILE_CHANGES.name, result="used"), "the file was read again")
    page = served.scrape()
    here = [metric for metric in METRICS if metric not in ONLY_OF_SEVERAL]
    assert page.kinds == {metric.name: metric.kind for metric in here}
    for metric in here:
        labels = page.labels(metric.name + SUFFIXES[metric.kind])
        assert labels, metric.name
        assert all(each == set(metric.labels) for each in labels), metric.name
    assert [f"# HELP {metric.name} {metric.text}" for metric in here] == re.findall(
        "^# HELP .*$", page.text, re.MULTILINE
    )


def test_gauges_say_what_is_now(served: Service) -> None:
    page = served.scrape()
    assert page.sum(metrics.READY.name) == 1
    assert page.sum(metrics.WORKERS.name) == 4
    assert [page.sum(metrics.STORE_CONNECTED.name, connection=number) for number in "1234"] == [1, 1, 1, 1]
    assert page.sum(metrics.STORE_CONNECTS.name) == 4
    assert page.sum(metrics.FILE_VALID.name) == 3
    expiry = page.sum(metrics.CERTIFICATE.name, certificate=str(served.folder / "server.pem"))
    began = page.sum(metrics.START.name)
    assert 89 * 86_400 < expiry - began < 91 * 86_400
    assert page.sum(metrics.BUILD.name, store="sqlite") == 1
    assert page.sum(metrics.MEMORY.name) > 1e7


def test_a_process_that_goes_on_says_the_same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> float:
        return dict(process_gauges())[metrics.START.name,]

    began = start()
    assert time.time() - WAIT * 60 < began <= time.time()
    now = time.time()
    monkeypatch.setattr("userprofile_server.telemetry.snapshot.time.time", lambda: now + 1)  # the clock was set
    assert start() == began


def test_a_file_with_several_uses_has_one_series(user_store_url: str, tmp_path: Path) -> None:
    authority = Authority()
    authority.issue("localhost").write(tmp_path, "server")
    file = tmp_path / "all.pem"
    file.write_bytes((tmp_path / "server.pem").read_bytes() + (tmp_path / "server.key").read_bytes() + authority.pem)
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    settings = settings_for(
        user_store_url,
        listen="mtls://127.0.0.1:0",
        policy=str(tmp_path / "policy.json"),
        metrics_listen="127.0.0.1:0",
        **dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), str(file)),
    )
    server = UserProfileServer(settings)
    with server:
        gauges = [(key, value) for key, value in server.snapshot().gauges if str(file) in key]
    (_, not_after), (_, valid) = gauges
    assert [key for key, _ in gauges] == [
        (metrics.CERTIFICATE.name, str(file)),
        (metrics.FILE_VALID.name, str(file)),
    ]
    assert not_after < time.time() + 91 * 86_400, "the certificate's, which is before the authority's"
    assert valid


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_a_file_may_have_any_name(accept: str) -> None:
    gauge = (metrics.FILE_VALID.name, os.fsdecode(b'\xff "\n\\.pem')), 1.0
    page, _ = Page([], {"1": [gauge]}).render(accept)
    assert r'userprofile_file_valid{file="\\udcff \"\n\\.pem",process="1"} 1.0' in page.decode().splitlines()


def test_calls_are_counted_by_method_status_and_reason(served: Service) -> None:
    stub, get_user = pb_grpc.UserProfileServiceStub(served.channel), GetUser(served.channel)
    everything: dict[str, Any] = {"metadata": served.as_caller(), "timeout": WAIT}
    reader = everything | {"metadata": served.as_caller("reader")}
    with counted(served) as changed:
        for _ in range(3):
            get_user("johndoe", **everything)
        get_user.error("nobody", **everything)
        get_user.error("", **everything)
        get_user.error("johndoe", metadata=[("authorization", "Bearer wrong")])
        get_user.error("johndoe")
        batch = pb.BatchGetUsersRequest(usernames=["johndoe", "nobody", "absent"])
        stub.BatchGetUsers(batch, **everything)
        assert CallError.of(lambda: stub.BatchGetUsers(batch, **reader)).reason == "CALLER_NOT_ALLOWED"
        CallError.of(lambda: bare_call(served.channel, f"/{SERVICE}/GetUser")(b"\x0a\x05ab", **everything))
        health_stub(served.channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        too_large = bytes(LimitSettings().max_request_bytes + 1)
        CallError.of(lambda: bare_call(served.channel, f"/{SERVICE}/GetUser")(too_large, **everything))
        for path in (f"/{SERVICE}/Nothing", "/nothing.v1.Here/Nothing"):
            unknown = bare_call(served.channel, path)
            assert CallError.of(lambda call=unknown: call(b"", timeout=WAIT)).code.name == "UNIMPLEMENTED"  # type: ignore[misc]
    assert of(changed, "grpc_server_started_total", "grpc_method") == {
        ("GetUser",): 8,
        ("BatchGetUsers",): 2,
        ("Check",): 1,
    }
    assert of(changed, "grpc_server_handled_total", "grpc_service", "grpc_method", "grpc_code") == {
        (SERVICE, "GetUser", "OK"): 3,
        (SERVICE, "GetUser", "NotFound"): 1,
        (SERVICE, "GetUser", "InvalidArgument"): 2,
        (SERVICE, "GetUser", "Unauthenticated"): 2,
        (SERVICE, "BatchGetUsers", "OK"): 1,
        (SERVICE, "BatchGetUsers", "PermissionDenied"): 1,
        (HEALTH, "Check", "OK"): 1,
    }
    assert of(changed, "grpc_server_call_duration_seconds_count", "grpc_method", "grpc_status") == {
        (f"{SERVICE}/GetUser", "OK"): 3,
        (f"{SERVICE}/GetUser", "NOT_FOUND"): 1,
        (f"{SERVICE}/GetUser", "INVALID_ARGUMENT"): 2,
        (f"{SERVICE}/GetUser", "UNAUTHENTICATED"): 2,
        (f"{SERVICE}/BatchGetUsers", "OK"): 1,
        (f"{SERVICE}/BatchGetUsers", "PERMISSION_DENIED"): 1,
        (f"{HEALTH}/Check", "OK"): 1,
    }
    assert of(changed, "userprofile_errors_total", "grpc_method", "reason") == {
        ("GetUser", "USER_NOT_FOUND"): 1,
        ("GetUser", "INVALID_USERNAME"): 1,
        ("GetUser", "MALFORMED_REQUEST"): 1,
        ("GetUser", "CALLER_UNKNOWN"): 2,
        ("BatchGetUsers", "CALLER_NOT_ALLOWED"): 1,
    }
    assert of(changed, "grpc_server_handling_seconds_count", "grpc_method") == {
        ("GetUser",): 8,
        ("BatchGetUsers",): 2,
        ("Check",): 1,
    }
    assert of(changed, "userprofile_queue_seconds_count") == {(): 10}, "health doesn't queue"
    assert of(changed, "userprofile_store_operation_seconds_count", "operation", "outcome") == {
        ("get", "ok"): 4,
        ("get_many", "ok"): 1,
    }


def test_histograms_add_up(served: Service) -> None:
    GetUser(served.channel)("johndoe", metadata=served.as_caller())
    page = served.scrape()
    of_get = {"grpc_method": "GetUser", "grpc_service": SERVICE}
    buckets = [page.sum("grpc_server_handling_seconds_bucket", le=le, **of_get) for le in [*map(str, BOUNDS), "+Inf"]]
    assert buckets == sorted(buckets)
    assert buckets[-1] == page.sum("grpc_server_handling_seconds_count", **of_get) > 0
    assert 0 < page.sum("grpc_server_handling_seconds_sum", **of_get) < buckets[-1] * WAIT


def test_streams_are_counted_when_they_end(served: Service) -> None:
    with counted(served) as changed:
        watch = health_stub(served.channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        next(watch)
        assert served.scrape().sum(metrics.WATCHES.name) == 1
        watch.cancel()
        listing = [reflection_pb2.ServerReflectionRequest(list_services="")]
        list(
            reflection_stub(served.channel).ServerReflectionInfo(
                iter(listing), metadata=served.as_caller(), timeout=WAIT
            )
        )
        eventually(
            lambda: served.scrape().sum("grpc_server_handled_total", grpc_method="Watch", grpc_code="Canceled"), "ended"
        )
        eventually(lambda: not served.scrape().sum(metrics.WATCHES.name), "the watch is over")
        eventually(
            lambda: served.scrape().sum("grpc_server_handled_total", grpc_method="ServerReflectionInfo"), "ended"
        )
    assert of(changed, "grpc_server_handled_total", "grpc_type", "grpc_code") == {
        ("server_stream", "Canceled"): 1,
        ("bidi_stream", "OK"): 1,
    }
    assert not of(changed, "userprofile_errors_total", "reason")


def test_neither_users_nor_callers_are_on_the_page(served: Service) -> None:
    GetUser(served.channel)("johndoe", metadata=served.as_caller())
    GetUser(served.channel).error("a-name-that-is-nobodys", metadata=served.as_caller("reader"))
    text = served.scrape().text
    hashes = [line.split()[-1] for line in (served.folder / "tokens").read_text().splitlines() if line.split()]
    for secret in ("johndoe", "a-name-that-is-nobodys", "a-caller", "reader", *served.tokens.values(), *hashes):
        assert secret not in text


def test_the_format_is_what_the_scraper_asks_for(served: Service) -> None:
    plain = request(served.metrics)
    assert plain.content_type.startswith("text/plain; version=")
    response = request(served.metrics, accept="application/openmetrics-text; version=1.0.0")
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = list(open_metrics.text_string_to_metric_families(response.content))  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {
        metric.name.removesuffix("_total")
        for metric in METRICS
        if re.search(rf"^# HELP {metric.name} ", plain.content, re.MULTILINE)
    }


def test_other_requests_get_an_error(served: Service) -> None:
    assert [request(served.metrics, path=path).status for path in ("/", "/metrics/", "/metrics?x=1")] == [404, 404, 200]
    assert [request(served.metrics, method).status for method in ("POST", "HEAD", "DELETE")] == [501, 501, 501]
    assert request(served.metrics, accept="application/openmetrics-text; version=new").status == 200


def test_a_page_that_cannot_be_made_is_an_error_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def page() -> Page:
        raise KeyError("a bug")

    server = MetricsServer(ListenAddress("127.0.0.1", 0), page)
    server.start()
    try:
        assert request(str(server.address)).status == 500
    finally:
        server.stop()
    assert "the page of the metrics can't be made" in caplog.text


def test_while_no_connection_can_be_taken_the_server_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(metrics_server, "time", SimpleNamespace(sleep=pauses.append))
    server = MetricsServer(ListenAddress("127.0.0.1", 0), lambda: Page([], {}))
    server._http.socket.setblocking(False)  # nobody connects, which is an error then
    with raises(BlockingIOError):
        server._http.get_request()
    server._http.server_close()
    assert pauses == [metrics_server._PAUSE]


def test_clients_that_send_nothing_or_garbage_stop_neither_scrapes_nor_calls(served: Service) -> None:
    host, _, port = served.metrics.rpartition(":")
    with ExitStack() as stack:
        for content in (b"", b"GET /metrics HT", b"\0" * 1000, b"\xff\r\n\r\n", b"GET " + b"x" * 70_000, PREFACE):
            for _ in range(20):
                connection = stack.enter_context(socket.create_connection((host, int(port))))
                try:
                    connection.sendall(content)
                except OSError:  # it was closed at once
                    pass
        assert served.scrape().sum(metrics.READY.name) == 1
        assert GetUser(served.channel)("johndoe", metadata=served.as_caller()).username == "johndoe"


def test_a_client_that_waits_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 0.1)
    server = MetricsServer(ListenAddress("127.0.0.1", 0), lambda: Page([], {}))
    server.start()
    threads = threading.active_count()
    try:
        with socket.create_connection((server.address.host, server.address.port or 0), timeout=WAIT) as connection:
            connection.sendall(b"GET /metr")
            assert connection.recv(1) == b""
            eventually(lambda: threading.active_count() <= threads, "its thread has ended")
    finally:
        server.stop()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_address_that_is_taken_is_an_error(user_store_url: str, processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--listen=127.0.0.1:0", f"--metrics-listen={address}", f"--processes={processes}"]
        done = run("userprofile-server", "serve", "--store", user_store_url, *flags)
    assert done.returncode == 3
    assert done.stdout == ""
    assert f"error: can't listen on {address}: Address already in use\n" in done.stderr


def test_no_total_falls_when_processes_end_and_are_replaced(user_store_url: str) -> None:
    with Supervised(user_store_url, "--metrics-listen=127.0.0.1:0") as server:
        server.in_log("ready: all 2 processes")
        address = metrics_address(server)
        pages: list[Scraped] = []
        ended = threading.Event()

        def scrape() -> None:
            while not ended.wait(0.02):
                pages.append(Scraped(address))

        def calls() -> float:
            return Scraped(address).sum("grpc_server_handled_total", grpc_method="GetUser", grpc_code="OK")

        def make(number: int) -> None:
            for client in range(number):
                options = [("grpc.use_local_subchannel_pool", 1), ("number", client)]
                with grpc.insecure_channel(server.address, options=options) as channel:
                    GetUser(channel)("johndoe", wait_for_ready=True)

        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            make(20)
            eventually(lambda: calls() == 20, "all are counted")
            os.kill(server.children()[0], signal.SIGKILL)
            server.in_log("ready: all 2 processes", times=2)
            make(10)
            eventually(lambda: calls() == 30, "all are counted")
            server.signal(signal.SIGHUP)
            server.in_log("all 2 processes have the new settings")
            make(5)
            eventually(lambda: calls() == 35, "all are counted")
            eventually(lambda: Scraped(address).sum(metrics.READY.name) == 2, "both report")
        finally:
            ended.set()
            scraper.join()
        pages.append(last := Scraped(address))
    assert len(pages) > 20
    for before, after in itertools.pairwise(pages):
        fallen = {series: value for series, value in before.totals().items() if after.totals().get(series, 0) < value}
        assert not fallen
    assert last.sum(metrics.PROCESS_ENDS.name) == 1
    assert last.sum(metrics.STORE_CONNECTS.name) == 4 * 5, "of five processes in all"
    assert {dict(labels)["process"] for name, labels in last.series if name == metrics.READY.name} == {"1", "2"}


def test_threads_that_end_leave_their_sums_and_nothing_else() -> None:
    recorder = Recorder()

    def count() -> None:
        for _ in range(10):
            recorder.count(("a",))
            recorder.observe(("b",), 0.5)

    for _ in range(50):
        threads = [threading.Thread(target=count) for _ in range(10)]
        for thread in threads:
            thread.start()
        recorder.totals()  # at any moment
        for thread in threads:
            thread.join()
    recorder.count(("a",))
    totals = recorder.totals()
    assert totals.counters == {("a",): 5001}
    assert sum(totals.histograms["b",][:-1]) == 5000
    assert totals.histograms["b",][-1] == 2500
    assert len(recorder._threads) == 1
