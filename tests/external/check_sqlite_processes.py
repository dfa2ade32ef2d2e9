"""Other processes on the file that a server reads, for a while: `make test-sqlite-processes SECONDS=300`.

Each of them opens the file and closes it, over and over, while the server serves up to 50 calls a second. Whatever
they do, an import is seen by the next call, nobody who was imported is ever NOT_FOUND, and the file stays whole.
"""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.fork_server import BIN
from tests.support import GetUser, ServerProcess, document, documents_in, run

SECONDS = float(os.environ.get("SECONDS", "20"))
PAUSE = 0.2
CALLS_PER_SECOND = 50
AGAIN = 8
"""Calls after each import: all four workers of the server get some."""

pytestmark = pytest.mark.timeout(SECONDS + 120)


class Trial:
    """What was done, and what of it was seen wrong."""

    def __init__(self, path: Path, get_user: GetUser) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._get_user = get_user
        self._imported = ["johndoe"]
        self._killed = 0

    def read(self) -> None:
        self.expect(random.choice(self._imported), None)

    def expect(self, username: str, full_name: str | None) -> None:
        """Reads a user who has to exist; None stands for any name."""
        try:
            user = self._get_user(username)
        except grpc.RpcError as error:
            self.faults.append(f"{username}: {error!r}")
        else:
            if full_name is not None and user.full_name != full_name:
                self.faults.append(f"{username}: {user.full_name!r} instead of {full_name!r}")

    def import_one(self) -> None:
        """Adds a user, and changes one whom the server has read before."""
        name = f"Version {len(self._imported)}"
        added = f"user{len(self._imported)}"
        rows = b"\n".join([document(added, full_name=name), document("changing", full_name=name)])
        self._program("import", "-", stdin=rows)
        for _ in range(AGAIN):
            self.expect(added, name)
            self.expect("changing", name)
        self._imported.append(added)

    def kill_an_import(self) -> None:
        """At a random moment, by SIGKILL."""
        self._killed += 1
        users = [f"killed{self._killed}-{number}" for number in range(20_000)]
        rows = self.path.with_name(f"rows{self._killed}.jsonl")
        rows.write_bytes(b"\n".join(document(username) for username in users))
        command = [str(BIN / "userprofile-server"), "import", str(rows), "--store", self.url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(random.uniform(0.2, 3))
            process.kill()
        rows.unlink()

    def check(self) -> None:
        self._program("check")

    def back_up(self) -> None:
        self._in_python("sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))", "backup.db")

    def vacuum_into(self) -> None:
        self._in_python("sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', [sys.argv[2]])", "vacuumed.db")

    def open_and_close(self) -> None:
        self._in_python("sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM userprofiles').fetchone()")

    def _program(self, command: str, *arguments: str, stdin: bytes | None = None) -> None:
        done = run("userprofile-server", command, *arguments, "--store", self.url, stdin=stdin)
        if done.returncode:
            self.faults.append(f"{command}: {done.stderr}")

    def _in_python(self, code: str, copy: str = "") -> None:
        copied = self.path.with_name(copy or "none")
        done = subprocess.run(
            [sys.executable, "-c", f"import sqlite3, sys\n{code}", self.path, copied],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            self.faults.append(f"{copy or 'open and close'}: {done.stderr}")
        elif copy:
            if (problems := integrity(copied)) != [("ok",)]:
                self.faults.append(f"{copy}: {problems}")
            copied.unlink()


def integrity(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


def test_a_server_sees_every_import_whatever_other_processes_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "users.db"
    documents_in(f"sqlite:///{path}", {"johndoe": {}, "changing": {}})
    with (
        ServerProcess(f"sqlite:///{path}", "--workers", "4") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        trial = Trial(path, GetUser(channel))
        end = time.monotonic() + SECONDS

        def repeat(what: Callable[[], None], pause: float) -> None:
            while time.monotonic() < end:
                try:
                    what()
                except Exception as error:  # a thread that ends must not look like one that found nothing
                    trial.faults.append(f"{what.__name__}: {error!r}")
                trial.counts[what.__name__] += 1
                time.sleep(pause)

        actors = [trial.import_one, trial.kill_an_import, trial.check, trial.back_up, trial.vacuum_into]
        actors.append(trial.open_and_close)
        threads = [threading.Thread(target=repeat, args=(actor, PAUSE)) for actor in actors]
        threads.append(threading.Thread(target=repeat, args=(trial.read, 1 / CALLS_PER_SECOND)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with capsys.disabled():
        print(f"\n{SECONDS:g} s: {dict(trial.counts)}, {len(trial.faults)} faults")
    assert not trial.faults, trial.faults[:20]
    assert trial.counts["import_one"] > 0
    assert integrity(path) == [("ok",)]
