"""The pytest fixture: put `pytest_plugins = ["userprofile.pytest_plugin"]` into the outermost conftest.py."""

from collections.abc import Iterator

import pytest

from userprofile.testing import FakeUserProfileServer


@pytest.fixture
def fake_userprofile() -> Iterator[FakeUserProfileServer]:
    """A running fake server without users; `fake_userprofile.target` is its address."""
    with FakeUserProfileServer() as server:
        yield server
