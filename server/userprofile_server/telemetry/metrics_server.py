"""Serves the page of the metrics over HTTP, on an address of its own."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from userprofile.printable import printable
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.telemetry.page import Page

_log = logging.getLogger(__name__)

_MOST_WAITING = 16
"""Connections whose request has not arrived, at a time. Another one ends the oldest: it may be Prometheus's."""

_MOST_CONNECTIONS = 64
"""Open connections at a time, each with a thread. Further ones are closed at once."""

_SECONDS = 5.0
"""Seconds that a client may take to send its request, and then to read the response."""

_PAUSE = 0.1
"""Seconds until the next try to take a connection, after one has failed."""


class MetricsServer:
    """Serves `GET /metrics`. Each connection has a thread for its one request."""

    def __init__(self, address: ListenAddress, page: Callable[[], Page]) -> None:
        """Listens. `page` is called for each request, on the thread of its connection.

        Raises:
            ListenError: the server can't listen on this address.
        """
        self._http = _Server(address, page)
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)
        self.address = self._http.bound
        """The address with the port that was bound."""

    def start(self) -> None:
        """Starts to serve, on a thread."""
        self._thread.start()
        _log.info("metrics on http://%s/metrics", self.address)

    def stop(self) -> None:
        """Stops listening."""
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # of connections that the system holds; with 5, others would delay Prometheus by seconds

    def __init__(self, address: ListenAddress, page: Callable[[], Page]) -> None:
        self.page = page
        self.waiting: dict[Any, float] = {}
        """Connections whose request has not arrived, the oldest first, with the time until which they may wait."""
        self._connections = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        found = next((each for each in address.resolve() if each.can_bind()), None)
        if found is None:
            raise ListenError(f"can't listen on {address}: this machine has no such address")
        self.address_family = socket.AF_INET6 if ":" in found.host else socket.AF_INET
        try:
            super().__init__((found.host, found.port or 0), _Request)
        except OSError as error:
            raise ListenError(f"can't listen on {address}: {error.strerror}") from None
        self.bound = ListenAddress(found.host, self.server_address[1])

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up the name of the machine: a name server that doesn't respond would delay it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # no file is left for the connection, which stays there: the next try would be at once
            time.sleep(_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self.waiting[request] = time.monotonic() + _SECONDS
        self._end(list(self.waiting)[:-_MOST_WAITING])
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system refuses another thread
            self._forget(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def service_actions(self) -> None:
        """Ends what has waited for too long. `serve_forever` calls it twice a second."""
        now = time.monotonic()
        self._end([request for request, until in list(self.waiting.items()) if now >= until])

    def _forget(self, request: Any) -> None:
        self.waiting.pop(request, None)
        self._connections.release()

    def _end(self, requests: list[Any]) -> None:
        """Ends connections, so that their threads end."""
        for request in requests:
            self.waiting.pop(request, None)
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        _log.debug("a request for metrics failed", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    server_version = "userprofile"
    sys_version = ""
    timeout = _SECONDS  # for the response: all of it is one write

    def do_GET(self) -> None:
        self.server.waiting.pop(self.connection, None)
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="the metrics are at /metrics")
            return
        try:
            content, content_type = self.server.page().render(self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001, a bug; else Prometheus would get nothing, and nobody would know why
            _log.exception("the page of the metrics can't be made")
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug("%s", printable(format % args))
