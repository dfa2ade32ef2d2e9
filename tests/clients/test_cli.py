"""`userprofile batch`, `health` and `completion`, and the options of a connection; `get` is in tests/test_cli.py."""

import dataclasses
import gzip
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.fork_server import BIN
from tests.support import run
from userprofile import User
from userprofile.testing import FakeUserProfileServer


@pytest.fixture
def server(fake_userprofile: FakeUserProfileServer) -> FakeUserProfileServer:
    fake_userprofile.add(User("johndoe", "j@example.com"), User("jürgen 🦊"))
    return fake_userprofile


def userprofile(
    server: FakeUserProfileServer, *args: object, stdin: bytes | None = None, **env: str
) -> "subprocess.CompletedProcess[str]":
    return run("userprofile", *args, stdin=stdin, USERPROFILE_TARGET=server.target, **env)


def lines(done: "subprocess.CompletedProcess[str]") -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestBatch:
    def test_prints_a_json_line_for_each_name_in_order(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "batch", "nobody", "johndoe", "jürgen 🦊")
        assert lines(done) == [
            {"username": "nobody", "user": None},
            {"username": "johndoe", "user": dataclasses.asdict(User("johndoe", "j@example.com"))},
            {"username": "jürgen 🦊", "user": dataclasses.asdict(User("jürgen 🦊"))},
        ]
        assert done.stderr == "2 found, 1 not found, 0 failed\n"
        assert done.returncode == 3

    def test_prints_the_requested_fields(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "batch", "johndoe", "nobody", "--fields=email")
        assert lines(done) == [
            {"username": "johndoe", "user": {"username": "johndoe", "email": "j@example.com"}},
            {"username": "nobody", "user": None},
        ]
        assert server.requests[0].fields == frozenset(["username", "email"])

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_reads_names_from_stdin_whatever_their_form(
        self, server: FakeUserProfileServer, encoding: str, packed: bool
    ) -> None:
        text = "johndoe\n\njürgen 🦊\r\n  \njohndoe\r\ufeffjohndoe".encode(encoding)
        done = userprofile(server, "batch", stdin=gzip.compress(text) if packed else text)
        assert [line["username"] for line in lines(done)] == ["johndoe", "jürgen 🦊", "johndoe", "johndoe"]
        assert (done.returncode, done.stderr) == (0, "4 found, 0 not found, 0 failed\n")

    def test_asks_for_the_names_before_what_cannot_be_read(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "batch", stdin="johndoe\njohndoe\n".encode("utf-16") + b"x")
        assert [line["username"] for line in lines(done)] == ["johndoe", "johndoe"]
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "error: standard input is UTF-16, but cut off within a character or damaged"
        )

    def test_says_what_its_input_is_where_that_is_no_text(self, server: FakeUserProfileServer, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
            archive.writestr("names", "johndoe\n")
        done = userprofile(server, "batch", stdin=(tmp_path / "names.zip").read_bytes())
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1] == "error: standard input is a zip archive: unpack it first"

    def test_warns_of_two_files_that_were_joined_within_a_line(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "batch", stdin="johndoe\njohndoe\ufeffnobody\n".encode())
        assert [line["user"] is None for line in lines(done)] == [False, True]
        assert "warning: line 2 contains a byte order mark" in done.stderr

    def test_prints_a_result_for_every_line(self, server: FakeUserProfileServer) -> None:
        server.fail("CORRUPT_DOCUMENT", username="corrupt")
        done = userprofile(server, "batch", stdin=b"johndoe\n\0\n\xff\ncorrupt\n" + b"x" * 100_000 + b"\nnobody\n")
        found, empty, not_text, corrupt, too_long, nobody = lines(done)
        assert found["user"]
        for line in (empty, not_text, too_long):
            error = line["error"]
            assert isinstance(error, dict)
            assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_USERNAME")
            assert "username" in error["message"]
        error = corrupt["error"]
        assert isinstance(error, dict)
        assert len(error.pop("request_id")) == 32
        assert error == {
            "code": "DATA_LOSS", "reason": "CORRUPT_DOCUMENT", "message": "The fake server returned CORRUPT_DOCUMENT.",
        }  # fmt: skip
        assert nobody == {"username": "nobody", "user": None}
        assert done.stderr == "1 found, 1 not found, 4 failed\n"
        assert done.returncode == 1

    @pytest.mark.parametrize(
        ("failure", "names", "status"),
        [
            (None, ["johndoe"], 0),
            (None, ["johndoe", "nobody"], 3),
            (None, ["johndoe", "nobody", ""], 2),
            ("CORRUPT_DOCUMENT", ["johndoe", "nobody", "", "failing"], 1),
            ("STORE_UNAVAILABLE", ["johndoe", "nobody", "", "failing"], 4),
        ],
    )
    def test_exits_by_the_worst_outcome(
        self, server: FakeUserProfileServer, failure: str | None, names: list[str], status: int
    ) -> None:
        if failure is not None:
            server.fail(failure, username="failing")
        assert userprofile(server, "batch", *names).returncode == status

    def test_of_no_names_prints_nothing(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "batch", stdin=b"")
        assert (done.returncode, done.stdout) == (0, "")

    def test_prints_results_before_its_input_ends(self, server: FakeUserProfileServer) -> None:
        # Users are requested by the hundred, and a few hundreds ahead.
        with subprocess.Popen(
            [BIN / "userprofile",
             "batch", "--target", server.target],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"johndoe\n" * 1000)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["username"] == "johndoe"
            process.stdin.close()
            assert sum(1 for _ in process.stdout) == 999


