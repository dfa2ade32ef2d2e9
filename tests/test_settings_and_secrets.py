"""What comes by the environment and in files: one rule for all settings and secrets of both sides."""

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import trustme
from click.testing import CliRunner
from pydantic import SecretStr

from tests.canary import raises
from tests.couchbase_node import TestCluster
from tests.store_contract.stores import couchbase_settings
from tests.support import TIME_TO_CONNECT, loaded_settings, run, value_of
from userprofile import cli_options
from userprofile.environment import clean, read_secret
from userprofile.token_file import TokenFile
from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.settings import Settings
from userprofile_server.settings_base import Setting, settings_in
from userprofile_server.stores import open_store

BOM = "\ufeff"
AROUND = ["\n", "\r\n", " \t\r\n\n", "\r"]


@pytest.mark.parametrize("value", ["secret", "with space", "=a,b", "\u00fcnic\u00f6de \U0001f98a"])
def test_what_is_around_a_value_is_no_part_of_it(value: str) -> None:
    for end in AROUND:
        assert clean(value + end) == clean(BOM + value + end) == clean("\n" + BOM + " " + value + end + BOM) == value
    assert clean(BOM + " \r\n" + BOM) == clean("") == ""


class TestSecretsInFiles:
    @pytest.mark.parametrize("content", [b"secret", b"secret\n", b"\xef\xbb\xbfsecret\r\n", b"\n secret \n\n"])
    def test_are_read(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "secret").write_bytes(content)
        assert read_secret(tmp_path / "secret") == "secret"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"\xef\xbb\xbf\r\n", "is empty"),
            ("secret\n".encode("utf-16"), "UTF-16"),
            (b"\xfe\xff" + "secret".encode("utf-16-be"), "UTF-16"),
            ("secret".encode("utf-16-le"), "UTF-16"),
            ("secret\n".encode("utf-32"), "is in UTF-32"),
            (b"\0\0\xfe\xff" + "secret".encode("utf-32-be"), "is in UTF-32"),
            ("secret".encode("utf-32-le"), "UTF-32"),
            ("s\u00e9cret".encode("latin-1"), "not a text file in UTF-8"),
            (b"\x89PNG\r\n\x1a\nsecret", "not a text file in UTF-8"),
            (b"secret\x00", "zero bytes"),
            (b"secret\nsecret\n", "more than one line"),
            (b"secret\rsecret", "more than one line"),
            (b"secret\x1b[0m", "control character"),
            (b"secret" * 20_000, "larger than any secret"),
        ],
    )
    def test_that_are_none_are_refused_in_words_without_a_word_of_them(
        self, tmp_path: Path, content: bytes, says: str
    ) -> None:
        (tmp_path / "file").write_bytes(content)
        with raises(ValueError, match=says) as caught:
            read_secret(tmp_path / "file")
        assert str(tmp_path / "file") in str(caught.value)
        assert "secret" not in str(caught.value).replace("any secret", "").replace(str(tmp_path), "")

    def test_that_cannot_be_read_are_named(self, tmp_path: Path) -> None:
        with raises(ValueError, match="can't be read: Is a directory"):
            read_secret(tmp_path)
        with raises(ValueError, match="missing can't be read: No such file"):
            read_secret(tmp_path / "missing")
        with raises(ValueError, match="larger than any secret"):
            read_secret(Path("/dev/zero"))

    def test_are_not_shown_where_their_path_should_stand(self) -> None:
        for content in ("a secret\nof two lines", "a secret\r"):
            with raises(ValueError, match="the path of a file with the secret is needed, not its content") as caught:
                read_secret(Path(content))
            assert content not in str(caught.value)

    def test_may_come_out_of_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["secret\n"])
        writer.start()
        assert read_secret(tmp_path / "pipe") == "secret"
        writer.join()


@pytest.fixture(autouse=True)
def _nothing_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("USERPROFILE_")]:
        monkeypatch.delenv(variable)


