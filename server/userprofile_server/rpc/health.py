"""Health checking by the standard protocol (https://grpc.io/docs/guides/health-checking/)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer

from userprofile_server.rpc.handler import on_own_threads

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Says whether the server as a whole, and each of its services, may be sent calls.

    Answers on a thread of its own, so that a check gets through while all workers are busy, and
    never touches the store.
    """

    def __init__(self, *services: str) -> None:
        """Begins as NOT_SERVING."""
        self._services = ("", *services)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._servicer = HealthServicer()
        self._watches: set[_Watch] = set()
        self._draining = False
        self._lock = threading.Lock()
        self.set_serving(False)

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service."""
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                on_own_threads(self._servicer.Check, self._executor),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                on_own_threads(self._watch, self._executor, non_blocking=True),
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    def set_serving(self, serving: bool) -> None:
        """Tells all who ask and all who watch. Does nothing once `drain` was called."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            self._servicer.set(service, status)

    def drain(self) -> None:
        """Says NOT_SERVING from now on and ends all watches: left open, one would use up the drain's grace."""
        self._servicer.enter_graceful_shutdown()
        with self._lock:
            self._draining = True
            watches = list(self._watches)
        for watch in watches:
            watch.send(None)

    def close(self) -> None:
        """Ends the thread."""
        self._executor.shutdown()

    def _watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: "_Send") -> None:
        watch = _Watch(send)
        context.add_callback(lambda: self._watches.discard(watch))
        self._servicer.Watch(request, context, watch.send)
        with self._lock:
            self._watches.add(watch)
            draining = self._draining
        if draining:
            watch.send(None)


_Send = Callable[[health_pb2.HealthCheckResponse | None], None]


class _Watch:
    """One open stream, which may be ended by us or by the client; the second one to end it does nothing."""

    def __init__(self, send: _Send) -> None:
        self._send = send
        self._open = True

    def send(self, response: health_pb2.HealthCheckResponse | None) -> None:
        if self._open:
            self._open = response is not None
            self._send(response)
