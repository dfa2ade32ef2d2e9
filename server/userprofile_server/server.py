"""The server: builds the parts, starts them in order, and stops them in reverse order."""

import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from userprofile_server import descriptors, stores
from userprofile_server.access import Access
from userprofile_server.gauges import gauges
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.listeners import Listener, listed
from userprofile_server.readiness import Readiness
from userprofile_server.rpc import health, service
from userprofile_server.rpc.backlog import Backlog
from userprofile_server.rpc.call_log import CallLog
from userprofile_server.rpc.call_metrics import CallMetrics
from userprofile_server.rpc.credentials import server_credentials
from userprofile_server.rpc.executor import Executor
from userprofile_server.rpc.health import Health
from userprofile_server.rpc.pipeline import Pipeline, build_stages
from userprofile_server.rpc.reflection import Reflection
from userprofile_server.rpc.service import UserProfileService
from userprofile_server.rpc.stages import Method, Stage
from userprofile_server.rpc.stages.telemetry import CallObserver, telemetry
from userprofile_server.rpc.transport import channel_arguments
from userprofile_server.rpc.waiting_calls import Reaper, WaitingCalls
from userprofile_server.rpc.whole_requests import WholeRequests
from userprofile_server.settings import Settings
from userprofile_server.stores.base import DocumentStore
from userprofile_server.stores.pool import StorePool
from userprofile_server.stores.reconnecting import StoreObserver
from userprofile_server.telemetry import logs, metrics
from userprofile_server.telemetry.metrics_server import MetricsServer
from userprofile_server.telemetry.page import Page
from userprofile_server.telemetry.recorder import Recorder
from userprofile_server.telemetry.snapshot import Snapshot
from userprofile_server.telemetry.store_metrics import StoreMetrics

if TYPE_CHECKING:
    from userprofile_server.telemetry.tracing import Tracing

_log = logging.getLogger(__name__)

_OPEN_SECONDS = 5.0
"""Seconds that `start` waits for the stores before it listens without them."""

_PROBE_SECONDS = 1.0
"""The timeout of a probe, in seconds. With one node lost, most probes take all of it."""

_SPARES = 256
"""Spare threads: how many calls may wait for lost nodes of a cluster while other calls are served.

With a `--store-timeout` of 2 seconds, enough for 128 such calls a second.
"""

_HOLD_SECONDS = 0.1

_LOOK_SECONDS = 0.05
"""Seconds between checks: whether the store has responded, before listening; whether calls are left, in the drain."""

_LOOKS_WITHOUT_CALLS = 20

_OTHER_DESCRIPTORS = 1000
"""Maximum number of files and sockets other than client connections, mostly the store's."""


