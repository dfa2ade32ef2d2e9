"""Everything that says who is who is replaced under load, TIMES times each: `make test-rotation`.

No call of a caller who is entitled to it may fail, and what was replaced has to be refused within the time that
docs/security.md promises.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc
import pytest

from tests.authority import Authority
from tests.issuer import AUDIENCE, ISSUER, IssuerServer, SigningKey, key_set
from tests.support import ServerProcess, documents_in, eventually, settings_for
from userprofile import TLS, UserProfileClient, UserProfileError
from userprofile_server.security import json_web_tokens
from userprofile_server.security.json_web_tokens import JsonWebTokens
from userprofile_server.security.tokens import new_token
from userprofile_server.server import UserProfileServer

TIMES = int(os.environ.get("TIMES", "10"))
CALLERS = 16
CALLER = "spiffe://example.org/a-caller"

pytestmark = pytest.mark.timeout(600)


class Files:
    """The files of a server and of its callers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.authority.issue("localhost").write(folder, "server")
        self.authority.issue(CALLER).write(folder, "caller")
        self.key = SigningKey("ES256", "key 0")
        (folder / "ca.pem").write_bytes(self.authority.pem)
        (folder / "client-ca.pem").write_bytes(self.authority.pem)
        (folder / "keys.json").write_bytes(key_set(self.key.public()))
        self.token = new_token("a-caller", folder / "tokens")
        self.allow("every*")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def allow(self, rule: str) -> None:
        """Writes a policy that allows the callers everything; `rule` tells it from others."""
        principals = ["token:a-caller", "jwt:a-caller", CALLER]
        rules = [{"name": rule, "source": {"principals": principals}}]
        self.replace("policy.json", json.dumps({"name": "p", "allow_rules": rules}).encode())

    def replace(self, name: str, content: bytes) -> None:
        """Writes a file in the worst way: a half of it, and the rest later."""
        with (self.folder / name).open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(0.05)
            file.write(content[len(content) // 2 :])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def server(files: Files) -> Iterator[ServerProcess]:
    url = f"sqlite:///{files / 'users.db'}"
    documents_in(url, {"johndoe": {"full_name": "John Doe"}})
    names = {"tls-certificate": "server.pem", "tls-key": "server.key", "tls-client-ca": "client-ca.pem"}
    names |= {"tokens": "tokens", "policy": "policy.json", "jwt-keys": "keys.json"}
    flags = [f"--{flag}={files / name}" for flag, name in names.items()]
    more = [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", "--jwt-leeway=0"]
    listen = ["--listen=tls://127.0.0.1:0", "--listen=mtls://127.0.0.1:0"]
    with ServerProcess("", "--store", url, *listen, *flags, *more) as running:
        yield running


class Listening(Protocol):
    """A server, by the lines that say where it listens."""

    @property
    def address(self) -> str: ...


def address(server: Listening, scheme: str) -> str:
    line = next(line for line in server.address.splitlines() if f"{scheme}://" in line and f"m{scheme}://" not in line)
    return f"localhost:{line.rpartition(':')[2]}"


class Load:
    """Callers who call all the time, each third of them over a new connection each time."""

    def __init__(self, connect: Callable[[], UserProfileClient]) -> None:
        self._connect = connect
        self._done = threading.Event()
        self.calls = 0
        self.failures: list[UserProfileError] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=[number % 3 == 0]) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            self.more(CALLERS)
            yield
            self.more(10 * CALLERS)
        finally:
            self._done.set()
            for thread in threads:
                thread.join()
        print(f"{self.calls} calls, {len(self.failures)} failed")
        assert self.failures == []

    def more(self, calls: int) -> None:
        wanted = self.calls + calls
        eventually(lambda: self.calls >= wanted, "calls return")

    def _call(self, anew: bool) -> None:
        client = self._connect()
        while not self._done.is_set():
            try:
                assert client.get_user("johndoe").full_name == "John Doe"
            except UserProfileError as error:
                self.failures.append(error)
            self.calls += 1
            if anew:
                client.close()
                client = self._connect()
        client.close()


def code_of(client: UserProfileClient) -> grpc.StatusCode:
    """What becomes of a call of a new client."""
    with client:
        try:
            client.get_user("johndoe")
        except UserProfileError as error:
            return error.code
    return grpc.StatusCode.OK


def by_token(server: Listening, files: Files, token: Any) -> UserProfileClient:
    return UserProfileClient(address(server, "tls"), tls=TLS(ca=files / "ca.pem"), token=token, timeout=30)


def by_certificate(server: Listening, files: Files, name: str, **options: Any) -> UserProfileClient:
    tls = TLS(ca=files / "ca.pem", certificate=files / f"{name}.pem", key=files / f"{name}.key")
    return UserProfileClient(address(server, "mtls"), tls=tls, **{"timeout": 30, **options})


def token_is_valid(server: Listening, files: Files, token: str) -> bool:
    return code_of(by_token(server, files, token)) is grpc.StatusCode.OK


def token_is_refused(server: Listening, files: Files, token: str) -> bool:
    return code_of(by_token(server, files, token)) is grpc.StatusCode.UNAUTHENTICATED


def gets_in(server: ServerProcess, files: Files, name: str) -> bool:
    return code_of(by_certificate(server, files, name, timeout=3, wait_for_ready=False)) is grpc.StatusCode.OK


def is_kept_out(server: ServerProcess, files: Files, name: str) -> bool:
    return not gets_in(server, files, name)


def said(server: ServerProcess, line: str, times: int) -> bool:
    return server.stderr.count(line) >= times


def test_the_servers_certificate(server: ServerProcess, files: Files) -> None:
    with Load(partial(by_certificate, server, files, "caller")).running():
        for number in range(TIMES):
            issued = files.authority.issue("localhost")
            files.replace("server.pem", issued.certificate)
            time.sleep(0.5 * (number % 3))  # the pair doesn't belong together for a while
            files.replace("server.key", issued.key)
            line = f"{files / 'server.pem'}: 89 days left"
            eventually(partial(said, server, line, number + 2), lambda: server.stderr)


def test_the_clients_authority_and_certificate(server: ServerProcess, files: Files) -> None:
    """As it is done: both authorities are trusted, clients get new certificates, the old authority goes."""
    shown, old = "caller", files.authority
    load = Load(lambda: by_certificate(server, files, shown))
    with load.running():
        for number in range(TIMES):
            before, after = shown, f"caller {number}"
            new = Authority(f"authority {number}")
            new.issue(CALLER).write(files.folder, after)
            files.replace("client-ca.pem", old.pem + new.pem)
            eventually(partial(gets_in, server, files, after), "certificates of the new authority get in")
            shown = after
            load.more(20 * CALLERS)  # all who connect anew have the new one by now
            assert gets_in(server, files, before)
            files.replace("client-ca.pem", new.pem)
            eventually(partial(is_kept_out, server, files, before), "those of the old one don't any more")
            old = new


def test_tokens(server: ServerProcess, files: Files) -> None:
    token = files.token
    load = Load(lambda: by_token(server, files, lambda: token))
    with load.running():
        for _ in range(TIMES):
            old, new = token, new_token("a-caller", files / "tokens")
            eventually(partial(token_is_valid, server, files, new), "the new one is known")
            token = new
            load.more(3 * CALLERS)
            lines = (files / "tokens").read_bytes().splitlines(keepends=True)
            files.replace("tokens", b"# a comment\n" + lines[-1])
            eventually(partial(token_is_refused, server, files, old), "the old one is refused")


def test_the_policy(server: ServerProcess, files: Files) -> None:
    with Load(partial(by_token, server, files, files.token)).running():
        for number in range(TIMES):
            files.allow(f"rule {number}")
            line = f"the policy {files / 'policy.json'}: read again"
            eventually(partial(said, server, line, number + 1), lambda: server.stderr)


def test_the_issuers_keys(server: ServerProcess, files: Files) -> None:
    key = files.key
    load = Load(lambda: by_token(server, files, lambda: key.token(sub="a-caller")))
    with load.running():
        for number in range(1, TIMES + 1):
            old, new = key, SigningKey("ES256", f"key {number}")
            files.replace("keys.json", key_set(old.public(), new.public()))
            eventually(partial(token_is_valid, server, files, new.token(sub="a-caller")), "the new key is known")
            key = new
            load.more(3 * CALLERS)
            files.replace("keys.json", key_set(new.public()))
            eventually(partial(token_is_refused, server, files, old.token(sub="a-caller")), "the old key is refused")


class InThisProcess(NamedTuple):
    """A server in this process, so that it can be told to fetch more often than once a minute."""

    address: str


def test_the_issuers_keys_at_a_url(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys are published before they sign, old ones go; in between the issuer is down, and nobody notices."""
    often = partial(JsonWebTokens, refresh_seconds=2.0, ask_seconds=1.0)
    monkeypatch.setattr(json_web_tokens, "JsonWebTokens", often)
    url, key = f"sqlite:///{files / 'users.db'}", files.key
    documents_in(url, {"johndoe": {"full_name": "John Doe"}})
    with IssuerServer(files.folder, key_set(key.public())) as issuer, ExitStack() as stack:
        settings = settings_for(
            url,
            listen="tls://127.0.0.1:0",
            tls_certificate=str(files / "server.pem"),
            tls_key=str(files / "server.key"),
            policy=str(files / "policy.json"),
            jwt_keys=issuer.url,
            jwt_ca=str(issuer.authorities),
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            jwt_leeway=0.0,
        )
        server = InThisProcess(stack.enter_context(UserProfileServer(settings)))
        token = files.key.token(sub="a-caller")
        eventually(partial(token_is_valid, server, files, token), "the keys are here")
        load = Load(lambda: by_token(server, files, lambda: token))
        with load.running():
            for number in range(1, TIMES + 1):
                old, new = key, SigningKey("ES256", f"key {number}")
                by_old, by_new = token, new.token(sub="a-caller")
                issuer.content = key_set(old.public(), new.public())
                eventually(partial(token_is_valid, server, files, by_new), "the new key is known")
                key, token = new, by_new
                fetches, issuer.status = issuer.fetches, 503
                eventually(partial(fetched, issuer, fetches), "the issuer is asked in vain")
                load.more(3 * CALLERS)
                issuer.status, issuer.content = 200, key_set(new.public())
                eventually(partial(token_is_refused, server, files, by_old), "the old key is refused")
            print(f"{issuer.fetches} fetches")


def fetched(issuer: IssuerServer, before: int) -> bool:
    return issuer.fetches > before + 1
