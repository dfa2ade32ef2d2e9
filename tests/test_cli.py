"""Both command lines as their users meet them: processes, exit statuses, what is printed where."""

import dataclasses
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import CANARY
from tests.fork_server import BIN
from tests.support import ServerProcess, documents_in, run
from userprofile import User


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    url = f"sqlite:///{tmp_path_factory.mktemp('cli') / 'users.db'}"
    users: list[dict[str, object]] = [
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
    assert done.stdout.startswith(
        "username   johndoe\nemail      johndoe@example.com\nfull name  John Doe\ndisabled   no\n"
    )


def test_get_json_is_for_scripts(process: ServerProcess) -> None:
    done = get(process, "evil", "--json")
    assert json.loads(done.stdout) == dataclasses.asdict(User("evil", full_name="\x1b[31mred\x9b"))


def test_get_shows_the_requested_fields(process: ServerProcess) -> None:
    assert get(process, "johndoe", "--fields", "email").stdout == "username   johndoe\nemail      johndoe@example.com\n"
    done = get(process, "evil", "--json", "--fields", "disabled, email,email")
    assert json.loads(done.stdout) == {"username": "evil", "email": None, "disabled": None}
    assert json.loads(get(process, "evil", "--json", "--fields", "username").stdout) == {"username": "evil"}


def test_get_shows_all_fields_for_an_asterisk(process: ServerProcess) -> None:
    for fields in ("*", "email, *"):
        assert get(process, "johndoe", "--fields", fields).stdout == get(process, "johndoe").stdout


@pytest.mark.parametrize(
    "fields", ["shoe_size", "", "email,", "email full_name", "*,shoe_size", "hashed_password", "\x1b[31m"]
)
def test_fields_that_there_are_not_are_a_wrong_option(process: ServerProcess, fields: str) -> None:
    done = get(process, "johndoe", "--fields", fields)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a field; the fields are username, email, full_name, disabled" in done.stderr
    assert "\x1b" not in done.stderr


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
    assert done.stderr.startswith(f"error: no userprofile server reachable at {target}; is it running? (")
    assert "Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1


def test_get_waits_no_longer_than_its_timeout() -> None:
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
     ("userprofile-server", "import"), ("userprofile-server", "check"), ("userprofile-server", "completion")],
)  # fmt: skip
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "..." not in done.stdout.replace("ARGS]...", "").replace("[USERNAMES]...", "")  # nothing is cut


def test_settings_come_from_flag_then_environment(store_url: str) -> None:
    with ServerProcess(store_url, "--log-level", "error") as server:
        assert server.address.startswith("127.0.0.1:")
    done = run("userprofile-server", "serve", USERPROFILE_SERVER_LISTEN="0.0.0.0:0", USERPROFILE_SERVER_STORE=store_url)
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


def test_a_queue_whose_target_is_longer_than_its_burst_is_refused() -> None:
    done = run("userprofile-server", "serve", "--queue-target", "0.5", "--queue-burst", "0.2")
    assert done.returncode == 2
    assert "Error: --queue-target (0.5) must not be longer than --queue-burst (0.2)\n" in done.stderr