class UserProfileServer:
    """One gRPC server process: `start`, later `stop`. Also a context manager that does both."""

    def __init__(
        self,
        settings: Settings,
        *,
        open_store: Callable[[], DocumentStore] | None = None,
        share_port: bool = False,
        on_ready: Callable[[bool], None] = lambda _ready: None,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Builds everything; opens, binds and starts nothing.

        Args:
            settings: The settings of the server.
            open_store: Opens one connection to a store of the caller's own. `settings.store.url` is then only its name
                in the log, and there are no spare threads.
            share_port: Whether other servers may listen on the same port. The kernel spreads connections over them
                (SO_REUSEPORT).
            on_ready: Called with every change of readiness.
            tracing: Makes spans; closed when the server has stopped.

        Raises:
            SecurityError: a file of certificates, tokens or rules can't be used.
        """
        self._settings = settings
        self._share_port = share_port
        self._tracing = tracing
        self._recorder = Recorder() if settings.server.metrics_listen is not None else None
        self._access = Access(settings, on_read=self._record_file)
        self._stores = StorePool(
            1 if settings.server.shared_connection else settings.server.workers,
            open_store or functools.partial(stores.open_store, settings),
            probe_timeout=min(settings.store.timeout, _PROBE_SECONDS),
            observers=self._store_observers(),
        )
        limits = settings.limits
        self._executor = Executor(
            settings.server.workers,
            backlog=Backlog(
                target=limits.queue_target,
                burst=limits.queue_burst,
                least=settings.server.workers,
                most=limits.max_queued,
                most_bytes=limits.max_queued_bytes,
            ),
            spares=_SPARES if open_store is None and stores.backend_of(settings.store.url).has_nodes else 0,
            on_thread_start=self._stores.assign,
        )
        self._half_sent = WaitingCalls("half-sent requests", most=limits.max_half_sent, seconds=limits.request_timeout)
        idle = WaitingCalls(
            "open reflection streams", most=limits.max_reflection_streams, seconds=limits.reflection_idle
        )
        self._reaper = Reaper(self._half_sent, idle)
        self._health = Health(service.SERVICE.full_name, half_sent=self._half_sent, max_watches=limits.max_watches)
        self._reflection = Reflection(service.SERVICE.full_name, health.SERVICE.full_name, idle=idle)

        def on_change(ready: bool) -> None:
            self._health.set_serving(ready)
            on_ready(ready)

        self._readiness = Readiness(
            self._stores.responded_at, unready_after=settings.server.unready_after, on_change=on_change
        )
        self._running = ExitStack()
        self._delay = self._grace = 0.0
        self._hurry = threading.Event()  # ends the delay early
        self._stopping = threading.Lock()  # taken by the first `stop`, and never released
        self._stopped = threading.Event()
        self._grpc = grpc.server(
            WholeRequests(
                self._executor.submit, self._half_sent, admits=self._executor.admits, share_of=self._access.share_of
            ),
            options=channel_arguments(limits, share_port=share_port),
        )
        servicer = UserProfileService(self._stores.current, store_timeout=settings.store.timeout)
        observe = telemetry(self._call_observers(), self._executor.queued_at)
        stages = build_stages(authorize=self._access.authorize, telemetry=observe, tracing=self._trace_stage())
        pipeline = Pipeline(self._grpc, stages)
        pipeline.add(service.SERVICE, servicer)
        pipeline.add(health.SERVICE, self._health, executor=self._health.executor)
        for described in self._reflection.services:
            pipeline.add(described, self._reflection, executor=self._reflection.executor)
        self._health_grpc: grpc.Server | None = None
        if settings.server.health_listen is not None:
            self._health_grpc = grpc.server(
                self._health.executor, options=channel_arguments(limits, share_port=share_port)
            )
            Pipeline(self._health_grpc, build_stages(telemetry=observe)).add(
                health.SERVICE, self._health, executor=self._health.executor
            )

    def start(self, listen: threading.Event | None = None) -> str:
        """Opens the stores, then listens. Returns `settings.server.listen` with the ports that were bound.

        The result is one address, or several separated by commas.

        The server also listens if the store can't be reached: calls fail with UNAVAILABLE, and health reports
        NOT_SERVING, until the store responds. With `listen`, it first waits for the store and for the keys of an issuer
        of JWTs, or for this event.

        Raises:
            StoreError: waiting wouldn't help: the settings are wrong, or there is no such file.
            ListenError: the server can't listen on an address.
        """
        with ExitStack() as stack:
            # The parts start in this order and stop in reverse order, also after an error.
            self._allow_descriptors()
            if self._tracing is not None:
                stack.callback(self._tracing.close)
            if self._settings.server.metrics_listen is not None and not self._share_port:
                metrics_server = MetricsServer(ListenAddress.parse(self._settings.server.metrics_listen), self._page)
                stack.callback(metrics_server.stop)
                metrics_server.start()
            stack.callback(self._access.stop)
            self._access.start()
            stack.callback(self._stores.close)
            self._stores.open(_OPEN_SECONDS)
            stack.callback(self._executor.close)
            self._executor.start()
            stack.callback(self._health.close)
            self._health.start()
            stack.callback(self._reflection.close)
            self._reflection.start()
            stack.callback(self._reaper.stop)
            self._reaper.start()
            stack.callback(self._drain)
            if listen is not None:
                _wait("the store responds", lambda: self._stores.responded_at() >= 0, listen)
                _wait("the issuer's keys are here", self._access.has_keys, listen)
            address = self._bind()
            self._grpc.start()
            if self._health_grpc is not None:
                self._health_grpc.start()
            stack.callback(self._readiness.stop)
            self._readiness.start()
            stack.callback(self._retire)
            self._running = stack.pop_all()
        if self._stopping.locked():  # another thread called `stop` before there was anything to stop
            self._running.close()
        _log.info("serving %s on %s with %d workers", self._settings.store.url, address, self._settings.server.workers)
        return address

    def snapshot(self) -> Snapshot:
        """Returns the metrics of this process. Empty unless `settings.server.metrics_listen` is set."""
        if self._recorder is None:
            return Snapshot()
        found = gauges(
            executor=self._executor,
            half_sent=self._half_sent,
            health=self._health,
            stores=self._stores,
            access=self._access,
            url=self._settings.store.url,
        )
        totals = self._recorder.totals()
        totals.counters[metrics.LOG_DROPPED.name,] = logs.lines_dropped()
        return Snapshot(totals, list(found))

    def stop(self, grace: float | None = None, *, delay: float | None = None) -> None:
        """Drains: reports NOT_SERVING, stops accepting calls, waits for calls in progress, and closes everything.

        A second call, also from another thread, ends the delay early and may shorten the grace.

        Args:
            grace: Seconds that calls in progress get before they are cancelled. By default the configured value.
            delay: Seconds between reporting NOT_SERVING and refusing new calls. By default the configured value, or 0
                if `grace` is given.
        """
        settings = self._settings.server
        if delay is None:
            delay = settings.drain_delay if grace is None else 0.0
        if grace is None:
            grace = settings.drain_grace
        if self._stopping.acquire(blocking=False):
            self._delay, self._grace = delay, grace
            try:
                self._running.close()
            finally:
                self._stopped.set()
        else:
            self._hurry.set()
            self._grpc.stop(grace)
            self._stopped.wait()

    def _page(self) -> Page:
        snapshot = self.snapshot()
        return Page([snapshot.totals], {"1": snapshot.gauges})

    def _call_observers(self) -> list[Callable[[Method], CallObserver]]:
        observers: list[Callable[[Method], CallObserver]] = []
        if self._recorder is not None:
            observers.append(functools.partial(CallMetrics, self._recorder))
        if self._settings.log.calls > 0:
            observers.append(functools.partial(CallLog, self._settings.log.calls))
        return observers

    def _store_observers(self) -> list[StoreObserver]:
        observers: list[StoreObserver] = []
        if self._recorder is not None:
            observers.append(StoreMetrics(self._recorder))
        if self._tracing is not None:
            observers.append(self._tracing)
        return observers

    def _trace_stage(self) -> Stage | None:
        if self._tracing is None:
            return None
        from userprofile_server.rpc.stages.tracing import tracing  # imports OpenTelemetry

        return tracing(self._tracing, self._executor.queued_at)

    def _record_file(self, file: Path, valid: bool) -> None:
        if self._recorder is not None:
            self._recorder.count((metrics.FILE_CHANGES.name, str(file), "used" if valid else "invalid"))

    def _retire(self) -> None:
        """Lame duck: reports NOT_SERVING, and serves calls until load balancers have noticed."""
        self._health.retire()
        if self._delay:
            _log.info("not serving: new calls are accepted for %g s", self._delay)
            self._hurry.wait(self._delay)

    def _drain(self) -> None:
        self._health.drain()
        if self._health_grpc is not None:
            self._health_grpc.stop(0)  # other processes on the shared port now get the health checks
        # When grpc stops, it cancels calls that it has received but not yet handed to us
        # (https://github.com/grpc/grpc/issues/41785), and under load there are always some. So responses are held back
        # for a moment: callers that wait for one send no new call, the calls already sent reach us, and the responses
        # follow the GOAWAY on each connection.
        with self._executor.hold() if self._grace else nullcontext():
            time.sleep(_HOLD_SECONDS if self._grace else 0)
            stopped = self._grpc.stop(self._grace)
        self._reaper.drain()
        looks_without_calls = 0
        while not stopped.wait(_LOOK_SECONDS):
            # grpc waits up to 20 seconds for clients to acknowledge the GOAWAY. If no calls are left, clients that
            # haven't done so within a second are disconnected.
            looks_without_calls = 0 if self._grpc._state.rpc_states else looks_without_calls + 1  # type: ignore[attr-defined]
            if looks_without_calls == _LOOKS_WITHOUT_CALLS:
                self._grpc.stop(0)

    def __enter__(self) -> str:
        """Starts, and returns the address."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stops with the configured grace and no delay: at the end of the block no calls are expected."""
        self.stop(delay=0)

    def _allow_descriptors(self) -> None:
        server = self._settings.server
        listen = [listener.address for listener in server.listeners]
        if server.health_listen is not None:
            listen.append(ListenAddress.parse(server.health_listen))
        addresses = sum(len(address.resolve()) for address in listen)  # gRPC limits the connections of each
        wanted = addresses * self._settings.limits.max_connections + _OTHER_DESCRIPTORS
        allowed = descriptors.allow(wanted)
        if allowed < wanted:
            _log.warning("the system allows %d open files: not as many connections as --max-connections says", allowed)

    def _bind(self) -> str:
        bound = [self._bind_listener(listener) for listener in self._settings.server.listeners]
        if self._health_grpc is not None and (health_listen := self._settings.server.health_listen) is not None:
            address = _bind(self._health_grpc, ListenAddress.parse(health_listen), None, share_port=self._share_port)
            _log.info("health checks on %s", address)
        return listed(bound)

    def _bind_listener(self, listener: Listener) -> Listener:
        credentials = None
        if listener.security != "plaintext":
            assert self._access.certificates is not None  # required by the settings
            credentials = functools.partial(
                server_credentials, self._access.certificates, mutual=listener.security == "mtls"
            )
        return listener.at(_bind(self._grpc, listener.address, credentials, share_port=self._share_port))


def _wait(what: str, has_happened: Callable[[], bool], hurry: threading.Event) -> None:
    if not has_happened():
        _log.warning("not listening before %s", what)
    while not has_happened() and not hurry.wait(_LOOK_SECONDS):
        pass


def _bind(
    server: grpc.Server,
    address: ListenAddress,
    credentials: Callable[[], grpc.ServerCredentials] | None,
    *,
    share_port: bool,
) -> ListenAddress:
    """Binds the server to each IP address of `address`. Returns `address` with the port that was bound.

    Each has credentials of its own, because they tell only one port of new certificates.

    Raises:
        ListenError: the address is taken, or isn't this machine's.
    """
    port = None
    for each in address.resolve():
        each = dataclasses.replace(each, port=port or each.port)
        if not each.can_bind(shared=share_port):
            continue
        try:
            if credentials is None:
                port = server.add_insecure_port(str(each))
            else:
                port = server.add_secure_port(str(each), credentials())
        except RuntimeError:  # taken since our check
            raise ListenError(f"can't listen on {each}") from None
    if port is None:
        raise ListenError(f"can't listen on {address}: this machine has no such address")
    return address if address.port is None else dataclasses.replace(address, port=port)
