"""Tables that a target prints at its end, for a person to judge."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def printed(request: pytest.FixtureRequest, *title: str) -> Iterator[list[str]]:
    """Yields the list of rows, and prints it at the end though pytest captures output."""
    rows: list[str] = []
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join([*title, *rows]))
