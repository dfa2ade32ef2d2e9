"""A real Prometheus scrapes two loaded processes, and the alerts fire on faults: `make test-prometheus`."""

import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from deploy.prometheus.update_dashboard import DASHBOARD, ROWS
from tests.authority import Authority
from tests.canary import guard
from tests.conftest import put_users
from tests.external.prometheus import PROMTOOL, Prometheus, prometheus
from tests.external.tables import printed
from tests.scraped import Scraped, metrics_address, request
from tests.supervised import Supervised, send
from tests.support import WAIT, CallError, eventually, health_stub
from userprofile import TLS, UserProfileClient, UserProfileError
from userprofile_server.security.tokens import new_token
from userprofile_server.telemetry import metrics

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parent.parent.parent
RULES = DASHBOARD.with_name("rules.yaml")
FOLDER = ROOT / "build" / "test-prometheus"
CLIENTS = 8
SCRAPES = 1000
POLICY = {"name": "callers", "allow_rules": [{"name": "all", "source": {"principals": ["token:a-caller"]}}]}

EXPIRING = [("UserprofileCertificateExpires", "critical"), ("UserprofileCertificateExpires", "warning")]
"""The server's certificate is valid for two days only."""
ERRORS = [("UserprofileErrors", "critical"), ("UserprofileErrors", "warning")]
SLOW = [("UserprofileLatency", "critical"), ("UserprofileLatency", "warning")]
RESTARTS = ("UserprofileProcessRestarts", "warning")
INVALID = ("UserprofileFileInvalid", "warning")
OVERLOAD = ("UserprofileOverload", "warning")
UNJUDGED = {*EXPIRING, *SLOW}
"""What may fire at any time: a busy machine may make calls slow."""


