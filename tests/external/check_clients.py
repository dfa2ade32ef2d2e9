"""The clients in other languages, each by its own tests, against the real server: `make test-clients`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import look
from tests.client_conformance import identities, serve

ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / "clients"
CONTRACTS = ROOT / "protos/userprofile/v1/service_config.json"
EMBEDDED = {
    "go": "gen/userprofile/v1/service_config.json",
    "node": "src/gen/service_config.ts",
    "java": "target/classes/userprofile/v1/service_config.json",
}
"""Where each build has put the contract's service config."""

COMMANDS = {
    "go": ["go", "test", "-race", "-count=1", "-timeout", "400s", "./..."],
    "node": ["npm", "test", "--ignore-scripts"],  # without the build, which make has done
    "java": ["mvn", "--batch-mode", "--quiet", "verify"],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the tests of all languages take from it."""
    folder = tmp_path_factory.mktemp("identities")
    with serve() as address, identities.serve(folder):
        yield os.environ | {
            "USERPROFILE_TARGET": address,
            "USERPROFILE_IDENTITIES": str(folder),
            "USERPROFILE_SKIP_NOTHING": "1",
        }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", COMMANDS)
def test_client(environment: dict[str, str], language: str) -> None:
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
    embedded = (CLIENTS / language / EMBEDDED[language]).read_text()
    assert embedded.removeprefix("export default ") == CONTRACTS.read_text()
