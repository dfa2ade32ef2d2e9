"""The clients in other languages, each by its own tests, against the real server: `make test-clients`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour import TABLE, serve
from tests.canary import look

CLIENTS = Path(__file__).parent.parent.parent / "clients"

COMMANDS = {
    "go": ["go", "test", "-count=1", "-timeout", "400s", "./..."],
    "node": ["npm", "test"],
    "java": ["mvn", "--batch-mode", "--quiet", "verify"],
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", COMMANDS)
def test_client(target: str, language: str) -> None:
    environment = os.environ | {"USERPROFILE_TARGET": target, "USERPROFILE_BEHAVIOUR": str(TABLE)}
    done = subprocess.run(
        COMMANDS[language],
        cwd=CLIENTS / language,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=850,
        check=False,
    )
    look(f"tests of the {language} client", done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:]
