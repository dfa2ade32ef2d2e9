"""Fetches an issuer's JWKS from a URL, on its own thread: no call waits for it."""

import http.client
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from userprofile.certificates import read_authorities

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 300.0
ASK_SECONDS = 60.0
"""Minimum seconds between fetches that tokens with unknown keys trigger."""

_FIRST_RETRY = 1.0
_LONGEST_RETRY = 60.0
_TIMEOUT = 10.0
"""Seconds for connecting, and for each wait for more of the response."""

_RESPONSE_SECONDS = 20.0
"""Seconds for the whole response. A header or a chunk that comes byte by byte would last forever."""

_MOST_BYTES = 1024 * 1024


class KeyFetcher:
    """Fetches the keys at the start, every few minutes, and when a token has an unknown key (key rotation)."""

    def __init__(
        self,
        url: str,
        authorities: Path | None,
        on_text: Callable[[str], None],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        ask_seconds: float = ASK_SECONDS,
    ) -> None:
        """Fetches nothing before `start`.

        Args:
            url: The URL of the keys: https, or http on this machine.
            authorities: A PEM file of CAs, reread for each fetch; None for the system's.
            on_text: Called on the thread with each response. Raises ValueError, with a text for operators, if the
                response can't be used.
            refresh_seconds: Seconds between two fetches, with 20 % jitter.
            ask_seconds: Minimum seconds between two fetches, however many tokens have unknown keys.

        Raises:
            ValueError: the file of CAs can't be used. The text is for operators and names the path.
        """
        self._url = url
        self._authorities = authorities
        self._on_text = on_text
        self._refresh_seconds = refresh_seconds
        self._ask_seconds = ask_seconds
        self._current_since = float("-inf")
        self._problem: str | None = None
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="JWT keys", daemon=True)
        _context(authorities)

    def start(self) -> None:
        """Starts the thread, which fetches at once."""
        self._thread.start()

    def stop(self) -> None:
        """Starts no further fetch."""
        self._stopping.set()
        self._asked.set()

    def is_current(self) -> bool:
        """Whether the keys are so recent that a key that isn't among them doesn't exist."""
        return time.monotonic() - self._current_since < self._ask_seconds

    def ask(self) -> None:
        """Requests another fetch, as soon as `ask_seconds` allows."""
        self._asked.set()

    def _run(self) -> None:
        retry = _FIRST_RETRY
        while True:
            began = time.monotonic()
            if self._fetch(began):
                retry, delay, least = _FIRST_RETRY, self._refresh_seconds, self._ask_seconds
            else:
                delay = least = retry
                retry = min(retry * 2, _LONGEST_RETRY)
            self._asked.clear()  # this fetch has served all requests so far
            if self._stopping.is_set():
                return
            # Jitter, so that servers that were started together don't fetch together.
            self._asked.wait(delay * random.uniform(0.8, 1.2))  # noqa: S311
            if self._stopping.wait(max(0.0, began + least - time.monotonic())):
                return

    def _fetch(self, began: float) -> bool:
        try:
            self._on_text(fetch(self._url, self._authorities))
        except ValueError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001, a bug, but the thread must survive
            problem = type(error).__name__
        else:
            if self._problem is not None:
                _log.info("JWT keys fetched again from %s", self._url)
            self._problem = None
            self._current_since = began
            return True
        if problem != self._problem:
            self._problem = problem
            effect = "no JWT can be verified until then"
            if self._current_since > 0:
                effect = "those fetched before stay in use"
            _log.error("JWT keys not fetched from %s: %s; %s", self._url, problem, effect)
        return False


def fetch(location: str, authorities: Path | None) -> str:
    """Returns the text at the URL `location`. Follows no redirects and ignores proxies in the environment.

    Raises:
        ValueError: the text can't be fetched, or can't be keys. The message is for operators, without the URL.
    """
    try:
        return _get(location, _context(authorities))
    except ssl.SSLCertVerificationError as error:
        problem = f"its certificate isn't valid: {error.verify_message}"
    except OSError as error:
        problem = error.strerror or str(error) or type(error).__name__
    except http.client.HTTPException as error:
        problem = type(error).__name__
    raise ValueError(problem)


def _get(location: str, context: ssl.SSLContext) -> str:
    url = urlsplit(location)
    assert url.hostname is not None  # checked with the settings
    connection = (
        http.client.HTTPSConnection(url.hostname, url.port, timeout=_TIMEOUT, context=context)
        if url.scheme == "https"
        else http.client.HTTPConnection(url.hostname, url.port, timeout=_TIMEOUT)
    )
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.connect()
        deadline = time.monotonic() + _RESPONSE_SECONDS
        # `SSLSocket.shutdown` would take away what the read in this thread uses.
        end = threading.Timer(_RESPONSE_SECONDS, socket.socket.shutdown, [connection.sock, socket.SHUT_RDWR])
        end.daemon = True
        end.start()
        try:
            content = _response_to(connection, path)
        except (OSError, http.client.HTTPException, ValueError):
            if time.monotonic() < deadline:
                raise
        else:
            if time.monotonic() < deadline:
                return content.decode(errors="replace")
        finally:
            end.cancel()
    finally:
        connection.close()
    raise TimeoutError(f"the response is not complete after {_RESPONSE_SECONDS:g} s")


def _response_to(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path, headers={"Accept": "application/json", "User-Agent": "userprofile-server"})
    response = connection.getresponse()
    if response.status != http.HTTPStatus.OK:
        redirect = "; redirects aren't followed" if 300 <= response.status < 400 else ""
        raise ValueError(f"the response has the HTTP status {response.status}{redirect}")
    content = b""
    while piece := response.read1(_MOST_BYTES):
        content += piece
        if len(content) > _MOST_BYTES:
            raise ValueError(f"the response is larger than any set of keys ({_MOST_BYTES} bytes)")
    if response.length:
        raise ValueError("the response was cut off")
    return content


def _context(authorities: Path | None) -> ssl.SSLContext:
    if authorities is None:
        return ssl.create_default_context()
    try:
        read_authorities(authorities)
    except OSError as error:
        problem = error.strerror
    else:
        context = ssl.create_default_context(cafile=authorities)
        # Python 3.13 sets this flag, but private CAs often lack the extensions that it requires.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context
    raise ValueError(f"{authorities} can't be read: {problem}")
