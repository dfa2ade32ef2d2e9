"""`userprofile-server import`, run as a process, and what can be read afterwards."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import argon2
import pytest

from tests.canary import CANARY, PASSWORD_CANARY, raises
from tests.couchbase_node import TestCluster
from tests.couchbase_node.protocol import Opcode
from tests.fork_server import BIN
from tests.store_contract.stores import SQLiteUnderTest
from tests.support import eventually, open_url, run
from userprofile_server.errors import DocumentsRefusedError
from userprofile_server.importing import Importer, importer
from userprofile_server.stores.base import Document
from userprofile_server.users.lookup import get_user

Rows = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> SQLiteUnderTest:
    store = SQLiteUnderTest(tmp_path)
    store.open().close()
    return store


def import_(path: object, store: SQLiteUnderTest, *args: str, **kwargs: Any) -> "subprocess.CompletedProcess[str]":
    return run("userprofile-server", "import", path, "--store", store.settings.store.url, *args, **kwargs)


def stored(store: SQLiteUnderTest, username: str) -> Any:
    content = store.stored(f"userprofile::{username}")
    return None if content is None else json.loads(content)


def row(username: object = "johndoe", **fields: object) -> dict[str, object]:
    return {"username": username, "hashed_password": CANARY, **fields}


def test_a_hash_is_stored_as_it_is_and_the_type_added(store: SQLiteUnderTest, rows: Rows) -> None:
    done = import_(rows(row(email="j@example.com")), store)
    assert (done.returncode, done.stdout) == (0, "1 user imported (0 replaced an older one), 0 rows rejected\n")
    assert done.stderr == ""
    assert stored(store, "johndoe") == row(email="j@example.com", type="userprofile")


def test_a_document_that_lacks_the_type_is_kept_to_the_byte_all_the_same(store: SQLiteUnderTest, rows: Rows) -> None:
    import_(rows(b'{"username":"johndoe", "hashed_password": "h", "n": 1.10 }'), store)
    assert store.stored("userprofile::johndoe") == (
        b'{"username":"johndoe", "hashed_password": "h", "n": 1.10 , "type": "userprofile"}'
    )


def test_a_file_that_cannot_be_read_is_said_in_a_line(store: SQLiteUnderTest) -> None:
    done = import_("/proc/self/mem", store)
    assert done.returncode == 3
    assert done.stderr == "error: /proc/self/mem can't be read: Input/output error\n"
    assert done.stdout.startswith("0 users imported")


def test_a_password_is_hashed_and_not_stored(store: SQLiteUnderTest, rows: Rows) -> None:
    assert import_(rows({"username": "johndoe", "password": PASSWORD_CANARY}), store).returncode == 0
    document = stored(store, "johndoe")
    assert document.keys() == {"username", "hashed_password", "type"}
    assert document["hashed_password"].startswith("$argon2id$")
    assert argon2.PasswordHasher().verify(document["hashed_password"], PASSWORD_CANARY)


def test_an_exported_document_moves_unchanged_to_the_byte(store: SQLiteUnderTest, rows: Rows) -> None:
    line = (
        b'{"type": "userprofile",  "username":"johndoe", "hashed_password": "h", "n":1.10, '
        b'"admin_roles": ["a"], "email": null, "text": "\\u00e9"}'
    )
    done = import_(rows(line, row("alice", admin_roles=[], emial="typo")), store)
    assert store.stored("userprofile::johndoe") == line
    assert "check them for typos: admin_roles (2 rows), n (1 row), text (1 row), emial (1 row)" in done.stdout


BAD_ROWS: list[tuple[object, str]] = [
    (CANARY.encode(), "not JSON: Expecting value at column 1"),
    (b'{"username": "a", "hashed_password": "h"', "not JSON"),
    (b'["h"]', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'{"username": "\xff", "hashed_password": "h"}', "not UTF-8"),
    (b'{"username": "a", "username": "b", "hashed_password": "h"}', "duplicate field"),
    (b'{"username": "a", "hashed_password": "h", "n": NaN}', "NaN is not a number in JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"username": "a", "hashed_password": "h", "n": ' + b"[" * 500 + b"]" * 500 + b"}", "recursion limit"),
    (b'{"username": "a", "hashed_password": "h", "n": ' + b"1" * 5000 + b"}", "unsupported JSON"),
    (b'{"username": "a", "password": "p", "n": 1e999}', "a number out of range"),
    (b'{"username": "a", "password": "p", "x": "\\ud800"}', "valid Unicode"),
    (b'{"username": "a", "hashed_password": "h", "x": "\\ud800"}', "Invalid JSON"),
    (b'{"username": "a", "hashed_password": "h", "Password": "p"}', "a field name is almost password"),
    (b'{"username": "\\ud800", "hashed_password": "h"}', "username: must be valid Unicode"),
    (b'{"username": "a", "password": "\\ud800"}', "password: must be valid Unicode"),
    (row(type="order"), "type: Input should be 'userprofile'"),
    (row(type=None), "type: Input should be 'userprofile'"),
    (row(disabled="yes"), "disabled: Input should be a valid boolean"),
    (row(email=7), "email: Input should be a valid string"),
    ({"hashed_password": CANARY}, "username: Field required"),
    (row(username=None), "username: Input should be a valid string"),
    (row(username=""), "username: must not be empty"),
    (row(username="a\nb"), "username: must not contain control characters"),
    (row(username="x" * 234), "username: must not be longer than 233 bytes"),
    (row(password=PASSWORD_CANARY), "needs either password or hashed_password, not both"),
    ({"username": "a", "password": ""}, "password: must be a non-empty string"),
    ({"username": "a", "password": 7}, "password: must be a non-empty string"),
    ({"username": "a", "hashed_password": ""}, "hashed_password: must not be empty"),
    ({"username": "a", "hashed_password": [CANARY]}, "hashed_password: Input should be a valid string"),
]


def test_bad_rows_are_reported_one_by_one_and_do_not_stop_the_others(store: SQLiteUnderTest, rows: Rows) -> None:
    lines: list[object] = []
    for number, (bad, _) in enumerate(BAD_ROWS):
        if isinstance(bad, bytes):  # secrets in raw rows too
            bad = bad.replace(b'"h"', f'"{CANARY}"'.encode()).replace(b'"p"', f'"{PASSWORD_CANARY}"'.encode())
        lines += [row(f"good{number}"), bad]
    done = import_(rows(*lines), store)
    reported = done.stderr.splitlines()
    assert len(reported) == len(BAD_ROWS)
    for number, (line, (bad, reason)) in enumerate(zip(reported, BAD_ROWS, strict=True)):
        assert line.startswith(f"line {2 * number + 2}: "), bad
        assert reason in line, bad
        assert stored(store, f"good{number}")
    assert done.returncode == 1
    count = len(BAD_ROWS)
    assert done.stdout.startswith(f"{count} users imported (0 replaced an older one), {count} rows rejected\n")


def test_a_line_larger_than_any_store_takes_is_rejected_and_skipped(store: SQLiteUnderTest, rows: Rows) -> None:
    done = import_(rows(row("first"), row("big", padding="x" * 21 * 1024 * 1024), row("last")), store)
    assert done.stderr == "line 2: longer than 20971520 bytes\n"
    assert done.returncode == 1
    assert stored(store, "last")


def test_a_profile_that_could_not_be_served_is_rejected(store: SQLiteUnderTest, rows: Rows) -> None:
    large = [row("large", full_name="x" * 40_000), row("wordy", notes="x" * 40_000)]
    done = import_(rows(*large), store)
    assert done.returncode == 1
    assert "line 1: the profile is too large: its string fields have 40005 bytes, the limit is 32768" in done.stderr
    assert done.stdout.startswith("1 user imported (0 replaced an older one), 1 row rejected")


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_no_mistakes(store: SQLiteUnderTest) -> None:
    text = b"\xef\xbb\xbf" + json.dumps(row("first")).encode() + b"\r\n\r\n   \n" + json.dumps(row("last")).encode()
    done = import_("-", store, stdin=text)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "2 users imported (0 replaced an older one), 0 rows rejected",
    )
    assert stored(store, "last")


def test_nothing_to_import_is_fine(store: SQLiteUnderTest) -> None:
    done = import_("-", store, stdin=b"")
    assert (done.returncode, done.stdout) == (0, "0 users imported (0 replaced an older one), 0 rows rejected\n")


def test_importing_again_replaces(store: SQLiteUnderTest, rows: Rows) -> None:
    import_(rows(row(email="old")), store)
    done = import_(rows(row(email="new"), row("alice")), store)
    assert done.stdout.startswith("2 users imported (1 replaced an older one)")
    assert stored(store, "johndoe")["email"] == "new"


def test_a_dry_run_checks_everything_and_stores_nothing(tmp_path: Path, rows: Rows) -> None:
    path = tmp_path / "never.db"
    file = rows(row(), {"username": "alice", "password": PASSWORD_CANARY}, b"bad")
    done = run("userprofile-server", "import", file, "--dry-run", "--store", f"sqlite:///{path}")
    assert (done.returncode, done.stdout) == (1, "2 users could be imported, 1 row rejected\n")
    assert not path.exists()


def test_a_store_that_cannot_be_opened_is_said_in_a_line(tmp_path: Path, rows: Rows) -> None:
    done = run("userprofile-server", "import", rows(row()), "--store", f"sqlite:///{tmp_path}/missing/users.db")
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == "0 users imported (0 replaced an older one), 0 rows rejected\n"


def test_a_missing_file_is_said_in_a_line(store: SQLiteUnderTest) -> None:
    done = import_("missing.jsonl", store)
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_what_is_reported_as_imported_survives_an_interrupt(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'users.db'}"
    process = subprocess.Popen(
        [BIN / "userprofile-server", "import", "-", "--store", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    for number in range(2500):
        process.stdin.write(json.dumps(row(f"user{number}")).encode() + b"\n")
    process.stdin.flush()

    def count() -> int:
        store = open_url(url)
        found = 0
        for number in (999, 1999):
            try:
                get_user(store, f"user{number}", timeout=5)
                found += 1
            except Exception:
                break
        store.close()
        return found

    eventually(lambda: count() == 2, "two batches are stored", timeout=30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == b"interrupted\n"
    imported = int(stdout.split()[0])
    assert imported >= 1000
    store = open_url(url)
    for number in range(imported):
        assert get_user(store, f"user{number}", timeout=5)
    store.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_does_not_wait_for_a_store_that_is_at_work_and_the_summary_says_so(number: int) -> None:
    credentials = {
        "USERPROFILE_SERVER_COUCHBASE_USERNAME": "username",
        "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password",
    }
    with TestCluster() as cluster:
        cluster.fault(delay=3600)
        process = subprocess.Popen(
            [BIN / "userprofile-server", "import", "-", "--store", f"couchbase://{cluster.hosts}/default"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | credentials,
        )
        assert process.stdin is not None
        process.stdin.write(b"".join(json.dumps(row(f"user{each}")).encode() + b"\n" for each in range(1500)))
        process.stdin.flush()
        eventually(lambda: cluster.nodes[0].requests.get(Opcode.ADD), "a batch is being stored")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)  # less than the store's own timeout
    assert process.returncode == 128 + number
    assert stderr == b"interrupted\n"
    assert stdout.decode().splitlines() == [
        "0 users imported (0 replaced an older one), 0 rows rejected",
        "1000 more users may or may not be stored: the store was still writing",
    ]


def test_a_batch_that_is_stored_just_after_an_interrupt_is_counted(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_INTERRUPTED_SECONDS", 60)

    class Store:
        def put(self, documents: list[object], *, timeout: float) -> int:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.2)
            return len(documents)

    job = Importer(report=print, advance=lambda _size: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with rows(row("johndoe")).open("rb") as file, raises(KeyboardInterrupt):
            job.run(file, Store())  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, before)
    assert (job.imported, job.replaced, job.unsure) == (1, 1, 0)


def test_an_interrupt_while_a_refused_row_is_reported_takes_nothing_from_the_count(rows: Rows) -> None:
    class Store:
        def put(self, documents: list[Document], *, timeout: float) -> int:
            raise DocumentsRefusedError({documents[0].key: "too large"}, replaced=1)

    def report(_line: str) -> None:
        raise KeyboardInterrupt

    job = Importer(report=report, advance=lambda _size: None)
    with rows(row("a"), row("b"), row("c")).open("rb") as file, raises(KeyboardInterrupt):
        job.run(file, Store())  # type: ignore[arg-type]
    assert (job.imported, job.replaced, job.rejected, job.unsure) == (2, 1, 1, 0)


def test_rows_that_take_long_to_hash_are_stored_before_the_batch_is_full(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    puts: list[int] = []

    class Store:
        def put(self, documents: list[object], *, timeout: float) -> int:
            puts.append(len(documents))
            return 0

    job = Importer(report=print, advance=lambda _size: None)
    with rows(*(row(f"user{number}") for number in range(3))).open("rb") as file:
        job.run(file, Store())  # type: ignore[arg-type]
    assert sum(puts) == 3
    assert len(puts) >= 3


def test_progress_counts_every_byte_of_the_file(store_url: str, rows: Rows) -> None:
    path = rows(*(row(f"user{number}") for number in range(2500)), b"bad")
    seen: list[int] = []
    store = open_url(store_url)
    with path.open("rb") as file:
        Importer(report=lambda _line: None, advance=seen.append).run(file, store)
    store.close()
    assert len(seen) >= 3
    assert sum(seen) == path.stat().st_size
