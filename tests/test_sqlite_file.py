"""A SQLite file while it is in use: other processes on it, a file that is replaced, damaged, cut off or gone."""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.canary import raises
from tests.support import (
    CallError,
    GetUser,
    ServerProcess,
    document,
    documents_in,
    eventually,
    run,
    settings_for,
    user_document,
)
from tests.test_sqlite import without_privileges
from userprofile_server.errors import (
    DomainError,
    StoreDamagedError,
    StoreError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.stores import open_store
from userprofile_server.stores.base import DocumentStore
from userprofile_server.users.lookup import get_user, get_users
from userprofile_server.users.models import User

MANY = 3000


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def filled(path: Path, *usernames: str) -> Path:
    documents_in(url(path), {username: {} for username in usernames})
    return path


def import_rows(path: Path, *usernames: str) -> None:
    """As an operator does it: in a process of its own."""
    rows = b"\n".join(document(username) for username in usernames)
    done = run("userprofile-server", "import", "-", "--store", url(path), stdin=rows)
    assert done.returncode == 0, done.stderr


def in_python(code: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-c", f"import sqlite3, sys\n{code}", *map(str, arguments)], check=True, timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "users.db", "johndoe")


@pytest.fixture
def readers(path: Path) -> Iterator[list[DocumentStore]]:
    """Four readers in one process, as a server's workers are."""
    stores = [open_store(settings_for(url(path))) for _ in range(4)]
    yield stores
    for store in stores:
        store.close()


def outcomes(readers: list[DocumentStore], username: str) -> set[object]:
    """What the readers say of a user: the user's name, or the kind of error."""
    said: set[object] = set()
    for reader in readers:
        try:
            said.add(get_user(reader, username, timeout=5).username)
        except DomainError as error:
            said.add(type(error))
    return said


class TestOtherProcesses:
    def test_see_each_others_writes_at_once_whoever_closes_the_file(self, path: Path, tmp_path: Path) -> None:
        """Any other open and close of the file in the serving process would drop its locks, and with them the log."""
        others: dict[str, Callable[[], object]] = {
            "check": lambda: run("userprofile-server", "check", "--store", url(path)),
            "backup": lambda: in_python(
                "sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))", path, tmp_path / "backup.db"
            ),
            "vacuum into": lambda: in_python(
                "sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', [sys.argv[2]])", path, tmp_path / "vacuumed.db"
            ),
            "open and close": lambda: in_python(
                "sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM userprofiles')", path
            ),
        }
        with ServerProcess(url(path), "--workers", "4") as server, grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            for number, other in enumerate(others.values()):
                import_rows(path, f"first{number}")
                assert {get_user(f"first{number}").username for _ in range(8)} == {f"first{number}"}
                other()
                import_rows(path, f"second{number}")
                assert {get_user(f"second{number}").username for _ in range(8)} == {f"second{number}"}
                assert get_user("johndoe").username == "johndoe"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_never_take_the_log_away_from_a_server(self, path: Path, readers: list[DocumentStore]) -> None:
        assert outcomes(readers, "johndoe") == {"johndoe"}
        log = path.with_name("users.db-wal").stat().st_ino
        import_rows(path, "alice")
        assert path.with_name("users.db-wal").stat().st_ino == log
        assert outcomes(readers, "alice") == {"alice"}

    def test_find_all_of_an_import_in_the_file_itself(self, path: Path, readers: list[DocumentStore]) -> None:
        import_rows(path, "alice")
        assert path.with_name("users.db-wal").stat().st_size == 0


class TestReplacedFile:
    @pytest.mark.parametrize("ask_first", ["johndoe", "alice"], ids=["who is in both", "who is only in the new one"])
    def test_is_read_by_all_at_once(
        self, path: Path, tmp_path: Path, readers: list[DocumentStore], ask_first: str
    ) -> None:
        assert outcomes(readers, "alice") == {UserNotFoundError}
        filled(tmp_path / "new.db", "johndoe", "alice").replace(path)
        assert outcomes(readers, ask_first) == {ask_first}
        assert outcomes(readers, "alice") == {"alice"}
        import_rows(path, "bob")
        assert outcomes(readers, "bob") == {"bob"}

    def test_is_noticed_by_a_link_too(self, tmp_path: Path) -> None:
        """As Kubernetes publishes a new version of a volume: a link is swapped."""
        old, new = filled(tmp_path / "old.db", "johndoe"), filled(tmp_path / "new.db", "alice")
        link = tmp_path / "users.db"
        link.symlink_to(old)
        reader = open_store(settings_for(url(link)))
        assert outcomes([reader], "johndoe") == {"johndoe"}
        (tmp_path / "next").symlink_to(new)
        (tmp_path / "next").replace(link)
        assert outcomes([reader], "alice") == {"alice"}
        eventually(lambda: outcomes([reader], "johndoe") == {UserNotFoundError}, "the old file's user is gone")
        reader.close()

    def test_that_was_copied_over_the_old_one_is_read_too(
        self, path: Path, tmp_path: Path, readers: list[DocumentStore]
    ) -> None:
        assert outcomes(readers, "johndoe") == {"johndoe"}
        new = filled(tmp_path / "new.db", "alice", *(f"user{number}" for number in range(MANY)))
        shutil.copyfile(new, path)
        eventually(lambda: outcomes(readers, "alice") == {"alice"}, "the new content is read")
        assert outcomes(readers, f"user{MANY - 1}") == {f"user{MANY - 1}"}

    def test_is_not_read_with_the_old_ones_log(self, path: Path, tmp_path: Path, readers: list[DocumentStore]) -> None:
        assert outcomes(readers, "johndoe") == {"johndoe"}
        with closing(sqlite3.connect(path)) as writer:  # as one that was killed leaves it: its changes are in the log
            writer.execute("DELETE FROM userprofiles")
            writer.commit()
        assert outcomes(readers, "johndoe") == {UserNotFoundError}
        filled(tmp_path / "new.db", "johndoe", "alice").replace(path)
        with raises(StoreDamagedError, match=r"was replaced, but .*users\.db-wal still holds changes"):
            get_user(readers[0], "alice", timeout=5)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        assert outcomes(readers, "alice") == {"alice"}

    @pytest.mark.parametrize("lost", [["-wal", "-shm"], ["-shm"], ["-wal"]], ids=" and ".join)
    def test_without_its_log_or_shared_memory_is_opened_again(
        self, path: Path, readers: list[DocumentStore], lost: list[str]
    ) -> None:
        assert outcomes(readers, "johndoe") == {"johndoe"}
        for suffix in lost:
            path.with_name(path.name + suffix).unlink()
        with closing(sqlite3.connect(path)) as writer:  # one that leaves its change in the log
            writer.execute("INSERT INTO userprofiles VALUES ('userprofile::alice', ?)", (document("alice").decode(),))
            writer.commit()
        eventually(lambda: outcomes(readers, "alice") == {"alice"}, "the import is seen")

    def test_by_one_that_is_no_database_is_an_error_until_it_is_mended(
        self, path: Path, tmp_path: Path, readers: list[DocumentStore]
    ) -> None:
        good = filled(tmp_path / "good.db", "johndoe")
        (tmp_path / "bad.db").write_bytes(b"certainly not a database\n" * 200)
        (tmp_path / "bad.db").replace(path)
        eventually(lambda: "johndoe" not in outcomes(readers, "johndoe"), "the bad file is noticed")
        good.replace(path)
        eventually(lambda: outcomes(readers, "johndoe") == {"johndoe"}, "the good file is noticed")


class TestNothingButAnImport:
    """creates a file."""

    @pytest.mark.parametrize("command", ["check", "serve"])
    def test_when_there_is_none(self, tmp_path: Path, command: str) -> None:
        missing = tmp_path / "usres.db"
        listen = ["--listen", "127.0.0.1:0"] if command == "serve" else []
        done = run("userprofile-server", command, "--store", url(missing), *listen)
        assert done.returncode == 3
        assert f"{missing} doesn't exist; userprofile-server import creates it" in done.stderr
        assert "listening" not in done.stdout
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", ["check", "serve"])
    def test_fills_an_empty_one(self, tmp_path: Path, command: str) -> None:
        empty = tmp_path / "users.db"
        empty.touch()
        listen = ["--listen", "127.0.0.1:0"] if command == "serve" else []
        done = run("userprofile-server", command, "--store", url(empty), *listen)
        assert done.returncode == 3
        assert "is empty" in done.stderr
        assert empty.stat().st_size == 0

    @pytest.mark.parametrize("loss", ["cut off", "removed", "moved away"])
    def test_while_a_server_loses_it(self, path: Path, tmp_path: Path, loss: str) -> None:
        backup = filled(tmp_path / "backup.db", "johndoe", "alice")
        with ServerProcess(url(path), "--workers", "4") as server, grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            assert get_user("johndoe").username == "johndoe"
            if loss == "cut off":
                with path.open("r+b") as file:
                    file.truncate(0)
            elif loss == "removed":
                path.unlink()
            else:
                path.replace(tmp_path / "elsewhere.db")
            expected = "STORE_DAMAGED" if loss == "cut off" else "STORE_UNAVAILABLE"
            eventually(
                lambda: {reason(get_user, "johndoe") for _ in range(8)} == {expected}, f"{expected} by all workers"
            )
            for _ in range(40):  # never NOT_FOUND, whichever worker serves the call, however often it has retried
                assert reason(get_user, "johndoe") == expected
                assert reason(get_user, "nobody") == expected
            assert (path.stat().st_size == 0) if loss == "cut off" else not path.exists()
            eventually(lambda: "is empty" in server.stderr or "is gone" in server.stderr, "a line in the log")
            backup.replace(path)
            eventually(lambda: reason(get_user, "alice") is None, "the backup is served")


def reason(get_user: GetUser, username: str) -> str | None:
    """The reason of the error that a call ends in, None if it succeeds."""
    try:
        get_user(username)
    except grpc.RpcError as error:
        return CallError(error).reason
    return None


class TestDamage:
    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        """A file of many users, in the middle of which two pages were lost."""
        path = filled(tmp_path / "damaged.db", *(f"user{number}" for number in range(MANY)))
        with path.open("r+b") as file:
            page = 4096
            file.seek(path.stat().st_size // page // 2 * page)
            file.write(bytes(2 * page))
        return path

    def test_is_distinguished_from_a_wrong_setting_and_affects_no_other_user(self, damaged: Path) -> None:
        reader = open_store(settings_for(url(damaged)))
        names = [f"user{number}" for number in range(MANY)]
        found: dict[str, object] = {}
        for start in range(0, MANY, 100):
            found |= dict(
                zip(names[start : start + 100], get_users(reader, names[start : start + 100], timeout=30), strict=True)
            )
        lost = [name for name in names if not isinstance(found[name], User)]
        assert 0 < len(lost) < MANY / 10
        assert {type(found[name]) for name in lost} == {StoreDamagedError}
        with raises(StoreDamagedError, match=r"damaged\.db is damaged"):
            get_user(reader, lost[0], timeout=5)
        reader.close()

    def test_is_data_loss_to_callers_and_an_error_in_the_log(self, damaged: Path) -> None:
        with ServerProcess(url(damaged)) as server, grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            reasons = {reason(get_user, f"user{number}") for number in range(0, MANY, 5)}
            assert reasons == {None, "STORE_DAMAGED"}
            eventually(lambda: "damaged.db is damaged (SQLITE_CORRUPT" in server.stderr, "a line in the log")
            assert "user1" not in server.stderr

    @pytest.mark.parametrize("options", [[], ["--full"]], ids=["for seconds", "in full"])
    def test_is_found_by_check(self, damaged: Path, options: list[str]) -> None:
        before = damaged.read_bytes()
        done = run("userprofile-server", "check", "--store", url(damaged), *options)
        assert done.returncode == 3
        assert f"error: {damaged} is damaged" in done.stderr
        assert damaged.read_bytes() == before

    def test_is_not_found_by_check_where_there_is_none(self, path: Path) -> None:
        done = run("userprofile-server", "check", "--store", url(path))
        assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["no damage found", "ok"])

    def test_that_would_take_too_long_to_look_for_is_not_said_not_to_be_there(self, path: Path) -> None:
        reader = open_store(settings_for(url(filled(path, *(f"user{number}" for number in range(MANY))))))
        (line,) = reader.examine(seconds=0)  # type: ignore[attr-defined]
        assert "too short a time to check the whole file" in line
        assert get_user(reader, "johndoe", timeout=5).username == "johndoe"
        reader.close()

    def test_next_to_an_empty_file_a_log_is_not_thrown_away(self, path: Path, readers: list[DocumentStore]) -> None:
        assert outcomes(readers, "johndoe") == {"johndoe"}
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("UPDATE userprofiles SET key = 'userprofile::alice'")
            writer.commit()
        log = path.with_name("users.db-wal")
        size = log.stat().st_size
        with path.open("r+b") as file:
            file.truncate(0)
        with raises(StoreError, match="is empty"):
            open_store(settings_for(url(path)), writable=True)
        assert log.stat().st_size == size


class TestReadOnly:
    """A file that this user may only read is served: serving is reading."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others
            folder = Path(name)
            folder.chmod(0o755)
            filled(folder / "users.db", "johndoe").chmod(0o444)
            yield folder

    @pytest.mark.parametrize("mode", [0o755, 0o777], ids=["closed folder", "open folder"])
    def test_is_read(self, folder: Path, mode: int) -> None:
        folder.chmod(mode)
        with without_privileges():
            reader = open_store(settings_for(url(folder / "users.db")))
            assert outcomes([reader], "johndoe") == {"johndoe"}
            reader.probe(timeout=5)
        import_rows(folder / "users.db", "alice")  # by its owner
        with without_privileges():
            eventually(lambda: outcomes([reader], "alice") == {"alice"}, "the import is seen")
            reader.close()

    def test_is_not_written_to(self, path: Path) -> None:
        reader = open_store(settings_for(url(path)))
        with raises(StoreError, match="read-only"):
            reader.put([user_document("alice")], timeout=5)
        reader.close()


def test_a_file_that_is_gone_is_waited_for(path: Path, tmp_path: Path) -> None:
    reader = open_store(settings_for(url(path)))
    path.rename(tmp_path / "elsewhere.db")
    eventually(lambda: outcomes([reader], "johndoe") == {StoreUnavailableError}, "the loss is noticed")
    (tmp_path / "elsewhere.db").rename(path)
    assert outcomes([reader], "johndoe") == {"johndoe"}
    reader.close()
