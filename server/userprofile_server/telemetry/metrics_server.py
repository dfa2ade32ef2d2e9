"""Serves the page of the metrics over HTTP, on an address of its own."""

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.telemetry.page import Page

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 16
"""Open connections at a time. Prometheus opens one; further ones are closed at once, so that none holds up a thread."""

_SECONDS = 5.0
"""Seconds that a client may take to send its request or to read the response."""


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

    def __init__(self, address: ListenAddress, page: Callable[[], Page]) -> None:
        self.page = page
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

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system refuses another thread
            self._connections.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        late = threading.Timer(_SECONDS, self.shutdown_request, [request])
        late.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            late.cancel()
            self._connections.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        _log.debug("a request for metrics failed", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    server_version = "userprofile"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="the metrics are at /metrics")
            return
        content, content_type = self.server.page().render(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug(format, *args)
