"""What the README says is what the code does."""

from docs.update_readme import README, updated


def test_the_tables_are_the_codes_own() -> None:
    text = README.read_text()
    assert updated(text) == text, "run: make docs"
