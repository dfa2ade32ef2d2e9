"""Values out of files that change: whatever happens to the files, the value is a whole one, and nobody waits."""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.canary import guard, raises
from tests.support import eventually
from userprofile.certificates import read_identity
from userprofile.environment import read_text
from userprofile_server.security import watched
from userprofile_server.security.watched import Watched, Watcher


@dataclass(frozen=True)
class Number:
    """A value that says whether it is whole: the file has it on each line."""

    value: int

    @classmethod
    def read(cls, path: Path) -> "Number":
        lines = set(read_text(path, "number", most=1024 * 1024).split())
        if len(lines) != 1:
            raise ValueError(f"{path} has {len(lines)} numbers")
        return cls(int(lines.pop()))


def write(path: Path, value: int) -> None:
    path.write_text(f"{value}\n" * 10)


def replace(path: Path, value: int) -> None:
    new = path.with_suffix(".new")
    write(new, value)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    write(path, 1)
    return path


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_PATIENCE", 0.05)
    monkeypatch.setattr(watched, "_RETRY_SECONDS", 0.0)


@contextmanager
def watching(path: Path) -> Iterator[tuple[Watched[Number], list[Number]]]:
    """The value, and all that it has become."""
    changes: list[Number] = []
    watcher = Watcher(interval=0.01)
    number = watcher.watch("the number", [path], lambda: Number.read(path), changes.append)
    watcher.start()
    try:
        yield number, changes
    finally:
        watcher.stop()
        watcher._thread.join()


def is_in_use(number: Watched[Number], value: int) -> None:
    eventually(lambda: number.current == Number(value), f"{value} is in use")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


