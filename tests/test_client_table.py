"""The table of clients/README.md says what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "Python": ["client/userprofile/*.py", "client/userprofile_command/*.py", "docs/python.md"],
    "Go": ["clients/go/*.go", "clients/go/README.md"],
    "Java": ["clients/java/src/main/**/*.java", "clients/java/README.md"],
    "Node.js": ["clients/node/src/*.ts", "clients/node/README.md"],
}
TABLE = (ROOT / "clients/README.md").read_text()
HEADER, _, *ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("|")
]
LANGUAGES = re.findall(r"\[([^]]+)\]", " ".join(HEADER))


def test_no_language_is_missing_and_no_cell_is_empty() -> None:
    assert set(LANGUAGES) == set(SOURCES)
    for row in ROWS:
        assert len(row) == len(HEADER), row
        assert all(row), row


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_name_is_one_of_the_language(language: str) -> None:
    text = "\n".join(path.read_text() for pattern in SOURCES[language] for path in ROOT.glob(pattern))
    column = LANGUAGES.index(language) + 1
    names = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])}
    assert [name for name in sorted(names) if not re.search(rf"\b{re.escape(name)}\b", text)] == []
