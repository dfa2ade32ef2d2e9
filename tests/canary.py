"""The canary: the `hashed_password` of every document in these tests, which must never be seen again.

Tokens and private keys of tests are watched for like it, by `guard`. The whole run is watched (see conftest.py): every
response and its metadata, whatever a test or a process of its prints, every log record at every level, and every
exception that `raises` catches.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

CANARY = "$argon2id$v=19$m=65536,t=3,p=4$Y2FuYXJ5$canary-that-nobody-may-ever-see"
PASSWORD_CANARY = "password-canary-that-nobody-may-ever-see"

_NEEDLES = {"canary-that-nobody-may-ever-see"}
_SHORTEST = 16

sightings: list[str] = []
"""Where the canary was seen. Each test ends by asserting that this is empty."""


def guard(secret: str) -> str:
    """Returns `secret`, a token or a private key in PEM, of which no part may be seen from now on."""
    # The header of a JSON Web Token is no secret, and neither are a key's first and last line.
    parts = secret.split(".")[1:] if secret.count(".") == 2 else secret.splitlines()
    _NEEDLES.update(part for part in parts if len(part) >= _SHORTEST and not part.startswith("-----"))
    return secret


def look(place: str, found: object) -> None:
    """Notes a sighting if a canary is in `found`, which may be text, bytes, a message or an exception."""
    needles = tuple(_NEEDLES)  # other threads may add some
    if any(needle in text for text in _texts(found) for needle in needles):
        sightings.append(place)


def _texts(found: object) -> Iterator[str]:
    if isinstance(found, bytes):
        yield found.decode("latin-1")
    elif isinstance(found, Message):
        yield found.SerializeToString().decode("latin-1")
    elif isinstance(found, BaseException):
        yield from _texts_of_exception(found)
    else:
        yield str(found)


def _texts_of_exception(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    if error is None or id(error) in seen:
        return
    seen |= {id(error)}
    yield from (str(error), repr(error), repr(error.args), repr(getattr(error, "__dict__", {})))
    errors = getattr(error, "errors", None)
    if callable(errors):
        yield repr(errors())
    yield from _texts_of_exception(error.__cause__, seen)
    yield from _texts_of_exception(error.__context__, seen)


@contextmanager
def raises(kind: type[BaseException], match: str | None = None) -> Iterator["pytest.ExceptionInfo[Any]"]:
    """pytest.raises, which also looks for the canary in the exception, its chain and its `errors()`."""
    with pytest.raises(kind, match=match) as caught:  # noqa: TID251, this is the one place
        yield caught
    look(f"exception {kind.__name__}", caught.value)


class LogWatcher(logging.Handler):
    """Looks at every record of every level, arguments and exception included."""

    def emit(self, record: logging.LogRecord) -> None:
        look(f"log record of {record.name}", record.getMessage())
        if record.exc_info and record.exc_info[1]:
            look(f"exception in a log record of {record.name}", record.exc_info[1])


class ResponseWatcher(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Looks at every response, status and metadata that a client of these tests receives.

    Reflection, the one method that streams both ways, is left out: it never comes near a store.
    """

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        call.add_done_callback(self._look_at_response)
        return call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _WatchedStream(continuation(details, request))

    @classmethod
    def _look_at_response(cls, call: Any) -> None:
        cls._look_at(call)
        if call.code() is grpc.StatusCode.OK:
            look("response", call.result())

    @staticmethod
    def _look_at(call: Any) -> None:
        look("status message", call.details())
        for key, value in [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]:
            look(f"metadata {key}", value)


class _WatchedStream:
    """A streaming call of which every response is looked at."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> "_WatchedStream":
        return self

    def __next__(self) -> Any:
        try:
            response = next(self._call)
        except (StopIteration, grpc.RpcError):
            # Not in a callback: grpc's thread would wait for metadata that it has to receive itself.
            ResponseWatcher._look_at(self._call)
            raise
        look("response of a stream", response)
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def watched(insecure_channel: Callable[..., grpc.Channel]) -> Callable[..., grpc.Channel]:
    """Makes of grpc.insecure_channel one whose channels are watched."""

    @functools.wraps(insecure_channel)
    def insecure_channel_watched(*args: Any, **kwargs: Any) -> grpc.Channel:
        return grpc.intercept_channel(insecure_channel(*args, **kwargs), ResponseWatcher())

    return insecure_channel_watched