class TestServer:
    @pytest.mark.parametrize("empty", ["", "\n", " \r\n", BOM])
    @pytest.mark.parametrize("setting", settings_in(Settings), ids=lambda setting: setting.name)
    def test_an_empty_variable_counts_as_unset(self, setting: Setting, empty: str) -> None:
        assert loaded_settings(**{setting.variable: empty}) == Settings()

    @pytest.mark.parametrize("around", [*AROUND, BOM])
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("store", "couchbase://a/b", "couchbase://a/b"),
            ("store_timeout", "1.5", 1.5),
            ("couchbase_username", "user", "user"),
            ("couchbase_password", "secret", SecretStr("secret")),
            ("couchbase_password_file", "/a b", Path("/a b")),
            ("couchbase_sdk_telemetry", "true", True),
            ("shared_connection", "1", True),
            ("workers", "7", 7),
            ("listen", "127.0.0.1:1", "127.0.0.1:1"),
            ("log_level", "debug", "debug"),
        ],
    )
    def test_what_is_around_a_variable_is_no_part_of_it(
        self, name: str, value: str, expected: object, around: str
    ) -> None:
        (setting,) = (each for each in settings_in(Settings) if each.name == name)
        assert value_of(setting, loaded_settings(**{setting.variable: around + value + around})) == expected

    def test_the_content_of_a_file_in_place_of_its_path_is_refused_and_not_shown(self) -> None:
        content, says = "-----BEGIN KEY-----\nsecret\n-----END", "must be the path of a file, not its content"
        settings = [each for each in settings_in(Settings) if Path in get_args(each.field.annotation)]
        assert {"--tls-key", "--couchbase-key", "--couchbase-password-file"} <= {each.flag for each in settings}
        for setting in settings:
            with raises(ValueError, match=says) as caught:
                Settings.model_validate({setting.table: {setting.key: content}})
            assert "secret" not in str(caught.value)
        done = run("userprofile-server", "serve", USERPROFILE_SERVER_TLS_KEY=content)
        assert done.returncode == 2
        assert says in done.stderr
        assert "secret" not in done.stderr

    @pytest.mark.parametrize("between", [",", ", ", " , ", ",\n  "])
    def test_several_addresses_have_commas_between_them_and_maybe_spaces(self, between: str) -> None:
        given = between.join(["127.0.0.1:1", "unix:/run/my users.sock"])
        listeners = loaded_settings(USERPROFILE_SERVER_LISTEN=given).server.listeners
        assert [str(each) for each in listeners] == ["127.0.0.1:1", "unix:/run/my users.sock"]

    def test_an_empty_password_leaves_the_one_in_a_file(self) -> None:
        settings = loaded_settings("--couchbase-password-file", "file\n", USERPROFILE_SERVER_COUCHBASE_PASSWORD="\n")
        assert settings.couchbase.password is None
        assert settings.couchbase.password_file == Path("file")


