"""A variable that looks like a setting and is none has no silent effect: the programs name the one that was meant."""

import pytest
from click.testing import CliRunner

from tests.support import run
from userprofile.cli import get
from userprofile.environment import CLIENT_VARIABLES, SERVER_PREFIX, EnvironmentOption, unknown_variables
from userprofile_server.settings import Settings
from userprofile_server.settings_base import settings_in
from userprofile_server.settings_cli import CONFIG_VARIABLE

SERVER_VARIABLES = {setting.variable for setting in settings_in(Settings)} | {CONFIG_VARIABLE}
NO_STORE = "sqlite:////nowhere/users.db"


def warnings(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("warning: ")]


def warnings_of_the_server(*command: str, **env: str) -> list[str]:
    done = run("userprofile-server", *command, "--store", NO_STORE, stdin=b"", **env)
    assert done.returncode == (0 if "--dry-run" in command else 3), done.stderr
    return warnings(done.stderr)


def warnings_of_the_client(**env: str) -> list[str]:
    done = run("userprofile", "health", "--target", "127.0.0.1:1", **env)
    assert done.returncode == 4
    return warnings(done.stderr)


@pytest.mark.parametrize("command", [("serve",), ("check",), ("import", "-"), ("import", "-", "--dry-run")])
def test_every_command_of_the_server_warns_once(command: tuple[str, ...]) -> None:
    assert warnings_of_the_server(*command, USERPROFILE_STORE="secret", USERPROFILE_SERVER_WROKERS="secret") == [
        "warning: the environment variable USERPROFILE_SERVER_WROKERS is unknown and has no effect;"
        " the nearest known one is USERPROFILE_SERVER_WORKERS",
        "warning: the environment variable USERPROFILE_STORE is unknown and has no effect;"
        " the nearest known one is USERPROFILE_SERVER_STORE",
    ]


@pytest.mark.parametrize("workers", ["0", "many"])
def test_a_warning_comes_before_the_error_that_it_explains(workers: str) -> None:
    env = {"USERPROFILE_SERVER_COUCHBASE_PASWORD": "secret", "USERPROFILE_SERVER_WORKERS": workers}
    done = run("userprofile-server", "serve", **env)
    assert done.returncode == 2
    (warning,) = warnings(done.stderr)
    assert warning.endswith("the nearest known one is USERPROFILE_SERVER_COUCHBASE_PASSWORD")
    assert "secret" not in done.stderr


def test_the_client_warns_once_and_leaves_the_servers_to_the_server() -> None:
    env = {"USERPROFILE_TAGRET": "secret", "USERPROFILE_SERVER_WROKERS": "secret", "USERPROFILE_SERVER_WORKERS": "4"}
    assert warnings_of_the_client(**env) == [
        "warning: the environment variable USERPROFILE_TAGRET is unknown and has no effect;"
        " the nearest known one is USERPROFILE_TARGET"
    ]


def test_where_nothing_is_near_the_help_is() -> None:
    (warning,) = warnings_of_the_client(USERPROFILE_STORE="secret")
    assert warning.endswith("USERPROFILE_STORE is unknown and has no effect; --help lists the known ones")


@pytest.mark.parametrize("variable", sorted(SERVER_VARIABLES | CLIENT_VARIABLES))
def test_every_known_variable_is_known_to_both(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "value")
    assert unknown_variables(SERVER_VARIABLES | CLIENT_VARIABLES) == []
    assert unknown_variables(CLIENT_VARIABLES, foreign=SERVER_PREFIX) == []


@pytest.mark.parametrize("variable", sorted(SERVER_VARIABLES | CLIENT_VARIABLES))
def test_a_typo_anywhere_in_a_variable_finds_it(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = len(SERVER_PREFIX if variable.startswith(SERVER_PREFIX) else "USERPROFILE_")
    for place in (begin, (begin + len(variable)) // 2, len(variable) - 1):
        typo = variable[:place] + "X" + variable[place:]
        monkeypatch.setenv(typo, "value")
        (line,) = unknown_variables(SERVER_VARIABLES | CLIENT_VARIABLES)
        assert line.endswith(f"{typo} is unknown and has no effect; the nearest known one is {variable}")
        monkeypatch.delenv(typo)


def test_an_old_name_finds_the_servers_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SERVER_VARIABLES:
        old = variable.replace("SERVER_", "")
        if old in CLIENT_VARIABLES:
            continue
        monkeypatch.setenv(old, "value")
        (line,) = unknown_variables(SERVER_VARIABLES | CLIENT_VARIABLES)
        assert line.endswith(f" {variable}")
        monkeypatch.delenv(old)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("USERPROFILE_SERVER_WROKERS", " \n"),  # an empty one counts as unset
        ("USERPROFILE_SERVER_SERVICE_HOST", "10.0.0.1"),  # and these are what Kubernetes makes of a Service's name
        ("USERPROFILE_SERVICE_HOST", "10.0.0.1"),
        ("USERPROFILE_SERVICE_PORT", "50051"),
        ("USERPROFILE_SERVER_SERVICE_PORT_GRPC", "50051"),
        ("USERPROFILE_PORT", "tcp://10.0.0.1:50051"),
        ("USERPROFILE_SERVER_PORT", "tcp://10.0.0.1:50051"),
        ("USERPROFILE_SERVER_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("USERPROFILE_PORT_50051_TCP_PROTO", "tcp"),
        ("USERPROFILE_STAGING_SERVICE_HOST", "10.0.0.1"),
        ("USERPROFILES", "any"),
        ("MY_USERPROFILE_STORE", "any"),
        ("_USERPROFILE_COMPLETE", "bash_source"),
    ],
)
def test_what_nobody_has_meant_as_a_setting_is_not_warned_of(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert unknown_variables(SERVER_VARIABLES | CLIENT_VARIABLES) == []


def test_a_port_that_a_person_has_set_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROFILE_SERVER_PORT", "50051")
    assert len(unknown_variables(SERVER_VARIABLES)) == 1


def test_a_name_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROFILE_\x1b[31m\nerror: ", "any")
    (line,) = unknown_variables(CLIENT_VARIABLES)
    assert "USERPROFILE_\\x1b[31m\\nerror:" in line


def test_the_clients_variables_are_those_of_its_options() -> None:
    of_options = {parameter.envvar for parameter in get.params if isinstance(parameter, EnvironmentOption)}
    assert of_options | {"USERPROFILE_TOKEN"} == CLIENT_VARIABLES
    assert "USERPROFILE_" in CliRunner().invoke(get, ["--help"]).output
