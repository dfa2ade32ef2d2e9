"""Tokens and their file: `token new` writes it, the server reads it, and neither ever says what a token is."""

import hashlib
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.canary import guard, raises
from tests.fork_server import BIN
from tests.support import run
from userprofile_server.security.tokens import TokenNameError, new_token, read_tokens


def line(name: str, token: str) -> str:
    return f"{name} sha256:{hashlib.sha256(guard(token).encode()).hexdigest()}\n"


SECRET, OTHER = guard("userprofile_a-token-of-these-tests"), guard("userprofile_another-token-of-these-tests")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


class TestRead:
    def test_a_token_names_its_caller(self, file: Path) -> None:
        file.write_text(line("web", SECRET) + line("batch.jobs-2", OTHER))
        tokens = read_tokens(file)
        for _ in range(2):  # the second time they have been seen
            assert tokens.principal_of(SECRET) == "token:web"
            assert tokens.principal_of(OTHER) == "token:batch.jobs-2"
        assert SECRET not in repr(tokens)

    @pytest.mark.parametrize("token", ["", "web", SECRET[:-1], SECRET + "x", SECRET.upper(), "\ud800", "é"])
    def test_any_other_names_nobody(self, file: Path, token: str) -> None:
        file.write_text(line("web", SECRET))
        assert [read_tokens(file).principal_of(token) for _ in range(2)] == [None, None]

    def test_the_hash_is_no_token(self, file: Path) -> None:
        file.write_text(line("web", SECRET))
        digest = hashlib.sha256(SECRET.encode())
        for found in (digest.hexdigest(), f"sha256:{digest.hexdigest()}", digest.digest().decode("latin-1")):
            assert read_tokens(file).principal_of(found) is None

    def test_a_name_may_have_several_tokens(self, file: Path) -> None:
        file.write_text(line("web", SECRET) + line("web", OTHER) + line("web", OTHER))
        assert {read_tokens(file).principal_of(token) for token in (SECRET, OTHER)} == {"token:web"}

    def test_comments_blank_lines_and_any_line_ends_do_no_harm(self, file: Path) -> None:
        file.write_bytes(f"\ufeff# ours\r\n\r\n  # theirs\r\n\t{line('web', SECRET).strip()}  \r\n".encode())
        assert read_tokens(file).principal_of(SECRET) == "token:web"

    def test_a_comment_alone_is_a_file_without_tokens(self, file: Path) -> None:
        file.write_text("# all were revoked\n")
        assert read_tokens(file).principal_of(SECRET) is None

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("", "is empty; a file without any tokens needs a comment"),
            (" \n", "is empty"),
            (f"web {SECRET}\n", "line 1: has to be NAME sha256:HEX"),
            (f"{SECRET}\n", "line 1: "),
            (f"# web\n\nweb sha256:{SECRET}\n", "line 3: has to be NAME sha256:HEX"),
            (line("web", SECRET)[:-10], "line 1: has to be NAME sha256:HEX"),
            (line("web", SECRET) + line("web", OTHER)[:-2], "line 2: has to be NAME sha256:HEX"),
            (line("web", SECRET).upper(), "line 1: a name has lower-case letters"),
            (line("web", SECRET).replace("sha256", "sha1"), "line 1: has to be NAME sha256:HEX"),
            (line("web", SECRET).strip() + " # comment", "line 1: has to be NAME sha256:HEX"),
            (line("-web", SECRET), "line 1: a name has"),
            (line("web/1", SECRET), "line 1: a name has"),
            (line("é", SECRET), "line 1: a name has"),
            (line("x" * 64, SECRET), "line 1: a name has"),
            (line("web", SECRET) + line("batch", SECRET), "line 2: the same token is that of another name above"),
            (
                line("web", SECRET) + line("batch", SECRET)[:40] + "0" * 37 + "\n",
                "line 2: the hash begins as another one above",
            ),
            ("\0" * 100, "line 1: "),
            ("#" * (4 * 1024 * 1024 + 1), "is larger than any file of tokens"),
        ],
    )
    def test_a_wrong_file_is_refused_with_the_line_and_nothing_out_of_it(
        self, file: Path, content: str, says: str
    ) -> None:
        file.write_text(content)
        with raises(ValueError, match=f"^{file}") as caught:
            read_tokens(file)
        assert says in str(caught.value)

    def test_neither_tokens_nor_hashes_are_in_what_is_printed_of_it(self, file: Path) -> None:
        file.write_text(line("web", SECRET))
        assert repr(read_tokens(file)) == "Tokens()"


