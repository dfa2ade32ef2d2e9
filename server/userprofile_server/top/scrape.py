"""Reads the page of metrics of a running server."""

import http.client
import time
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from userprofile_server.listen import ListenAddress

_SECONDS = 5.0
_MOST_BYTES = 16 * 1024 * 1024
"""The page of 16 processes has less than 1 MB."""

_PATH = "/metrics"

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
    samples = (sample for family in families for sample in family.samples)
    return Scrape(at, {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


def _get(address: ListenAddress) -> str:
    # Not urllib, which would ask a proxy.
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    try:
        connection.request("GET", _PATH, headers={"Accept": "text/plain"})
        response = connection.getresponse()
        content = _read(response)
    except TimeoutError:
        raise ScrapeError(f"{address} does not respond within {_SECONDS:g} s") from None
    except http.client.HTTPException:
        raise ScrapeError(f"{address} does not speak HTTP, or has closed the connection") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: of a host name that can't be one
        reason = getattr(error, "strerror", None) or str(error)
        raise ScrapeError(f"{address} does not respond: {reason}") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ScrapeError(f"http://{address}{_PATH} responds with status {response.status}")
    return content.decode(errors="replace")


def _read(response: http.client.HTTPResponse) -> bytes:
    """Returns the content. Raises TimeoutError if it doesn't end in time, however slowly it comes."""
    content, deadline = b"", time.monotonic() + _SECONDS
    while part := response.read1(_MOST_BYTES):
        content += part
        if len(content) > _MOST_BYTES or time.monotonic() > deadline:
            raise TimeoutError
    return content
