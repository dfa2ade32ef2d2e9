"""The watch over the hash is itself no good if it can't see: here the canary is let out on purpose."""

import logging

import grpc
import pytest

from tests import canary
from tests.support import CallError, run

SECRET = canary.CANARY
pytestmark = pytest.mark.lets_the_canary_out


@pytest.fixture(autouse=True)
def _seen_on_purpose(_canary_stays_unseen: None) -> None:
    yield
    assert canary.sightings
    canary.sightings.clear()


def test_sees_it_in_a_log_record_below_every_level() -> None:
    logging.getLogger("userprofile_server.anything").debug("read %s", SECRET)


def test_sees_it_in_an_exception_that_was_logged() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("userprofile_server").debug("failed", exc_info=True)


def test_sees_it_in_the_context_of_an_exception() -> None:
    with canary.raises(KeyError):
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise KeyError("harmless") from None


def test_sees_it_in_what_an_exceptions_errors_return() -> None:
    class DetailedError(Exception):
        def errors(self) -> list[str]:
            return [SECRET]

    with canary.raises(DetailedError):
        raise DetailedError


def test_sees_it_in_a_processes_output() -> None:
    run("python", "-c", f"print({SECRET!r})")


def test_sees_it_in_the_status_of_a_call(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        error = CallError.of(lambda: channel.unary_unary("/unsafe/Raise")(b"", timeout=10))
    assert SECRET in error.message


def test_sees_it_in_a_response(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        channel.unary_unary("/unsafe/Return")(b"", timeout=10)


def test_sees_it_in_a_response_of_a_stream(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        list(channel.unary_stream("/unsafe/Stream")(b"", timeout=10))


@pytest.fixture
def unsafe_address() -> str:
    """A bare server, as safe as grpc makes it by itself."""
    from concurrent.futures import ThreadPoolExecutor

    def fail(_request: bytes, _context: object) -> bytes:
        raise ValueError(SECRET)

    handlers = {
        "Raise": grpc.unary_unary_rpc_method_handler(fail),
        "Stream": grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter([SECRET.encode()])),
        "Return": grpc.unary_unary_rpc_method_handler(lambda _request, _context: SECRET.encode()),
    }
    with ThreadPoolExecutor(1) as executor:
        server = grpc.server(executor, handlers=[grpc.method_handlers_generic_handler("unsafe", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()
