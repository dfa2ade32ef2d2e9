"""The watch over the hash is itself no good if it can't see: here the canary is let out on purpose."""

import logging
from collections.abc import Iterator

import grpc
import pytest

from tests import canary
from tests.support import CallError, bare_call, run

SECRET = canary.CANARY
pytestmark = pytest.mark.lets_the_canary_out


@pytest.fixture(autouse=True)
def _seen_on_purpose(_canary_stays_unseen: None) -> Iterator[None]:
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


@pytest.mark.parametrize(
    "secret", ["userprofile_a-token-that-is-guarded", "header.claims-of-a-token.its-signature-here"]
)
def test_sees_a_token_that_is_guarded(secret: str) -> None:
    logging.getLogger("userprofile_server").debug("not valid: %s", canary.guard(secret))


def test_sees_a_line_of_a_private_key_that_is_guarded() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n"
    canary.look("somewhere", canary.guard(key).splitlines()[2])
    assert canary.sightings
    canary.look("elsewhere", key.splitlines()[0])
    assert canary.sightings == ["somewhere"]


def test_sees_it_in_a_processes_output() -> None:
    run("python", "-c", f"print({SECRET!r})")


def test_sees_it_in_the_status_of_a_call(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        error = CallError.of(lambda: bare_call(channel, "/unsafe/Raise")(b"", timeout=10))
    assert SECRET in error.message


def test_sees_it_in_a_response(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        bare_call(channel, "/unsafe/Return")(b"", timeout=10)


def test_sees_it_in_a_response_of_a_stream(unsafe_address: str) -> None:
    with grpc.insecure_channel(unsafe_address) as channel:
        call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/unsafe/Stream")
        list(call(b"", timeout=10))


@pytest.fixture
def unsafe_address() -> Iterator[str]:
    """A bare server, as safe as grpc makes it by itself."""
    from concurrent.futures import ThreadPoolExecutor

    def fail(_request: bytes, _context: object) -> bytes:
        raise ValueError(SECRET)

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
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