def new(name: str, file: object) -> "subprocess.CompletedProcess[str]":
    return run("userprofile-server", "token", "new", name, "--tokens", file)


class TestNew:
    def test_prints_the_token_alone_and_adds_its_hash_to_a_file_of_the_owner(self, file: Path) -> None:
        done = new("web", file)
        assert (done.returncode, done.stderr) == (0, "")
        token = guard(done.stdout.rstrip("\n"))
        assert token.startswith("userprofile_")
        assert len(token) == len("userprofile_") + 43, "256 random bits"
        assert file.read_text() == line("web", token)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert read_tokens(file).principal_of(token) == "token:web"

    def test_a_second_one_leaves_the_first_in_force(self, file: Path) -> None:
        made = [guard(new_token("web", file)) for _ in range(2)]
        assert made[0] != made[1]
        assert [read_tokens(file).principal_of(token) for token in made] == ["token:web"] * 2

    def test_a_missing_line_end_before_it_does_no_harm(self, file: Path) -> None:
        file.write_text(line("web", SECRET).rstrip("\n"))
        token = guard(new_token("batch", file))
        assert [read_tokens(file).principal_of(each) for each in (SECRET, token)] == ["token:web", "token:batch"]

    def test_the_owner_and_the_mode_of_a_file_stay(self, file: Path) -> None:
        file.touch()
        file.chmod(0o640)
        inode = file.stat().st_ino
        guard(new_token("web", file))
        assert (file.stat().st_ino, stat.S_IMODE(file.stat().st_mode)) == (inode, 0o640)

    def test_several_at_once_are_all_there(self, file: Path) -> None:
        made: list[str] = []
        threads = [
            threading.Thread(target=lambda name=f"n{number}": made.append(guard(new_token(name, file))))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({read_tokens(file).principal_of(token) for token in made} - {None}) == 20

    @pytest.mark.parametrize("name", ["", "Web", "web app", "../web", "web\n", "-", "x" * 64, "é"])
    def test_a_name_that_cannot_be_makes_none(self, file: Path, name: str) -> None:
        with raises(TokenNameError, match="lower-case letters, digits"):
            new_token(name, file)
        assert not file.exists()

    @pytest.mark.parametrize("lost", [">/dev/full", ">&-"])
    def test_one_that_nobody_gets_is_not_in_the_file(self, file: Path, lost: str) -> None:
        file.write_text(line("batch", SECRET))
        script = f'"{BIN}/userprofile-server" token new web --tokens {file} {lost}'
        assert subprocess.run(["/bin/bash", "-c", script], check=False).returncode == 3
        assert file.read_text() == line("batch", SECRET)

    def test_a_wrong_name_is_a_wrong_option(self, file: Path) -> None:
        done = new("Web", file)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Invalid value for 'NAME': a name has lower-case letters" in done.stderr

    def test_a_file_that_is_something_else_is_left_alone(self, file: Path) -> None:
        file.write_text('{"keys": []}')
        done = new("web", file)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"error: {file}, line 1: a name has")
        assert file.read_text() == '{"keys": []}'

    def test_what_cannot_be_written_is_an_error_in_words(self, file: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path, says in [
            (tmp_path, "can't be written: Is a directory"),
            (tmp_path / "missing" / "tokens", "can't be written: No such file or directory"),
            (tmp_path / "pipe", "is a pipe or a device, not a file"),
            (Path("/dev/full"), "is a pipe or a device, not a file"),
        ]:
            done = new("web", path)
            assert (done.returncode, done.stdout, done.stderr) == (3, "", f"error: {path} {says}\n")
