"""One version, pyproject.toml's, in what every language publishes and in what the guides say."""

import pytest

from tools import versions


@pytest.mark.parametrize("file", versions.PLACES)
def test_it_is_that_of_pyproject(file: str) -> None:
    assert versions.updated(file) == (versions.ROOT / file).read_text(), "run: make docs"
