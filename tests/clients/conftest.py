import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.twins import MakeClient, making


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes UserProfileClients, and in a second round of all tests AsyncUserProfileClients."""
    with making(request.param) as make:
        yield make


@pytest.fixture
def client(make_client: MakeClient, address: str) -> Any:
    """A client of the real server."""
    return make_client(address)


@pytest.fixture
def unused_target() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"