class TestChanges:
    def test_a_file_that_is_replaced(self, path: Path) -> None:
        with watching(path) as (number, changes):
            assert number.current == Number(1)
            replace(path, 2)
            is_in_use(number, 2)
        assert changes == [Number(2)]

    def test_a_file_that_is_rewritten_in_place_with_its_old_time_and_size(self, path: Path) -> None:
        before = path.stat()
        with watching(path) as (number, _):
            write(path, 2)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            is_in_use(number, 2)

    def test_a_volume_of_kubernetes_whose_link_is_swapped(self, tmp_path: Path) -> None:
        for version in (1, 2):
            (tmp_path / f"..version_{version}").mkdir()
            write(tmp_path / f"..version_{version}" / "number", version)
        (tmp_path / "..data").symlink_to("..version_1")
        (tmp_path / "number").symlink_to("..data/number")
        with watching(tmp_path / "number") as (number, _):
            (tmp_path / "..new").symlink_to("..version_2")
            (tmp_path / "..new").replace(tmp_path / "..data")
            shutil.rmtree(tmp_path / "..version_1")
            is_in_use(number, 2)

    def test_a_file_that_is_only_touched_is_no_change(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        number = Watched("the number", [path], lambda: Number.read(path), lambda _value: pytest.fail("no change"))
        first = number.current
        os.utime(path)
        number.check()
        number.check()
        assert number.current is first
        assert logged(caplog) == []

    def test_a_file_that_is_being_written_is_left_alone_until_it_is_done(self, path: Path) -> None:
        reads = []

        def read() -> Number:
            reads.append(path.read_text())
            return Number.read(path)

        number = Watched("the number", [path], read)
        for value in range(2, 10):
            write(path, value)
            number.check()
            assert number.current == Number(1)
        number.check()
        assert number.current == Number(9)
        assert len(reads) == 2

    @pytest.mark.usefixtures("_soon")
    def test_a_file_that_changes_all_the_time_is_said_once_and_read_when_it_does_not(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        number = Watched("the number", [path], lambda: Number.read(path))

        def change() -> bool:
            write(path, 2)
            number.check()
            return bool(logged(caplog))

        eventually(change, "it is said")
        assert change()
        assert (number.current, number.valid) == (Number(1), False)
        number.check()
        assert (number.current, number.valid) == (Number(2), True)
        assert [" ".join(line.split()[:6]) for line in logged(caplog)] == [
            "the number: what was read before",
            "the number: read again, and in",
        ]

    def test_what_is_written_while_it_is_read_is_read_again(self, path: Path) -> None:
        then = [lambda: None, lambda: write(path, 3)]

        def read() -> Number:
            value = Number.read(path)
            if then:
                then.pop(0)()
            return value

        number = Watched("the number", [path], read)
        write(path, 2)
        for _ in range(4):
            number.check()
        assert number.current == Number(3)

    def test_a_certificate_and_its_key_that_are_replaced_one_after_the_other(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
        pairs = [authority.issue_cert("server.example") for _ in range(2)]
        keys = [guard(pair.private_key_pem.bytes().decode()) for pair in pairs]
        pairs[0].cert_chain_pems[0].write_to_path(certificate)
        key.write_text(keys[0])
        identity = Watched("the certificate", [certificate, key], lambda: read_identity(certificate, key))
        first = identity.current
        pairs[1].cert_chain_pems[0].write_to_path(certificate)
        for _ in range(3):
            identity.check()
            assert identity.current is first, "they don't belong together"
        key.write_text(keys[1])
        for _ in range(2):
            identity.check()
        assert identity.current.key.decode() == keys[1]


def spoil(path: Path, how: str) -> None:
    path.unlink()
    match how:
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "half a file":
            path.write_text("3\n4\n")
        case "a large file":
            with path.open("wb") as file:
                file.truncate(2**30)
        case "a link to itself":
            path.symlink_to(path)
        case "binary":
            path.write_bytes(bytes(range(256)))


WRONG = {
    "missing": "can't be read: No such file or directory",
    "a folder": "is a folder",
    "a pipe": "is a pipe or a device, not a file",
    "a device": "is a pipe or a device, not a file",
    "half a file": "has 2 numbers",
    "a large file": "is larger than any number (1048576 bytes)",
    "a link to itself": "can't be read: Too many levels of symbolic links",
    "binary": "is not a text file in UTF-8",
}


class TestWrongFiles:
    @pytest.mark.parametrize("how", WRONG)
    def test_are_errors_in_words_at_the_start(self, path: Path, how: str) -> None:
        spoil(path, how)
        with raises(ValueError) as caught:
            Watched("the number", [path], lambda: Number.read(path))
        assert str(caught.value) == f"{path} {WRONG[how]}"

    @pytest.mark.usefixtures("_soon")
    @pytest.mark.parametrize("how", WRONG)
    def test_change_nothing_later_and_the_log_says_so_once(
        self, path: Path, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "userprofile_server")
        with watching(path) as (number, changes):
            spoil(path, how)
            eventually(lambda: logged(caplog), "the log says so")
            assert number.current == Number(1)
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            write(path, 1)
            eventually(lambda: len(logged(caplog)) == 2, "the log says that it is well again")
            replace(path, 2)
            is_in_use(number, 2)
        assert changes == [Number(2)]
        assert logged(caplog) == [
            f"the number: what was read before stays in use: {path} {WRONG[how]}",
            "the number: read again, and in use",
            "the number: read again, and in use",
        ]

    def test_that_are_soon_right_again_are_no_event(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        number = Watched("the number", [path], lambda: Number.read(path))
        path.unlink()
        for _ in range(3):
            number.check()
        write(path, 1)
        for _ in range(3):
            number.check()
        assert logged(caplog) == []

    def test_a_bug_in_what_reads_or_follows_ends_no_watching(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        values: list[int] = []

        def read() -> int:
            values.append(Number.read(path).value)
            return 1 // (values[-1] - 2)

        def fail(_value: int) -> None:
            raise RuntimeError

        number = Watched("the number", [path], read, fail)
        for value in (2, 3, 4):
            write(path, value)
            for _ in range(2):
                number.check()
        assert values == [1, 2, 3, 4]
        assert number.current == 0
        assert "what follows from the change failed" in caplog.text


class TestThreads:
    def test_one_watches_all_values(self, tmp_path: Path) -> None:
        watcher = Watcher(interval=0.01)
        paths = [tmp_path / str(number) for number in range(5)]
        for path in paths:
            write(path, 1)
        before = threading.active_count()
        numbers = [watcher.watch("a number", [path], lambda path=path: Number.read(path)) for path in paths]  # type: ignore[misc]
        watcher.start()
        assert threading.active_count() == before + 1
        for path, number in zip(paths, numbers, strict=True):
            write(path, 2)
            is_in_use(number, 2)
        watcher.stop()

    def test_without_values_there_is_none(self) -> None:
        before = threading.active_count()
        watcher = Watcher()
        watcher.start()
        assert threading.active_count() == before
        watcher.stop()

    def test_readers_see_only_whole_values_while_a_file_changes_all_the_time(self, path: Path) -> None:
        seen: list[int] = []
        stop = threading.Event()
        with watching(path) as (number, _):

            def look() -> None:
                while not stop.is_set():
                    seen.append(number.current.value)

            reader = threading.Thread(target=look)
            reader.start()
            for value in range(2, 8):
                replace(path, value)
                is_in_use(number, value)
            stop.set()
            reader.join()
        assert seen == sorted(seen)
