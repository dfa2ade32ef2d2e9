"""The fixture for pytest: `pytest_plugins = ["userprofile.pytest_plugin"]` in the outermost conftest.py."""

from collections.abc import Iterator

import pytest

from userprofile.testing import FakeUserProfileServer


@pytest.fixture
def fake_userprofile() -> Iterator[FakeUserProfileServer]:
    """A running server without users; `fake_userprofile.target` is its address."""
    with FakeUserProfileServer() as server:
        yield server
