"""Flag, variable, file, default: what wins, and what is said of a settings file that is wrong."""

import inspect
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from docs.update_readme import README
from tests.canary import raises
from tests.support import WAIT, loaded_settings, run, value_of
from userprofile import environment
from userprofile_server.cli import cli
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServerSettings, Settings
from userprofile_server.settings_base import Group, Setting, settings_in
from userprofile_server.settings_file import read_settings
from userprofile_server.stores.couchbase.settings import CouchbaseSettings
from userprofile_server.stores.settings import StorageSettings, StoreSettings

ALL = settings_in(Settings)
NOT_SECRET = [setting for setting in ALL if not setting.is_secret]
COMMANDS = [("serve",), ("check",), ("import", "-", "--dry-run")]
SECRET = "a value that nobody may see"


def name_of(setting: Setting) -> str:
    return setting.name


def samples(setting: Setting) -> list[Any]:
    """Values that are allowed, differ from each other and from the default: for a flag, a variable and a file."""
    if setting.kind is bool:
        return [True, False, True]
    if setting.kind is int:
        return [setting.field.default + more for more in (1, 2, 3)]
    if setting.name == "log_calls":
        return [0.25, 0.5, 1]
    if setting.kind is float:
        return [setting.field.default + more for more in (1.5, 2.5)] + [int(setting.field.default) + 4]
    if get_origin(setting.field.annotation) is Literal:
        choices = [choice for choice in get_args(setting.field.annotation) if choice != setting.field.default]
        return choices if len(choices) > 2 else [choices[0], setting.field.default, choices[0]]
    if setting.name == "jwt_algorithms":
        return ["PS256", "ES384", "EdDSA ES256"]
    if setting.name == "metrics_listen":
        return [f"127.0.0.1:{port}" for port in (1, 2, 3)]
    return [f"unix:/{name}" for name in ("flag", "variable", "file")]


def toml(setting: Setting, value: object) -> str:
    written = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"[{setting.table}]\n{setting.key} = {written}\n"


def beside(setting: Setting) -> list[str]:
    """What this setting is nothing without."""
    policy = "--policy=policy.json"
    keys, issuer, audience = "--jwt-keys=https://keys.example", "--jwt-issuer=an issuer", "--jwt-audience=an audience"
    needed = {
        "couchbase_certificate": ["--couchbase-key", "other.pem"],
        "queue_target": ["--queue-burst", "10"],
        "couchbase_key": ["--couchbase-certificate", "other.pem"],
        "jwt_keys": [issuer, audience, policy],
        "jwt_issuer": [keys, audience, policy],
        "jwt_audience": [keys, issuer, policy],
        "jwt_ca": [keys, issuer, audience, policy],
        "tokens": [policy],
        "tls_certificate": ["--tls-key=k", "--listen=tls://127.0.0.1:1"],
        "tls_key": ["--tls-certificate=c", "--listen=tls://127.0.0.1:1"],
        "tls_client_ca": ["--tls-certificate=c", "--tls-key=k", "--listen=mtls://127.0.0.1:1", policy],
    }
    return needed.get(setting.name, [])