class TestClient:
    @pytest.fixture
    def client_of(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
        """What a command makes its client of."""

        def client_of(*args: str, **env: str) -> dict[str, Any]:
            made: list[dict[str, Any]] = []

            def make(target: str, **kwargs: Any) -> Any:
                made.append({"target": target, **kwargs})
                raise ValueError("made")

            monkeypatch.setattr(cli_options, "UserProfileClient", make)
            done = CliRunner().invoke(click.command()(cli_options.connection_options(print)), list(args), env=env)
            assert made, done.output
            return made[0]

        return client_of

    @pytest.mark.parametrize("empty", ["", " \r\n", BOM])
    @pytest.mark.parametrize("name", ["--token", *cli_options._OPTIONS])
    def test_an_empty_variable_counts_as_unset(
        self, client_of: Callable[..., dict[str, Any]], name: str, empty: str
    ) -> None:
        variable = "USERPROFILE_" + name.removeprefix("--").replace("-", "_").upper()
        assert client_of(**{variable: empty}) == client_of()

    def test_what_is_around_a_variable_is_no_part_of_it(self, client_of: Callable[..., dict[str, Any]]) -> None:
        for around in [*AROUND, BOM]:
            made = client_of(
                USERPROFILE_TARGET=around + "a:1" + around,
                USERPROFILE_TOKEN=around + "token" + around,
                USERPROFILE_RETRIES="2" + around,
                USERPROFILE_TLS="true" + around,
            )
            assert (made["target"], made["token"], made["retries"], made["tls"] is not None) == (
                "a:1",
                "token",
                2,
                True,
            )

    def test_a_token_in_a_file_follows_the_same_rule(
        self, client_of: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_bytes(b"\xef\xbb\xbftoken\r\n")
        made = client_of("--token-file", str(tmp_path / "token"))
        assert made["token"] is None
        assert TokenFile(made["token_file"])() == "token"

    def test_a_token_that_is_none_is_refused_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_bytes("secret".encode("utf-16"))
        done = run("userprofile", "get", "johndoe", "--token-file", tmp_path / "token")
        assert done.returncode == 2
        assert "is in UTF-16" in done.stderr
        done = run("userprofile", "get", "johndoe", USERPROFILE_TOKEN="sec\nret")
        assert done.returncode == 2
        assert "USERPROFILE_TOKEN has more than one line" in done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[TestCluster]:
    with TestCluster(users={"username": "password", "a=b, c": "p\u00e4ss w\u00f6rd"}) as cluster:
        yield cluster


class TestCouchbase:
    """Its SDK ends the process where it doesn't like a name: every case is a process of its own."""

    @pytest.mark.parametrize("command", ["check", "import", "serve"])
    @pytest.mark.parametrize(
        ("username", "says"),
        [
            ("us\ner", "username has more than one line"),
            ("us\ter", "username contains a control character"),
            ("us\x7fer", "username contains a control character"),
            ("us\x85er", "username contains a control character"),
            ("\u00fcser", "username has letters that are not ASCII"),
            ("us\u200ber", "username has letters that are not ASCII"),
            ("\u30e6\u30fc\u30b6\u30fc", "username has letters that are not ASCII"),
        ],
    )
    def test_usernames_that_its_sdk_does_not_survive_are_refused(
        self, cluster: TestCluster, command: str, username: str, says: str
    ) -> None:
        store = f"couchbase://{cluster.hosts}/default"
        arguments = [command, *(["-"] if command == "import" else []), "--store", store]
        env = {"USERPROFILE_SERVER_COUCHBASE_USERNAME": username, "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password"}
        done = run("userprofile-server", *arguments, stdin=b"", **env)
        assert done.returncode == 3, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("password", ["pass\nword", "pass\tword", "pass\x00word", "pass\udcffword"])
    def test_passwords_that_are_none_are_refused_and_not_repeated(self, cluster: TestCluster, password: str) -> None:
        settings = couchbase_settings(f"couchbase://{cluster.hosts}/default", password=password)
        with raises(StoreMisconfiguredError, match="USERPROFILE_SERVER_COUCHBASE_PASSWORD (has|is|contains)") as caught:
            open_store(settings)
        assert "word" not in str(caught.value).replace("PASSWORD", "")

    @pytest.mark.parametrize("around", [*AROUND, BOM])
    def test_what_is_around_the_credentials_is_no_part_of_them(
        self, cluster: TestCluster, around: str, tmp_path: Path
    ) -> None:
        store = f"couchbase://{cluster.hosts}/default"
        username = {"USERPROFILE_SERVER_COUCHBASE_USERNAME": "username" + around}
        env = {"USERPROFILE_SERVER_STORE": store + around, **username, **TIME_TO_CONNECT}
        password = {"USERPROFILE_SERVER_COUCHBASE_PASSWORD": around + "password" + around}
        done = run("userprofile-server", "check", **env, **password)
        assert done.returncode == 0, done.stderr
        file = tmp_path / "password"
        file.write_text(around + "password" + around, newline="")
        done = run("userprofile-server", "check", **env, USERPROFILE_SERVER_COUCHBASE_PASSWORD_FILE=f"{file}{around}")
        assert done.returncode == 0, done.stderr
        flags = ["--store", store + around, "--couchbase-username", "username" + around]
        done = run("userprofile-server", "check", *flags, "--couchbase-password-file", file, **TIME_TO_CONNECT)
        assert done.returncode == 0, done.stderr

    def test_letters_that_mean_something_elsewhere_are_fine(self, cluster: TestCluster) -> None:
        url = f"couchbase://{cluster.hosts}/default"
        settings = couchbase_settings(url, username="a=b, c", password="p\u00e4ss w\u00f6rd")
        open_store(settings).close()

    def test_with_tls_a_username_may_have_letters_of_all_scripts(self, tmp_path: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with TestCluster(users={"\u00fcser": "password"}, tls=context) as cluster:
            url = f"couchbases://{cluster.hosts}/default"
            settings = couchbase_settings(url, username="\u00fcser", couchbase_ca=tmp_path / "ca.pem")
            open_store(settings).close()