class TestHealth:
    def test_says_what_the_server_says(self, server: FakeUserProfileServer) -> None:
        done = userprofile(server, "health")
        assert (done.returncode, done.stdout) == (0, "SERVING\n")
        server.set_serving(False)
        done = userprofile(server, "health")
        assert (done.returncode, done.stdout) == (4, "NOT_SERVING\n")

    def test_says_that_no_server_is_reachable(self, server: FakeUserProfileServer) -> None:
        server.stop()
        done = userprofile(server, "health")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith(f"error: no userprofile server reachable at {server.target}; is it running? (")


class TestTokens:
    def test_come_from_a_file_or_the_environment(self, server: FakeUserProfileServer, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("from-a-file\n")
        userprofile(server, "get", "johndoe", "--token-file", path)
        userprofile(server, "get", "johndoe", USERPROFILE_TOKEN_FILE=str(path))
        userprofile(server, "batch", "johndoe", USERPROFILE_TOKEN="from-the-environment")
        userprofile(server, "get", "johndoe", USERPROFILE_TOKEN="")
        authorizations = [request.metadata.get("authorization") for request in server.requests]
        assert authorizations == ["Bearer from-a-file", "Bearer from-a-file", "Bearer from-the-environment", None]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--token-file", "missing"], "No such file"),
            (["--token-file", "bad"], "the token is empty, or has characters"),
            (["--token-file", "good", "--target", "users.example:1"], "in plaintext"),
        ],
    )
    def test_that_cannot_be_sent_are_a_mistake_in_the_options(
        self, server: FakeUserProfileServer, tmp_path: Path, arguments: list[str], says: str
    ) -> None:
        (tmp_path / "bad").write_text("a secret token")
        (tmp_path / "good").write_text("secret")
        done = userprofile(server, "get", "johndoe", arguments[0], tmp_path / arguments[1], *arguments[2:])
        assert done.returncode == 2
        assert says in done.stderr
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", ""], "the target must not be empty"),
        (["--timeout", "0"], "--timeout"),
        (["--retries", "5"], "--retries"),
        (["--tls-ca", "/missing.pem"], "No such file"),
        (["--tls-certificate", "/certificate.pem"], "needs its key"),
    ],
)
def test_a_wrong_option_is_named(server: FakeUserProfileServer, arguments: list[str], says: str) -> None:
    done = userprofile(server, "get", "johndoe", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_tls_is_used_if_requested(server: FakeUserProfileServer) -> None:
    done = userprofile(server, "get", "johndoe", "--tls", "--retries", "0")
    assert done.returncode == 4  # the fake server doesn't understand it
    assert "SSL" in done.stderr or "handshake" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    done = run("userprofile", "completion", shell)
    assert done.returncode == 0
    assert "_USERPROFILE_COMPLETE" in done.stdout


def test_the_script_completes_commands_and_options() -> None:
    program = """
eval "$(userprofile completion bash)"
complete() { COMPREPLY=(); _userprofile_completion userprofile; echo "${COMPREPLY[@]}"; }
COMP_WORDS=(userprofile ba); COMP_CWORD=1; complete
COMP_WORDS=(userprofile get --tok); COMP_CWORD=2; complete
"""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "batch\n--token-file\n", done.stderr
