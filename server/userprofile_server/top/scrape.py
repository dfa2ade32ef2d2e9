"""Reads the page of metrics of a running server."""

import http.client
import io
import math
import socket
import time
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from userprofile_server.listen import ListenAddress
from userprofile_server.telemetry.metrics import METRICS

_SECONDS = 5.0
_MOST_BYTES = 16 * 1024 * 1024
"""The page of 16 processes has less than 1 MB."""

_PATH = "/metrics"
_REQUEST = f"GET {_PATH} HTTP/1.0\r\nAccept: text/plain\r\n\r\n".encode()

_SAMPLES = frozenset(
    f"{metric.name}{suffix}"
    for metric in METRICS
    for suffix in (("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",))
)

Labels = frozenset[tuple[str, str]]


class ScrapeError(Exception):
    """Raised if there is no page. The text is for operators."""


@dataclass(frozen=True)
class Scrape:
    """The samples of a page."""

    at: float
    """When it was read, in seconds of the monotonic clock."""
    samples: dict[tuple[str, Labels], float]
    """The values by name and labels."""


def scrape(address: ListenAddress) -> Scrape:
    """Reads the page.

    Raises:
        ScrapeError: nobody responds, or not with metrics of userprofile.
    """
    return parsed(str(address), _get(address), time.monotonic())


def parsed(address: str, text: str, at: float) -> Scrape:
    """Returns the samples of a page that was read at this time. Raises ScrapeError if it isn't one of userprofile."""
    try:
        families = list(text_string_to_metric_families(text))
    except Exception:  # noqa: BLE001, the parser raises whatever comes out of a page that isn't one
        families = []
    if not any(family.name.startswith("userprofile_") for family in families):
        raise ScrapeError(f"http://{address}{_PATH} has no metrics of userprofile")
    samples = [sample for family in families for sample in family.samples if sample.name in _SAMPLES]
    for sample in samples:
        bound = sample.labels.get("le", "") if sample.name.endswith("_bucket") else "0"
        if not (0 <= sample.value < math.inf and _is_bound(bound)):
            raise ScrapeError(f"http://{address}{_PATH} has a wrong value of {sample.name}")
    return Scrape(at, {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


def _is_bound(bound: str) -> bool:
    """Returns whether a bucket of durations can have this upper bound."""
    try:
        return float(bound) >= 0
    except ValueError:
        return False


def _get(address: ListenAddress) -> str:
    # Not urllib, which would ask a proxy, nor HTTPConnection, whose time limit is for each read of the headers.
    try:
        with socket.create_connection((address.host, address.port or 0), _SECONDS) as connection:
            connection.sendall(_REQUEST)
            response = http.client.HTTPResponse(_Received(_read(connection)))  # type: ignore[arg-type]
        response.begin()
        content = response.read()
    except TimeoutError:
        raise ScrapeError(f"{address} does not respond within {_SECONDS:g} s") from None
    except http.client.HTTPException:
        raise ScrapeError(f"{address} does not speak HTTP, or has closed the connection") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: of a host name that can't be one
        reason = getattr(error, "strerror", None) or str(error)
        raise ScrapeError(f"{address} does not respond: {reason}") from None
    if response.status != http.client.OK:
        raise ScrapeError(f"http://{address}{_PATH} responds with status {response.status}")
    return content.decode(errors="replace")


def _read(connection: socket.socket) -> bytes:
    """Returns what is sent. Raises TimeoutError if it doesn't end in time, however slowly it comes."""
    content, deadline = bytearray(), time.monotonic() + _SECONDS
    while part := connection.recv(65_536):
        content += part
        left = deadline - time.monotonic()
        if len(content) > _MOST_BYTES or left <= 0:
            raise TimeoutError
        connection.settimeout(left)
    return bytes(content)


class _Received:
    """What HTTPResponse needs of a socket."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._content)
