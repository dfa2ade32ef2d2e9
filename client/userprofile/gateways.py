"""What answers in place of the service: a gateway, by an HTTP status that gRPC has made one of its own out of.

See https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md.
"""

import re
from http import HTTPStatus

_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")

_MEANING = {
    401: "the token is missing or wrong",
    403: "it lets this call, or this caller, not through",
    404: "it has no route to the service",
    429: "it takes fewer calls than these",
    502: "it gets no answer from the service",
    503: "the service is not available to it",
    504: "the service took longer than it waits",
}


def in_words(details: str) -> str:
    """Returns `details`, or what they mean if they are gRPC's for an HTTP status."""
    match = _HTTP_STATUS.fullmatch(details)
    if match is None:
        return details
    number = int(match[1])
    name = f" ({HTTPStatus(number).phrase})" if number in set(HTTPStatus) else ""
    meaning = f": {_MEANING[number]}" if number in _MEANING else ""
    return f"A gateway answered HTTP {number}{name} in place of the service{meaning}."