def test_a_server_that_cannot_start_says_so_in_a_line(tmp_path: Path, store_url: str, process: ServerProcess) -> None:
    missing = f"sqlite:///{tmp_path}/missing/a.db"
    done = run("userprofile-server", "serve", "--store", missing, "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    done = run("userprofile-server", "serve", "--store", store_url, "--listen", process.address)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"error: can't listen on {process.address}: Address already in use\n" in done.stderr


def test_the_server_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\", name='pydantic')")
    done = run("userprofile-server", "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'userprofile[server]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["'userprofile_server.settings'", "'userprofile.v1'", "None"])
def test_a_module_of_ours_that_is_missing_is_nothing_to_install(tmp_path: Path, name: str) -> None:
    (tmp_path / "pydantic.py").write_text(f"raise ModuleNotFoundError('gone', name={name})")
    done = run("userprofile-server", "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ModuleNotFoundError: gone" in done.stderr
    assert "pip install" not in done.stderr


@pytest.mark.parametrize(
    "fault",
    ["ModuleNotFoundError(\"No module named 'couchbase'\", name='couchbase')", "ImportError('no libssl.so.3')"],
    ids=["missing", "broken"],
)
def test_couchbase_without_its_sdk_says_what_to_install(tmp_path: Path, store_url: str, fault: str) -> None:
    (tmp_path / "couchbase.py").write_text(f"raise {fault}")
    for scheme, command, *args in (
        ["couchbase", "check"],
        ["couchbases", "serve", "--listen", "127.0.0.1:0"],
        ["couchbase", "import", "-"],
    ):
        url = f"{scheme}://127.0.0.1:1/users"
        done = run("userprofile-server", command, *args, "--store", url, stdin="", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout.partition(" ")[0]) == (3, "0" if command == "import" else "")
        assert "pip install 'userprofile[server,couchbase]'" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
    assert run("userprofile-server", "check", "--store", store_url, PYTHONPATH=str(tmp_path)).returncode == 0


def test_serving_sqlite_imports_nothing_of_couchbase(store_url: str) -> None:
    code = f"""
import sys, userprofile_server.cli
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import Settings
with UserProfileServer(Settings(store={{"url": {store_url!r}}}, server={{"listen": "127.0.0.1:0"}})):
    print([name for name in sys.modules if name.split(".")[0] == "couchbase"])"""
    assert run("python", "-c", code).stdout == "[]\n"


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


@pytest.mark.parametrize("command", ["serve", "check", "import"])
@pytest.mark.parametrize(
    "url", ["users.db", "sqlite://users.db", "sqlite:///a.db?mode=ro", "mysql://h/b", "couchbase://"]
)
def test_an_invalid_store_url_is_a_usage_error_in_one_line(command: str, url: str) -> None:
    file = ["-"] if command == "import" else []
    done = run("userprofile-server", command, *file, "--store", url, stdin=b"")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("Invalid value for '--store'") == 1
    assert "ERROR" not in done.stderr


def test_a_store_that_cannot_be_used_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "users.db").write_text("this is no database" * 100)
    done = run("userprofile-server", "serve", "--store", f"sqlite:///{tmp_path}/users.db", "--listen", "127.0.0.1:0")
    assert done.returncode == 3
    assert done.stderr.count("not a SQLite database") == 1


@pytest.mark.parametrize("level", ["INFO", "Info", "info"])
def test_levels_may_be_written_in_any_case(store_url: str, level: str) -> None:
    documents_in(store_url, {})
    with ServerProcess(store_url, "--log-level", level):
        pass
    with ServerProcess(store_url, USERPROFILE_SERVER_LOG_LEVEL=level):
        pass


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("no-such-host.invalid:1", "can't listen on no-such-host.invalid:1: "),
        ("192.0.2.1:50051", "this machine has no such address"),
        ("0.0.0.0:0", "add --allow-plaintext"),
    ],
)
def test_an_address_that_is_refused_is_refused_for_the_right_reason(address: str, says: str) -> None:
    done = run("userprofile-server", "serve", "--listen", address)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_a_unix_socket_that_cannot_be_made_says_why(tmp_path: Path, store_url: str) -> None:
    documents_in(store_url, {})
    (tmp_path / "file").touch()
    for path, says in [
        ("none/x.sock", "there is no folder"),
        ("file", "the path exists and isn't a socket"),
        ("", ""),
    ]:
        done = run("userprofile-server", "serve", "--store", store_url, "--listen", f"unix:{tmp_path}/{path}")
        assert done.returncode == 3
        assert f"error: can't listen on unix:{tmp_path}/{path}: {says}" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_servers_command_can_be_completed(shell: str) -> None:
    done = run("userprofile-server", "completion", shell)
    assert done.returncode == 0
    assert "_USERPROFILE_SERVER_COMPLETE" in done.stdout
    typed = {"COMP_WORDS": "userprofile-server ser", "COMP_CWORD": "1"}
    done = run("userprofile-server", _USERPROFILE_SERVER_COMPLETE=f"{shell}_complete", **typed)
    assert "serve" in done.stdout or shell == "fish"


STREAMS = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "| true"]


COMMANDS = ["check", "import - --dry-run", "completion bash"]


@pytest.mark.parametrize(
    ("command", "streams"),
    [
        *itertools.product(["--help"], STREAMS),
        *itertools.product(COMMANDS, [">/dev/full"]),
        *itertools.product(["import - --dry-run", "serve --workers 0"], ["<&- >&- 2>&-"]),
        ("completion bash", "| true"),
    ],
)
def test_no_stream_makes_a_traceback(command: str, streams: str, store_url: str) -> None:
    documents_in(store_url, {})
    lost = ">/dev/full" in streams.replace("2>", "")
    script = f'"{BIN}/userprofile-server" {command} {streams}'
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        input='{"username": "č", "č": 1, "hashed_password": "h"}'.encode(),
        capture_output=True,
        env=os.environ | {"USERPROFILE_SERVER_STORE": store_url, "PYTHONIOENCODING": "ascii:strict"},
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    if lost and "workers" not in command:
        assert done.returncode == 3
        assert "2>" in streams or done.stderr.endswith(
            b"error: standard output can't be written: No space left on device\n"
        )
    if "workers" in command and "|" not in streams:
        assert done.returncode == 2
