"""Health checking by the standard protocol (https://grpc.io/docs/guides/health-checking/).

Our own servicer, because the one in grpcio-health-checking sends to watchers while it holds the lock
that every check and the drain need: one watcher that doesn't read would stop them all.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from userprofile_server.rpc.handler import MALFORMED, deserializer, on_own_threads, reject_malformed
from userprofile_server.rpc.streams import Stream
from userprofile_server.rpc.whole_requests import WholeRequests

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Status = health_pb2.HealthCheckResponse


class Health:
    """Says whether the server as a whole, and each of its services, may be sent calls.

    Answers on a thread of its own, so that a check gets through while all workers are busy, and
    never touches the store. A watcher that doesn't read holds no thread, and makes nobody else wait.
    """

    def __init__(self, *services: str) -> None:
        """Begins as NOT_SERVING."""
        self._services = ("", *services)
        self._status: int = _Status.NOT_SERVING
        self._watches: set[_Watch] = set()
        self._draining = False
        self._lock = threading.Lock()  # never held while anything is sent
        self._answering = ThreadPoolExecutor(1, thread_name_prefix="health")

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service."""
        whole = WholeRequests(self._answering.submit)
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                on_own_threads(self._check, whole),
                request_deserializer=deserializer(health_pb2.HealthCheckRequest),
                response_serializer=_Status.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                on_own_threads(self._watch, whole, non_blocking=True),
                request_deserializer=deserializer(health_pb2.HealthCheckRequest),
                response_serializer=_Status.SerializeToString,
            ),
        }
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    def set_serving(self, serving: bool) -> None:
        """Tells all who ask and all who watch. Does nothing once `drain` was called."""
        self._set(_Status.SERVING if serving else _Status.NOT_SERVING)

    def drain(self) -> None:
        """Says NOT_SERVING from now on and ends all watches: left open, one would use up the drain's grace.

        Doesn't wait for watchers to hear of it.
        """
        self._set(_Status.NOT_SERVING, draining=True)

    def close(self) -> None:
        """Ends the thread. To be called once grpc has stopped: no call is left then that could hold it."""
        self._answering.shutdown()

    def _set(self, status: int, *, draining: bool = False) -> None:
        with self._lock:
            if self._draining:
                return
            self._status = status
            self._draining = draining
            for watch in self._watches:
                watch.tell(status, last=draining)

    def _check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> _Status:
        if request is MALFORMED:
            reject_malformed(context)
        if request.service not in self._services:
            context.abort(grpc.StatusCode.NOT_FOUND, "This server has no such service.")
        return _Status(status=self._status)

    def _watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, _send: Any) -> None:
        if request is MALFORMED:
            reject_malformed(context)
        watch = _Watch(Stream(context), known=request.service in self._services)
        with self._lock:
            self._watches.add(watch)
            watch.tell(self._status, last=self._draining)
        if not context.add_callback(lambda: self._forget(watch)):
            self._forget(watch)  # the call has ended already

    def _forget(self, watch: "_Watch") -> None:
        with self._lock:
            self._watches.discard(watch)


class _Watch:
    """One open stream. What it was not told in time is overtaken by what is true now."""

    def __init__(self, stream: Stream, *, known: bool) -> None:
        self._known = known
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[health_pb2.HealthCheckResponse | None] = []
        self._sending = False
        self._ended = False

    def tell(self, status: int, *, last: bool = False) -> None:
        # By the protocol a stream stays open for a service that isn't here, which may come later.
        news = _Status(status=status if self._known else _Status.SERVICE_UNKNOWN)
        with self._lock:
            if self._ended:
                return
            self._ended = last
            self._waiting = [news, None] if last else [news]
            if self._sending:
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
