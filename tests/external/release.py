"""What `make release` has built, and what all of `make release-check` needs to try it."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import ServerProcess, run
from tools.versions import ROOT, VERSION

RELEASE = ROOT / "build/release"
__all__ = ["RELEASE", "ROOT", "VERSION", "blocks", "command", "demo", "demo_server"]


def blocks(readme: str, language: str) -> list[str]:
    """Returns the blocks of a README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / readme).read_text(), re.MULTILINE | re.DOTALL)


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """Serves the users of `make run` from a file in `folder`. Yields the address."""
    with demo_server(folder) as server:
        yield server.address


def demo_server(folder: Path, *options: str) -> ServerProcess:
    """Returns the server of `demo`, with these options."""
    store = f"sqlite:///{folder}/demo.db"
    assert run("userprofile-server", "import", str(ROOT / "demo/users.jsonl"), "--store", store).returncode == 0
    return ServerProcess(store, *options)


def command(line: str, folder: Path, **environment: str) -> str:
    """Runs a command, which must succeed; returns what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("USERPROFILE_")}
    done = subprocess.run(
        line.split(), cwd=folder, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout
