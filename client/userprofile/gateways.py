"""Responses of a gateway instead of the service: HTTP statuses that gRPC has mapped to its own.

See https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md.
"""

import re
from http import HTTPStatus
from typing import Any

import grpc

_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")

_MEANING = {
    401: "the token is missing or wrong",
    403: "it does not allow this call or this caller",
    404: "it has no route to the service",
    429: "it limits the rate of calls",
    502: "it got no valid response from the service",
    503: "it can't reach the service",
    504: "it got no response from the service in time",
}

_OUTAGES = frozenset({502, 503, 504})


def is_outage(error: Any) -> bool:
    """Returns whether the grpc.RpcError says that a gateway could not get a response from the service."""
    match = _HTTP_STATUS.fullmatch(error.details() or "")
    return error.code() is grpc.StatusCode.UNAVAILABLE and match is not None and int(match[1]) in _OUTAGES


def in_words(details: str) -> str:
    """Returns `details`, or an explanation if they are gRPC's text for an HTTP status."""
    match = _HTTP_STATUS.fullmatch(details)
    if match is None:
        return details
    number = int(match[1])
    name = f" ({HTTPStatus(number).phrase})" if number in set(HTTPStatus) else ""
    meaning = f": {_MEANING[number]}" if number in _MEANING else ""
    return f"A gateway returned HTTP {number}{name} in place of the service{meaning}."
