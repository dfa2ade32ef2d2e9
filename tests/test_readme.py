"""What the README and other pages say in tables is what the code does."""

from pathlib import Path

import pytest

from docs.update_readme import TABLES, updated


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.name)
def test_the_tables_are_the_codes_own(page: Path) -> None:
    assert updated(page) == page.read_text(), "run: make docs"
