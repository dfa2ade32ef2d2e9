"""Both command lines as their users meet them: processes, exit statuses, what is printed where."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import CANARY
from tests.support import ServerProcess, run


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    url = f"sqlite:///{tmp_path_factory.mktemp('cli') / 'users.db'}"
    users = [
        {"username": "johndoe", "email": "johndoe@example.com", "full_name": "John Doe", "disabled": False},
        {"username": "evil", "full_name": "\x1b[31mred\x9b"},
    ]
    lines = "\n".join(json.dumps({**user, "hashed_password": CANARY}) for user in users)
    assert run("userprofile-server", "import", "-", "--store", url, stdin=lines.encode()).returncode == 0
    with ServerProcess(url) as process:
        yield process


def get(process: ServerProcess, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return run("userprofile", "get", *args, "--target", process.address, **env)


def test_get_is_readable(process: ServerProcess) -> None:
    done = get(process, "johndoe")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("username   johndoe\nemail      johndoe@example.com\nfull name  John Doe\ndisabled   no\n")


def test_get_json_is_for_scripts(process: ServerProcess) -> None:
    done = get(process, "evil", "--json")
    assert json.loads(done.stdout) == {
        "username": "evil",
        "email": None,
        "full_name": "\x1b[31mred\x9b",
        "disabled": None,
    }


def test_a_profiles_text_cannot_steer_the_terminal(process: ServerProcess) -> None:
    assert "full name  \\x1b[31mred\\x9b\n" in get(process, "evil").stdout


@pytest.mark.parametrize(("username", "status", "says"), [("nobody", 3, "no such user"), ("", 2, "must not be empty")])
def test_get_says_why_not_and_exits_accordingly(process: ServerProcess, username: str, status: int, says: str) -> None:
    done = get(process, username)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_get_of_a_name_that_is_no_text_at_all(process: ServerProcess) -> None:
    done = run("userprofile", "get", os.fsdecode(b"\xff"), "--target", process.address)
    assert done.returncode == 2
    assert "valid Unicode" in done.stderr


def test_get_helps_where_no_server_is() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        done = run("userprofile", "get", "johndoe", "--target", target)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: no userprofile server answers at {target}; is it running? (")
    assert "Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1


def test_get_waits_no_longer_than_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("userprofile", "get", "johndoe", "--target", target, "--timeout", "0.3")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


def test_the_target_can_come_from_the_environment(process: ServerProcess) -> None:
    done = run("userprofile", "get", "johndoe", USERPROFILE_TARGET=process.address)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "command",
    [("userprofile",), ("userprofile", "get"), ("userprofile-server",), ("userprofile-server", "serve"),
     ("userprofile-server", "import")],
)  # fmt: skip
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_settings_come_from_flag_then_environment(store_url: str) -> None:
    with ServerProcess(store_url, "--log-level", "error") as server:
        assert server.address.startswith("127.0.0.1:")
    done = run("userprofile-server", "serve", USERPROFILE_LISTEN="0.0.0.0:0", USERPROFILE_STORE=store_url)
    assert done.returncode == 2
    assert "Invalid value for '--listen'" in done.stderr
    assert "--allow-plaintext" in done.stderr


@pytest.mark.parametrize(
    ("flag", "value"), [("--workers", "0"), ("--workers", "many"), ("--store-timeout", "0"), ("--log-level", "loud")]
)
def test_a_bad_setting_is_named(flag: str, value: str) -> None:
    done = run("userprofile-server", "serve", flag, value)
    assert done.returncode == 2
    assert f"Invalid value for '{flag}'" in done.stderr


def test_a_server_that_cannot_start_says_so_in_a_line(tmp_path: Path, process: ServerProcess) -> None:
    missing = f"sqlite:///{tmp_path}/missing/a.db"
    done = run("userprofile-server", "serve", "--store", missing, "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    done = run("userprofile-server", "serve", "--store", f"sqlite:///{tmp_path}/a.db", "--listen", process.address)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"error: can't listen on {process.address}: Address already in use\n" in done.stderr


def test_the_server_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\", name='pydantic')")
    done = run("userprofile-server", "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'userprofile[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_needs_none_of_the_servers_packages() -> None:
    heavy = "pydantic", "couchbase", "argon2", "userprofile_server"
    code = f"import sys, userprofile, userprofile.cli; print([name for name in {heavy!r} if name in sys.modules])"
    assert run("python", "-c", code).stdout == "[]\n"


def test_import_shows_progress_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"username": f"user{number}", "hashed_password": "h"}) for number in range(5000)]
    path.write_text("\n".join(["bad", *lines]))
    # It says of its standard error that this is a terminal: a machine need not have any to give.
    program = """if True:
        import sys
        from userprofile_server import __main__, standard_streams
        prepare = standard_streams.prepare
        standard_streams.prepare = lambda: (prepare(), setattr(sys.stderr, "isatty", lambda: True))
        __main__.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", program, "import", path, "--store", f"sqlite:///{tmp_path / 'users.db'}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith(b"5000 users imported")
    shown = done.stderr
    assert b"importing" in shown
    assert b"100%" in shown
    assert b"\r\x1b[Kline 1: not JSON" in shown
