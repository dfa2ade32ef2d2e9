"""The server: puts the parts together, starts them in order and takes them down in order."""

import dataclasses
import logging
import threading
import time

import grpc

from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.readiness import Readiness
from userprofile_server.rpc import health, pipeline
from userprofile_server.rpc.health import Health
from userprofile_server.rpc.reflection import Reflection
from userprofile_server.rpc.whole_requests import WholeRequests
from userprofile_server.service import UserProfileService
from userprofile_server.settings import ServeSettings
from userprofile_server.stores import is_cluster, open_store
from userprofile_server.workers import Workers

_log = logging.getLogger(__name__)

_OPEN_SECONDS = 5.0
"""How long `start` waits for the stores before it listens without them."""

_PROBE_SECONDS = 1.0
"""How long a probe waits at most: with one node lost most probes last as long as they may."""

_SPARES = 256
"""How many calls may wait for lost nodes of a cluster while others are answered.

With `--store-timeout` at 2 seconds it suffices for 128 such calls a second.
"""

_HOLD_SECONDS = 0.1

MAX_REQUEST_BYTES = 64 * 1024
"""The largest request that is read, in bytes. grpc answers a larger one with RESOURCE_EXHAUSTED."""


_UNLIMITED = 2**31 - 1
_A_DAY = 86_400

MIN_PING_SECONDS = 20
"""How often a client may ping a quiet connection. Whoever does it more often is told too_many_pings, and cut off."""


class UserProfileServer:
    """One gRPC server process: `start`, later `stop`. Also a context manager that does both."""

    def __init__(self, settings: ServeSettings) -> None:
        """Builds everything; opens, binds and starts nothing."""
        self._settings = settings
        self._draining = False
        self._address = ListenAddress.parse(settings.listen)
        self._workers = Workers(
            settings.workers,
            lambda: open_store(settings),
            probe_timeout=min(settings.store_timeout, _PROBE_SECONDS),
            share_handle=settings.share_handle,
            spares=_SPARES if is_cluster(settings.store) else 0,
        )
        self._health = Health(pipeline.SERVICE_NAME)
        self._readiness = Readiness(
            self._workers.answered_at, unready_after=settings.unready_after, tell=self._health.set_serving
        )
        self._reflection = Reflection(pipeline.SERVICE_NAME, health.SERVICE_NAME)
        self._grpc = grpc.server(
            WholeRequests(self._workers.submit),
            options=[
                # Else a second server on the same port would start in silence and take half the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                # What our clients do to notice a lost connection; by default it would count as an attack.
                ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_SECONDS * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
                # What has arrived waits for a worker as long as its caller does. By default gRPC cancels, by chance
                # above 1,000 and always above 3,000, what comes faster than its one thread can hand it over.
                ("grpc.server.max_pending_requests", _UNLIMITED),
                ("grpc.server.max_pending_requests_hard_limit", _UNLIMITED),
                ("grpc.server_max_unrequested_time_in_server", _A_DAY),
            ],
        )
        servicer = UserProfileService(self._workers.current_store, store_timeout=settings.store_timeout)
        pipeline.add_user_profile_service(servicer, self._grpc)
        self._health.add_to(self._grpc)
        self._reflection.add_to(self._grpc)

    def start(self) -> str:
        """Opens the stores, then listens. Returns the address that it serves on, with the port that was bound.

        A store that can't be reached now doesn't keep it from listening: calls are answered by
        UNAVAILABLE, and health says NOT_SERVING, until the store is there.

        Raises:
            StoreError: no waiting would help; the mistake is in the settings, or there is no such file.
            ListenError: the address can't be listened on.
        """
        try:
            self._workers.open(_OPEN_SECONDS)
            address = self._bind()
            self._grpc.start()
        except BaseException:
            self.stop(grace=0)
            raise
        self._readiness.start()
        _log.info("serving %s on %s with %d workers", self._settings.store, address, self._settings.workers)
        return address

    def stop(self, grace: float | None = None) -> None:
        """Says NOT_SERVING, takes no new call, gives those in progress `grace` seconds, and closes everything.

        `grace` is by default the configured one; calls that it doesn't suffice for are cancelled.
        Calling it again, from another thread too, with a shorter grace cuts the first one short.
        """
        if grace is None:
            grace = self._settings.drain_grace
        self._readiness.stop()
        self._health.drain()
        stopped = self._stop_grpc(grace)
        self._reflection.drain()
        stopped.wait()
        self._workers.close()
        self._health.close()
        self._reflection.close()

    def _stop_grpc(self, grace: float) -> threading.Event:
        if grace == 0 or self._draining:
            return self._grpc.stop(grace)
        self._draining = True
        # grpc cancels calls that have reached it, but that it hasn't handed to us yet, when it stops
        # (https://github.com/grpc/grpc/issues/41785), and under load there are always some. So the
        # answers wait for a moment: callers who wait for an answer send nothing new, what they have
        # sent gets to us, and the answers reach them behind grpc's word that this connection is closing.
        with self._workers.hold():
            time.sleep(_HOLD_SECONDS)
            return self._grpc.stop(grace)

    def __enter__(self) -> str:
        """Starts, and returns the address."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stops, with the configured grace."""
        self.stop()

    def _bind(self) -> str:
        port = self._address.port
        bound = None
        for address in self._address.resolve():
            address = dataclasses.replace(address, port=bound or port)
            if not address.is_here():
                continue
            try:
                bound = self._grpc.add_insecure_port(str(address))
            except RuntimeError:  # taken between our look and now
                raise ListenError(f"can't listen on {address}") from None
        if bound is None:
            raise ListenError(f"can't listen on {self._address}: this machine has no such address")
        return str(dataclasses.replace(self._address, port=port if port is None else bound))