def promtool(*arguments: object, stdin: str = "") -> str:
    """Runs it, which has to be content, and returns what it prints."""
    assert PROMTOOL, "Debian's package prometheus"
    done = subprocess.run(
        [PROMTOOL, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def load(target: str, folder: str) -> None:
    """Makes calls until stdin is closed: the main function of the clients' process."""
    ended = threading.Event()

    def call() -> None:
        tls = TLS(ca=Path(folder, "ca.pem"))
        with UserProfileClient(target, timeout=2, tls=tls, token_file=Path(folder, "token")) as client:
            for username in itertools.cycle(["johndoe", "nobody", "absent"]):
                if ended.is_set():
                    return
                with suppress(UserProfileError):
                    client.get_user(username)
                with suppress(UserProfileError):
                    client.get_users([username, "johndoe"])

    callers = [threading.Thread(target=call) for _ in range(CLIENTS)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    ended.set()
    for caller in callers:
        caller.join()


class Service:
    """Two server processes with TLS, tokens and a policy, and clients that make calls all the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority()
        authority.issue("localhost", not_after=timedelta(days=2)).write(folder, "server")
        (folder / "ca.pem").write_bytes(authority.pem)
        (folder / "policy.json").write_text(json.dumps(POLICY))
        (folder / "token").write_text(guard(new_token("a-caller", folder / "tokens")))
        put_users(f"sqlite:///{folder / 'users.db'}")
        files = {"tls-certificate": "server.pem", "tls-key": "server.key", "tokens": "tokens", "policy": "policy.json"}
        self._flags = [f"--{flag}={folder / file}" for flag, file in files.items()]

    @contextmanager
    def running(self) -> Iterator["Service"]:
        store = [
            "--store",
            f"sqlite:///{self.folder / 'users.db'}",
            "--processes=2",
            "--unready-after=3",
            "--max-watches=1",
        ]
        listen = ["--listen=tls://127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
        with Supervised("", *store, *listen, *self._flags) as self.server:
            self.metrics = metrics_address(self.server)
            self.server.in_log("ready: all 2 processes")
            self.target = f"localhost:{self.server.address.rpartition(':')[2]}"
            code = f"from tests.external.check_prometheus import load; load({self.target!r}, {str(self.folder)!r})"
            command = [sys.executable, "-c", code]  # of its own: threads here would delay the scrapes that are timed
            with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as clients:
                try:
                    yield self
                finally:
                    clients.communicate()

    def scrape(self) -> Scraped:
        return Scraped(self.metrics)

    def calls(self) -> float:
        """How many calls have ended, by the page."""
        return self.scrape().sum(metrics.HANDLED.name)

    def end_a_process(self) -> None:
        """Kills one, and waits until there is another."""
        ready = self.server.stderr.count("ready: all 2 processes")
        send(self.server.children()[0], signal.SIGKILL)
        self.server.in_log("ready: all 2 processes", times=ready + 1)

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Opens more health watches than a process allows, again and again."""
        credentials = grpc.ssl_channel_credentials((self.folder / "ca.pem").read_bytes())
        with grpc.secure_channel(self.target, credentials) as channel:

            def watch() -> Any:
                return health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)

            kept = watch()
            next(kept)
            with repeating(lambda: CallError.of(lambda: next(watch()))):
                yield
            kept.cancel()

    @contextmanager
    def halting(self) -> Iterator[None]:
        """Stops the processes for more than a tenth of a second, again and again."""

        def halt() -> None:
            for number, seconds in ((signal.SIGSTOP, 0.15), (signal.SIGCONT, 0.01)):
                for child in self.server.children():
                    send(child, number)
                time.sleep(seconds)

        with repeating(halt):
            yield


@contextmanager
def repeating(work: Callable[[], object]) -> Iterator[None]:
    """Does something again and again while the block lasts."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(0.001):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")).running() as service:
        yield service


@pytest.fixture(scope="module")
def scraper(service: Service) -> Iterator[Prometheus]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    with prometheus(FOLDER, RULES, service.metrics) as scraper:
        eventually(lambda: scraper.query("up") == [1], "it scrapes")
        yield scraper


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with printed(request, "Two processes, TLS, tokens, a policy; 8 clients that call all the time") as rows:
        yield rows


def test_rules_and_their_unit_tests_are_right() -> None:
    assert "rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", RULES.with_name("prometheus.yaml"))
    promtool("test", "rules", RULES.with_name("rules.test.yaml"))


def test_every_alert_has_a_unit_test() -> None:
    tested = set(re.findall(r"alertname: (\w+)", RULES.with_name("rules.test.yaml").read_text()))
    assert tested == set(re.findall(r"- alert: (\w+)", RULES.read_text()))


def test_the_page_is_accepted_while_calls_are_made(service: Service) -> None:
    eventually(lambda: service.calls() > 100, "calls are made")
    promtool("check", "metrics", stdin=request(service.metrics).content)


def test_it_scrapes_and_has_the_rules_and_the_certificate_alerts(scraper: Prometheus) -> None:
    (target,) = scraper.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    rules = [rule for group in scraper.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall(r"- (?:alert|record):", RULES.read_text()))
    eventually(lambda: scraper.query("count_over_time(userprofile:calls:rate5m[1m]) > 5"), "it has evaluated them")
    rules = [rule for group in scraper.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    scraper.fires(*EXPIRING)
    assert scraper.firing() <= UNJUDGED


def test_every_panel_of_the_dashboard_has_data(service: Service, scraper: Prometheus) -> None:
    with (service.folder / "tokens").open("a") as file:
        file.write("\n")
    new_token("another", service.folder / "tokens")
    eventually(lambda: scraper.query("userprofile_file_changes_total"), "the file was read again")
    for panel in (panel for panels in ROWS.values() for panel in panels):
        for query in panel.queries:
            expression = query.expression.replace("$__rate_interval", "10s").replace("$job", "userprofile")
            expression = expression.replace("$instance", ".+")
            eventually(lambda asked=expression: scraper.query(asked), f"{panel.title}: {expression}", timeout=20)  # type: ignore[misc]


def test_scrapes_are_quick_and_leave_nothing(service: Service, table: list[str]) -> None:
    def resident() -> int:
        fields = Path(f"/proc/{service.server.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def time_scrapes(number: int) -> list[float]:
        taken = []
        for _ in range(number):
            began = time.perf_counter()
            assert request(service.metrics).status == 200
            taken.append(1000 * (time.perf_counter() - began))
        return taken

    before_calls, began = service.calls(), time.monotonic()
    time_scrapes(100)
    before = resident()
    taken = time_scrapes(SCRAPES)
    after = resident()
    rate = (service.calls() - before_calls) / (time.monotonic() - began)
    p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
    size = len(request(service.metrics).content)
    table.append(f"{SCRAPES:,} scrapes of {size:,} bytes while {rate:,.0f} calls a second were made:")
    table.append(f"  p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(taken):.1f} ms")
    table.append(f"  resident memory of the supervisor: {before:,} KiB before, {after:,} KiB after")
    assert after - before < 2048


def test_no_total_falls_when_processes_are_killed(service: Service, scraper: Prometheus, table: list[str]) -> None:
    began = time.monotonic()
    calls = service.calls()
    for _ in range(3):
        service.end_a_process()
    scraper.fires(RESTARTS)
    eventually(lambda: service.calls() > calls + 200, "calls are made")
    suffixes = {"counter": [""], "histogram": ["_bucket", "_count", "_sum"], "gauge": []}
    totals = [metric.name + suffix for metric in metrics.METRICS for suffix in suffixes[metric.kind]]
    totals.remove(metrics.CPU.name)  # a process's own
    window = f"{int(time.monotonic() - began) + 20}s"
    resets = [value for name in totals for value in scraper.query(f"resets({name}[{window}])")]
    assert len(resets) > 200
    assert sum(resets) == 0
    eventually(lambda: scraper.query("userprofile_process_restarts_total") == [3], "all three are counted")
    table.append(f"3 processes killed: none of {len(resets)} totals has fallen")


def test_an_invalid_policy_and_refused_calls_alert(service: Service, scraper: Prometheus) -> None:
    policy = service.folder / "policy.json"
    valid = policy.read_text()
    policy.write_text("{")
    try:
        with service.refused():
            scraper.fires(INVALID, OVERLOAD)
        assert scraper.firing() <= {INVALID, OVERLOAD, RESTARTS, *UNJUDGED}
    finally:
        policy.write_text(valid)


def test_slow_calls_alert(service: Service, scraper: Prometheus) -> None:
    with service.halting():
        scraper.fires(SLOW[1])  # what arrives meanwhile isn't slow to them: only calls that they had begun are
    scraper.is_quiet(but_for=UNJUDGED)


def test_a_lost_store_alerts_until_it_is_back(service: Service, scraper: Prometheus, table: list[str]) -> None:
    users, away = service.folder / "users.db", service.folder / "away.db"
    lost = [("UserprofileStoreLost", "critical"), ("UserprofileNotReady", "critical"), *ERRORS]
    began = time.monotonic()
    users.rename(away)
    scraper.fires(*lost)
    seconds = time.monotonic() - began
    table.append(f"the store's file removed: {len(lost)} alerts fire after {seconds:.0f} s, with ranges of seconds")
    assert scraper.firing() <= {*lost, *UNJUDGED}
    away.rename(users)
    scraper.is_quiet(but_for=UNJUDGED)


def test_a_server_that_is_gone_alerts(service: Service, scraper: Prometheus) -> None:
    service.server.signal(signal.SIGTERM)
    assert service.server.wait() == 0
    scraper.fires(("UserprofileDown", "critical"))
