"""Health checking by the standard protocol (https://grpc.io/docs/guides/health-checking/).

Not the servicer of grpcio-health-checking: it sends to watchers while it holds a lock that every check and the drain
need, so a single watcher that doesn't read would block them all.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from userprofile_server.errors import TooManyOpenCallsError
from userprofile_server.rpc.status import ForeignStatusError
from userprofile_server.rpc.streams import Stream
from userprofile_server.rpc.waiting_calls import WaitingCalls
from userprofile_server.rpc.whole_requests import WholeRequests

SERVICE: ServiceDescriptor = descriptor_pool.Default().FindServiceByName("grpc.health.v1.Health")

_Status = health_pb2.HealthCheckResponse


class Health:
    """Reports the health of the server as a whole and of each service.

    Responds on its own thread, so that checks succeed while all workers are busy, and never touches the store. A
    watcher that doesn't read holds no thread and delays nobody else.
    """

    def __init__(self, *services: str, half_sent: WaitingCalls, max_watches: int) -> None:
        """Starts as NOT_SERVING. `half_sent` tracks calls whose requests are incomplete."""
        self._services = ("", *services)
        self._status: int = _Status.NOT_SERVING
        self._watches: set[_Watch] = set()
        self._max_watches = max_watches
        self._retired = self._draining = False
        self._lock = threading.Lock()  # never held while anything is sent
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="health")
        self.executor = WholeRequests(self._hand_over, half_sent)
        """Runs the calls of this service."""

    @property
    def serving(self) -> bool:
        """Whether checks get SERVING."""
        return self._status == _Status.SERVING

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def start(self) -> None:
        """Starts the thread: with the first check, when the system may refuse another thread, it would be too late."""
        self._thread.submit(int)

    def set_serving(self, serving: bool) -> None:
        """Sets the status for checks and sends it to all watchers. Does nothing after `retire`."""
        with self._lock:
            if not self._retired:
                self._set(_Status.SERVING if serving else _Status.NOT_SERVING)

    def retire(self) -> None:
        """Reports NOT_SERVING from now on (lame duck): later calls of `set_serving` have no effect."""
        with self._lock:
            self._retired = True
            self._set(_Status.NOT_SERVING)

    def drain(self) -> None:
        """Reports NOT_SERVING from now on and ends all watches, because an open one would use up the drain's grace.

        Doesn't wait for watchers to receive the status.
        """
        with self._lock:
            self._retired = self._draining = True
            self._set(_Status.NOT_SERVING)

    def close(self) -> None:
        """Ends the thread. Call it after grpc has stopped, when no call can use the thread any more."""
        self._thread.shutdown()

    def _hand_over(
        self,
        _caller: object,
        _deadline: float,
        _size: int,
        _refuse: object,
        function: Callable[..., object],
        /,
        *arguments: object,
    ) -> bool:
        """Admits every check: load balancers need a response from a server under load too."""
        self._thread.submit(function, *arguments)
        return True

    def _set(self, status: int) -> None:
        self._status = status
        for watch in self._watches:
            watch.update(status, last=self._draining)

    def Check(self, request: health_pb2.HealthCheckRequest, _context: grpc.ServicerContext) -> _Status:  # noqa: N802
        """Returns the status of a service, or of the server as a whole, as it is now."""
        if request.service not in self._services:
            raise ForeignStatusError(grpc.StatusCode.NOT_FOUND, "This server has no such service.")
        return _Status(status=self._status)

    def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> None:  # noqa: N802
        """Opens a stream of the status and of its changes.

        Raises:
            TooManyOpenCallsError: the maximum number of watches is open.
        """
        watch = _Watch(Stream(context), known=request.service in self._services)
        with self._lock:
            if len(self._watches) >= self._max_watches:
                raise TooManyOpenCallsError(f"{self._max_watches} health watches")
            self._watches.add(watch)
            watch.update(self._status, last=self._draining)
        if not context.add_callback(lambda: self._forget(watch)):
            self._forget(watch)  # the call has ended already

    def _forget(self, watch: "_Watch") -> None:
        with self._lock:
            self._watches.discard(watch)


class _Watch:
    """One open stream. Updates are coalesced: only the latest status is sent."""

    def __init__(self, stream: Stream, *, known: bool) -> None:
        self._known = known
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[health_pb2.HealthCheckResponse | None] = []
        self._latest: int | None = None
        self._sending = False
        self._ended = False

    def update(self, status: int, *, last: bool = False) -> None:
        # The protocol requires the stream of an unknown service to stay open: the service may be added later.
        status = status if self._known else _Status.SERVICE_UNKNOWN
        with self._lock:
            if self._ended:
                return
            self._ended = last
            if status != self._latest:
                self._latest = status
                self._waiting = [_Status(status=status)]
            if last:
                self._waiting.append(None)
            if self._sending or not self._waiting:
                return
            self._sending = True
        self._send_next()

    def _send_next(self) -> None:
        with self._lock:
            if not self._waiting:
                self._sending = False
                return
            response = self._waiting.pop(0)
        if response is None:
            self._stream.end()
        else:
            self._stream.send(response.SerializeToString(), self._send_next)