class TestPrecedence:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "settings.toml"

    @pytest.mark.parametrize("setting", NOT_SECRET, ids=name_of)
    def test_flag_variable_file_default(self, setting: Setting, file: Path) -> None:
        of_flag, of_variable, of_file = samples(setting)
        file.write_text(toml(setting, of_file))
        assert setting.flag is not None
        flag = [setting.flag] if setting.kind is bool else [setting.flag, str(of_flag)]
        variable = {setting.variable: str(of_variable)}
        config = ["--config", str(file), *beside(setting)]

        def value(*args: str, **env: str) -> object:
            found = value_of(setting, loaded_settings(*args, **env))
            return str(found) if isinstance(found, Path) else found

        assert value(*config, *flag, **variable) == of_flag
        assert value(*config, **variable) == of_variable
        assert value(*config) == of_file
        assert value() == setting.field.default

    def test_a_file_may_be_named_by_a_variable_which_a_flag_wins_over(self, tmp_path: Path) -> None:
        for name, workers in [("a", 5), ("b", 6)]:
            (tmp_path / name).write_text(f"server.workers = {workers}")
        env = {"USERPROFILE_SERVER_CONFIG": f"{tmp_path / 'a'}\n"}
        assert loaded_settings(**env).server.workers == 5
        assert loaded_settings("--config", str(tmp_path / "b"), **env).server.workers == 6

    def test_a_secret_comes_by_its_variable_alone(self, file: Path) -> None:
        file.write_text("[couchbase]\nusername = 'user'\n")
        settings = loaded_settings("--config", str(file), USERPROFILE_SERVER_COUCHBASE_PASSWORD="secret")
        assert settings.couchbase.username == "user"
        assert settings.couchbase.password is not None
        assert settings.couchbase.password.get_secret_value() == "secret"

    @pytest.mark.parametrize("around", ["", "\ufeff", " ", "\\n", "\\r\\n", "\\t\ufeff "])
    def test_what_is_around_a_string_is_no_part_of_it_and_an_empty_one_is_not_set(
        self, file: Path, around: str
    ) -> None:
        file.write_text(f'store.url = "{around}sqlite:///a{around}"\ncouchbase.username = "{around}"\n')
        settings = loaded_settings("--config", str(file))
        assert (settings.store.url, settings.couchbase.username) == ("sqlite:///a", None)

    @pytest.mark.parametrize("name", ["", " \n"])
    def test_an_empty_name_is_no_file(self, name: str) -> None:
        assert loaded_settings("--config", name) == Settings()

    @pytest.mark.parametrize("content", [b"", b"\n# nothing\n[store]\n[log]\n"])
    def test_a_file_may_set_nothing(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert loaded_settings("--config", str(file)) == Settings()

    def test_a_file_may_have_a_byte_order_mark_and_any_line_ends(self, file: Path) -> None:
        file.write_bytes(b"\xef\xbb\xbf[server]\r\nworkers = 5\r\n")
        assert loaded_settings("--config", str(file)).server.workers == 5

    def test_levels_may_be_written_in_any_case(self, file: Path) -> None:
        file.write_text("log.level = 'ERROR'")
        assert loaded_settings("--config", str(file)).log.level == "error"


BAD: list[tuple[bytes, str]] = [
    (b"[server\n", "isn't TOML: "),
    (b"[store]\nurl = sqlite:///a\n", "isn't TOML: "),
    (b"[store]\nurl = 'a'\nurl = 'b'\n", "isn't TOML: "),
    (b"store.timeout = " + b"9" * 5000, "isn't TOML: "),
    (b"a = " + b"[" * 9000, "nested too deeply"),
    (b"\xc3(", "is not a text file in UTF-8"),
    ("[store]".encode("utf-16"), "is in UTF-16"),
    (b"#" * 65_537, "is larger than any settings file"),
    (b"[server]\nwrokers = 4\n", "unknown key server.wrokers; the nearest known one is server.workers"),
    (b"[server]\nlog-level = 4\n", "unknown key server.log-level; the nearest known one is log.level"),
    (b"[store]\nxyz = 4\n", "unknown key store.xyz; known are store.url, store.timeout"),
    (b"[server.tls]\nca = 4\n", "unknown key server.tls"),
    (b"workers = 4\n", "unknown key workers; the nearest known one is server.workers"),
    (b"xyz = 4\n", "unknown key xyz; known are store, couchbase, server, tls, callers, jwt, limits, log"),
    (b"[coucbase]\n", "unknown table coucbase; the nearest known one is couchbase"),
    (b"[xyz]\n", "unknown table xyz; known are store, couchbase, server, tls, callers, jwt, limits, log"),
    (b"[[server]]\nworkers = 4\n", "server has to be a table"),
    (b"server = 4\n", "server has to be a table"),
    (b'"\\u001b[31m\\n" = 4\n', 'unknown key "\\x1b[31m\\n";'),
    (b'"couchbase.username" = "a"\n', 'unknown key "couchbase.username"; the nearest known one is couchbase.username'),
    (b'[server]\n"log.level" = "info"\n', 'unknown key server."log.level"; the nearest known one is log.level'),
    (b'"%s" = 4\n' % (b"x" * 9000), "more characters"),
    (b"store.url = ''\nstore.timeout = 0x%s\n" % (b"f" * 9000), "store.timeout has to be a number"),
    (b'store.url = "sqlite:///a\\u0000b"\n', "store.url is not text"),
    (b'store.url = "sqlite:///a\\nb"\n', "store.url has more than one line"),
    (b'store.url = "sqlite:///a\\u001bb"\n', "store.url contains a control character"),
]


class TestBadFiles:
    @pytest.mark.parametrize(("content", "says"), BAD)
    def test_are_explained_in_words(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "settings.toml"
        path.write_bytes(content)
        with raises(ValueError, match=re.escape(says)) as caught:
            read_settings(path, ALL)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert message.isprintable()
        assert len(message) < 500

    @pytest.mark.parametrize("setting", NOT_SECRET, ids=name_of)
    def test_a_wrong_type_is_reported_with_its_key_and_without_its_value(
        self, tmp_path: Path, setting: Setting
    ) -> None:
        path = tmp_path / "settings.toml"
        wrong = ["2026-11-25", "[]", "{}", f"{{x = '{SECRET}'}}", "[1]", f"[['{SECRET}']]"]
        wrong += [] if setting.separator else [f"['{SECRET}']"]
        wrong += ["true", "1", "1.5"] if setting.kind is str else [f"'{SECRET}'", "'1'", "'true'"]
        wrong += {bool: ["1", "0"], int: ["true", "1.0"], float: ["true"], str: []}[setting.kind]
        for value in wrong:
            path.write_text(f"{setting.path} = {value}\n")
            with raises(ValueError, match=rf"settings\.toml: {setting.table}\.{setting.key} has to be ") as caught:
                read_settings(path, ALL)
            assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", [f"'{SECRET}'", f"['{SECRET}']", "1"])
    @pytest.mark.parametrize("setting", [setting for setting in ALL if setting.is_secret], ids=name_of)
    def test_a_secret_is_refused_and_not_repeated(self, tmp_path: Path, setting: Setting, value: str) -> None:
        path = tmp_path / "settings.toml"
        path.write_text(f"{setting.path} = {value}\n")
        with raises(ValueError, match=f"{setting.path} is a secret, which this file may not hold") as caught:
            read_settings(path, ALL)
        assert SECRET not in str(caught.value)
        assert setting.variable in str(caught.value)
        assert f"{setting.path}_file" in str(caught.value)
        assert f"{setting.path}_file" in [each.path for each in ALL]

    @pytest.mark.parametrize("command", COMMANDS)
    def test_are_a_wrong_option_for_every_command(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        path = tmp_path / "settings.toml"
        path.write_text(f"[couchbase]\npassword = '{SECRET}'\n")
        for args, env in [(["--config", path], {}), ([], {"USERPROFILE_SERVER_CONFIG": str(path)})]:
            done = run("userprofile-server", *command, *args, stdin=b"", **env)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"{path}: couchbase.password is a secret" in done.stderr
            assert "Traceback" not in done.stderr
            assert SECRET not in done.stderr

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("missing.toml", "No such file"),
            (".", "Is a directory"),
            ("/dev/zero", "larger than"),
        ],
    )
    def test_one_that_cannot_be_read_is_named(self, path: str, says: str) -> None:
        done = run("userprofile-server", "check", "--config", path)
        assert done.returncode == 2
        assert "Invalid value for '--config': " in done.stderr
        assert path in done.stderr
        assert says in done.stderr

    def test_a_value_out_of_range_is_reported_with_its_source(self, tmp_path: Path) -> None:
        path = tmp_path / "settings.toml"
        path.write_text("[server]\nworkers = 0\n")
        serve = "userprofile-server", "serve"
        assert f"'--workers' (from server.workers in {path}): " in run(*serve, "--config", path).stderr
        variable = {"USERPROFILE_SERVER_WORKERS": "0"}
        assert "'--workers' (from USERPROFILE_SERVER_WORKERS): " in run(*serve, "--config", path, **variable).stderr
        assert "'--workers': " in run(*serve, "--config", path, "--workers", "0", **variable).stderr
        for value in ("nan", "inf", "-1", "3601"):
            path.write_text(f"[store]\ntimeout = {value}\n")
            assert f"'--store-timeout' (from store.timeout in {path}): " in run(*serve, "--config", path).stderr

    def test_settings_that_contradict_each_other_are_reported_with_those_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "settings.toml"
        path.write_text("[couchbase]\npassword_file = 'file'\n")
        env = {"USERPROFILE_SERVER_COUCHBASE_PASSWORD": SECRET}
        done = run("userprofile-server", "check", "--config", path, **env)
        assert done.returncode == 2
        assert f"not both; {path} sets couchbase.password_file" in done.stderr
        assert SECRET not in done.stderr


class TestUse:
    def test_one_file_is_for_all_commands(self, tmp_path: Path) -> None:
        (tmp_path / "settings.toml").write_text(
            f"[store]\nurl = 'sqlite:///{tmp_path}/users.db'\n[server]\nworkers = 0\n[log]\nlevel = 'error'\n"
        )
        config = "--config", tmp_path / "settings.toml"
        done = run("userprofile-server", "import", "-", *config, stdin=b'{"username": "johndoe"}')
        assert (done.returncode, done.stderr) == (0, "")
        assert run("userprofile-server", "check", *config).stdout.endswith("ok\n")
        assert run("userprofile-server", "serve", *config).returncode == 2

    def test_paths_are_relative_to_the_working_directory_as_those_of_flags_are(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "settings.toml").write_text("store.url = 'sqlite:///users.db'")
        command = [sys.executable, "-m", "userprofile_server", "import", "-", "--config", "etc/settings.toml"]
        subprocess.run(command, cwd=tmp_path, input=b'{"username": "johndoe"}', check=True, capture_output=True)
        assert (tmp_path / "users.db").exists()

    def test_a_file_may_be_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["server.workers = 5"])
        writer.start()
        assert loaded_settings("--config", str(tmp_path / "pipe")).server.workers == 5
        writer.join()

    def test_a_pipe_that_nobody_writes_to_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "_PIPE_SECONDS", 0.1)
        os.mkfifo(tmp_path / "pipe")
        with raises(ValueError, match=r"/pipe is a pipe whose writer has not finished after 0\.1 s$"):
            read_settings(tmp_path / "pipe", ALL)

    def test_a_pipe_that_does_not_end_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "_PIPE_SECONDS", 0.1)
        os.mkfifo(tmp_path / "pipe")
        with (tmp_path / "pipe").open("r+b", buffering=0) as writer:
            writer.write(b"server.workers = 5\n")
            with raises(ValueError, match="/pipe is a pipe whose writer has not finished"):
                read_settings(tmp_path / "pipe", ALL)

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param('--config /dev/stdin <<< "$SETTINGS"', id="a here-document"),
            pytest.param('--config /dev/stdin < <(sleep 0.2; echo "$SETTINGS")', id="standard input"),
            pytest.param('--config <(sleep 0.2; echo "$SETTINGS")', id="process substitution"),
            pytest.param('--config <(echo "$SETTINGS")', id="process substitution that is over"),
        ],
    )
    def test_a_shell_can_make_the_file(self, tmp_path: Path, source: str) -> None:
        command = f"{sys.executable} -m userprofile_server check {source}"
        done = subprocess.run(
            ["bash", "-c", command],
            env=os.environ | {"SETTINGS": f"store.url = 'sqlite:///{tmp_path}/missing.db'"},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert done.returncode == 3
        assert f"{tmp_path}/missing.db" in done.stderr

    def test_a_shell_that_completes_a_command_reads_no_file(self) -> None:
        env = {"COMP_WORDS": "userprofile-server serve --work", "COMP_CWORD": "2", "USERPROFILE_STORE": "any"}
        config = {"USERPROFILE_SERVER_CONFIG": "missing.toml"}
        done = run("userprofile-server", _USERPROFILE_SERVER_COMPLETE="bash_complete", **env, **config)
        assert (done.stdout, done.stderr) == ("plain,--workers\n", "")


class TestOneDeclaration:
    @pytest.mark.parametrize("setting", ALL, ids=name_of)
    def test_gives_flag_variable_key_help_and_row(self, setting: Setting) -> None:
        assert setting.variable == f"USERPROFILE_SERVER_{setting.name.upper()}"
        flag = "--" + setting.name.replace("_", "-")
        assert setting.flag == (None if setting.is_secret else flag)
        rows = [line for line in README.read_text().splitlines() if f"| `{setting.variable}` |" in line]
        assert len(rows) == 1
        assert (f"`{flag}`" in rows[0]) is (f"`{setting.path}`" in rows[0]) is not setting.is_secret
        assert setting.field.description
        assert setting.field.description in rows[0]

    @pytest.mark.parametrize("setting", NOT_SECRET, ids=name_of)
    def test_the_help_names_flag_and_variable(self, setting: Setting) -> None:
        shown = " ".join(CliRunner().invoke(cli, ["serve", "--help"], terminal_width=200).output.split())
        assert f" {setting.flag} " in shown
        assert f"[env var: {setting.variable}" in shown

    def test_names_differ(self) -> None:
        assert len({setting.name for setting in ALL} | {"config"}) == len(ALL) + 1

    def test_the_names_that_operators_know_are_these(self) -> None:
        names = {setting.path: setting.flag or setting.variable for setting in ALL}
        assert names["store.url"] == "--store"
        assert names["store.timeout"] == "--store-timeout"
        assert names["couchbase.username"] == "--couchbase-username"
        assert names["couchbase.password"] == "USERPROFILE_SERVER_COUCHBASE_PASSWORD"
        assert names["server.listen"] == "--listen"
        assert names["server.workers"] == "--workers"
        assert names["log.level"] == "--log-level"

    def test_a_group_stands_beside_what_it_sets(self) -> None:
        modules = {table: getattr(field.annotation, "__module__", "") for table, field in Settings.model_fields.items()}
        assert modules == {
            "store": "userprofile_server.stores.settings",
            "couchbase": "userprofile_server.stores.couchbase.settings",
            "server": "userprofile_server.settings",
            "tls": "userprofile_server.security.settings",
            "callers": "userprofile_server.security.settings",
            "jwt": "userprofile_server.security.settings",
            "limits": "userprofile_server.limits",
            "log": "userprofile_server.telemetry.logs",
        }
        assert set(StorageSettings.model_fields) == {"store", "couchbase"}

    def test_the_readmes_settings_file_can_be_read(self, tmp_path: Path) -> None:
        (example,) = (block.partition("```")[0] for block in README.read_text().split("```toml\n")[1:])
        (tmp_path / "settings.toml").write_text(example)
        assert loaded_settings("--config", str(tmp_path / "settings.toml")) != Settings()


class TestEmbedding:
    """Those who run a server inside of their own program: the type checker reads these lines too."""

    def test_settings_are_made_by_keyword(self) -> None:
        settings = Settings(
            store=StoreSettings(url="couchbase://host/bucket", timeout=1),
            couchbase=CouchbaseSettings(username="user", password_file=Path("password")),
            server=ServerSettings(listen="127.0.0.1:0", workers=2),
        )
        UserProfileServer(settings)
        assert settings.server.drain_grace == 10

    def test_a_wrong_name_or_type_is_refused(self) -> None:
        with raises(ValidationError):
            StoreSettings(uri="sqlite:///a")  # type: ignore[call-arg]
        with raises(ValidationError):
            ServerSettings(workers="many")  # type: ignore[arg-type]
        with raises(ValidationError):
            Settings(workers=4)  # type: ignore[call-arg]
        with raises(ValidationError):
            Settings().server.workers = 4

    def test_an_error_does_not_show_a_secret_that_was_given_as_text(self) -> None:
        with raises(ValidationError, match="not both") as caught:
            CouchbaseSettings(password=SECRET, password_file=Path("file"))  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)

    def test_every_group_can_be_made_of_nothing(self) -> None:
        for group in (Settings, StorageSettings, StoreSettings, ServerSettings, CouchbaseSettings):
            assert issubclass(group, Group)
            assert all(each.default is not each.empty for each in inspect.signature(group).parameters.values())


@pytest.mark.parametrize(("value", "read"), [("4", 4), ('"auto"', "auto")])
def test_a_number_may_also_be_a_word(tmp_path: Path, value: str, read: object) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"[server]\nprocesses = {value}\n")
    assert loaded_settings("--config", str(path)).server.processes == read


@pytest.mark.parametrize("value", ['"4"', '"all"', "true", "1.5"])
def test_but_no_other_word(tmp_path: Path, value: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"[server]\nprocesses = {value}\n")
    with raises(ValueError, match=r'server\.processes has to be a whole number or "auto"'):
        read_settings(path, settings_in(Settings))
