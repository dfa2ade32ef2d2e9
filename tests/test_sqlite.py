"""The SQLite store's own ways to fail. What every store must do is in tests/store_contract."""

import os
import resource
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.canary import raises
from tests.support import document, documents_in, open_url, run, settings_for, user_document
from userprofile_server.errors import (
    StoreDamagedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from userprofile_server.server import UserProfileServer
from userprofile_server.stores import open_store
from userprofile_server.stores.base import Document
from userprofile_server.users.lookup import get_user

JOHNDOE = [user_document("johndoe")]


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def make(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    "bad",
    ["", "users.db", "sqlite:", "sqlite://", "sqlite:///", "sqlite://users.db", "redis://x"],
)
def test_a_url_that_is_none_is_refused(bad: str) -> None:
    with raises(StoreMisconfiguredError, match="URL"):
        open_url(bad)


@pytest.mark.parametrize("bad", ["sqlite:///a.db?mode=ro", "sqlite:////b?/c.db", "sqlite:///a#1.db", "sqlite://a.db?x"])
def test_a_url_with_a_question_or_number_sign_is_refused_for_it(bad: str) -> None:
    with raises(StoreMisconfiguredError, match=r"takes no options, and the file's name can't have \? or # in it"):
        open_url(bad)


def test_a_link_that_leads_nowhere_is_called_one(tmp_path: Path) -> None:
    path, target = tmp_path / "users.db", tmp_path / "folder" / "target.db"
    path.symlink_to(target)
    with raises(StoreUnavailableError, match=f"{path} is a symbolic link to {target}, which doesn't exist"):
        open_store(settings_for(url(path)))
    done = run("userprofile-server", "import", "-", "--store", url(path), stdin=document("johndoe"))
    assert f"{path} is a symbolic link to {target}, which can't be opened: does its folder exist" in done.stderr
    target.parent.mkdir()
    documents_in(url(path), {"johndoe": {}})  # an import makes the file
    reader = open_store(settings_for(url(path)))
    target.rename(tmp_path / "elsewhere.db")
    with raises(StoreUnavailableError, match=f"{path} is a symbolic link to {target}, which is gone"):
        reader.get("nobody", timeout=1)
    reader.close()


def test_a_relative_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_url("sqlite:///a b%20c.db").close()
    assert (tmp_path / "a b%20c.db").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with raises(StoreMisconfiguredError, match=r"missing/users\.db can't be opened: does its folder exist"):
        open_url(url(tmp_path / "missing" / "users.db"))


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    path.write_bytes(b"certainly not a database\n" * 100)
    before = path.read_bytes()
    with raises(StoreMisconfiguredError, match="is not a SQLite database"):
        open_url(url(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("kind", "make_one"), [("a folder", Path.mkdir), ("a named pipe", os.mkfifo)])
@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("command", ["check", "import"])
def test_what_is_no_file_is_named_and_left_as_it_is(
    tmp_path: Path, command: str, suffix: str, kind: str, make_one: Callable[[Path], None]
) -> None:
    path = tmp_path / "users.db"
    if suffix:
        documents_in(url(path), {"johndoe": {}})
    odd = path.with_name(f"users.db{suffix}")
    make_one(odd)
    before = sorted(tmp_path.iterdir())
    arguments = ["-"] if command == "import" else []
    done = run("userprofile-server", command, *arguments, "--store", url(path), stdin=document("alice"))
    assert f"{odd} is not a regular file, but {kind}" in done.stderr
    assert done.returncode == 3
    assert sorted(tmp_path.iterdir()) == before


def test_a_path_that_cannot_be_accessed_keeps_a_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with raises(StoreMisconfiguredError, match="/loop can't be accessed: ") as caught:
        open_url(url(tmp_path / "loop"))
    assert caught.value.permanent


def test_a_device_is_no_database() -> None:
    with raises(StoreMisconfiguredError, match="is not a regular file, but a device"):
        open_url("sqlite:////dev/zero")


def test_another_applications_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "users.db", "CREATE TABLE orders (id)")
    before = path.read_bytes()
    with raises(StoreMisconfiguredError, match="another application"):
        open_url(url(path))
    assert path.read_bytes() == before


def test_a_newer_versions_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    open_url(url(path)).close()
    make(path, "PRAGMA user_version = 2")
    with raises(StoreMisconfiguredError, match="newer version of userprofile"):
        open_url(url(path))


def test_a_database_of_ours_without_its_table_is_damaged(tmp_path: Path) -> None:
    path = make(tmp_path / "users.db", f"PRAGMA application_id = {0x75707266}")
    with raises(StoreDamagedError, match="damaged"):
        open_url(url(path))
    done = run("userprofile-server", "serve", "--store", url(path), "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: {path} is damaged: its table is missing\n"


def no_database(path: Path) -> None:
    path.write_text("this is no database" * 100)


def newer_database(path: Path) -> None:
    open_url(url(path)).close()
    make(path, "PRAGMA user_version = 2")


MADE_WRONG: dict[str, Callable[[Path], object]] = {
    "doesn't exist": lambda path: None,
    "is empty": Path.touch,
    "is not a SQLite database": no_database,
    "is the database of another application": lambda path: make(path, "CREATE TABLE orders (id)"),
    "was made by a newer version": newer_database,
    "its table is missing": lambda path: make(path, f"PRAGMA application_id = {0x75707266}"),
}


@pytest.mark.parametrize("says", MADE_WRONG)
def test_a_file_that_no_waiting_would_mend_keeps_a_server_from_starting(tmp_path: Path, says: str) -> None:
    path = tmp_path / "users.db"
    MADE_WRONG[says](path)
    with raises(StoreError, match=f"{path} .*{says}"):
        UserProfileServer(settings_for(url(path))).start()


def test_the_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    store = open_url(url(path))
    store.put(JOHNDOE, timeout=5)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == dict.fromkeys(
        ["users.db", "users.db-wal", "users.db-shm"], "0o600"
    )
    store.close()


def test_many_threads_may_open_a_file_that_is_not_there_yet_at_once(tmp_path: Path) -> None:
    for round_ in range(20):
        together = threading.Barrier(16)

        def open_together(path: Path, together: threading.Barrier = together) -> None:
            together.wait()
            open_url(url(path)).close()

        with ThreadPoolExecutor(16) as openers:
            for opened in [openers.submit(open_together, tmp_path / f"{round_}.db") for _ in range(16)]:
                opened.result()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere; for a moment, be somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_file_is_named(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        Path(folder).chmod(0o755)
        path = Path(folder) / "users.db"
        make(path, "VACUUM")
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        with without_privileges(), raises(StoreMisconfiguredError, match="read-only"):
            open_url(url(path))
        Path(folder).chmod(0o755)


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    store = open_url(url(path))
    store.put(JOHNDOE, timeout=5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("users.db-wal").stat().st_size + 4096, hard))
    try:
        with raises(StoreUnavailableError, match="disk"):
            store.put([user_document("big", padding="x" * 1_000_000)], timeout=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert get_user(store, "johndoe", timeout=5).username == "johndoe"
    store.put([user_document("big")], timeout=5)
    assert get_user(store, "big", timeout=5).username == "big"
    store.close()


def test_a_write_waits_for_another_writer_no_longer_than_its_timeout_and_a_read_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    store = open_url(url(path))
    store.put(JOHNDOE, timeout=5)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with raises(StoreTimeoutError, match="locked"):
        store.put(JOHNDOE, timeout=0.05)
    assert get_user(store, "johndoe", timeout=0.001).username == "johndoe"
    writer.execute("ROLLBACK")
    writer.close()
    assert store.put(JOHNDOE, timeout=5) == 1
    store.close()


def test_an_interrupted_put_stores_nothing(tmp_path: Path) -> None:
    store = open_url(url(tmp_path / "users.db"))

    class Interrupting(list[Document]):
        def __iter__(self) -> Iterator[Document]:
            yield from JOHNDOE
            raise KeyboardInterrupt

    with raises(KeyboardInterrupt):
        store.put(Interrupting(), timeout=5)
    assert store.put(JOHNDOE, timeout=5) == 0
    store.close()
