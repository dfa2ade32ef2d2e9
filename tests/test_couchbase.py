"""The Couchbase store's own ways, by the real SDK over real sockets. What all stores must do is in store_contract/."""

import inspect
import json
import os
import re
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trustme
from couchbase import exceptions as sdk
from pydantic import SecretStr, ValidationError

from tests.canary import CANARY, look, raises
from tests.certificates import BAD_AUTHORITIES, BAD_PAIRS, MadeFiles
from tests.couchbase_node import Rights, TestCluster
from tests.couchbase_node.protocol import Opcode
from tests.store_contract.stores import couchbase_settings
from tests.support import COUCHBASE_CREDENTIALS, ServerProcess, document, run, settings_for, user_document
from userprofile_server.errors import (
    CorruptDocumentError,
    DocumentsRefusedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.importing import Importer
from userprofile_server.settings import Settings
from userprofile_server.stores import open_store
from userprofile_server.stores.base import Document, DocumentStore
from userprofile_server.stores.couchbase import errors as sdk_errors
from userprofile_server.stores.couchbase.settings import CouchbaseSettings
from userprofile_server.users.documents import document_key
from userprofile_server.users.lookup import get_user

KEY = "userprofile::johndoe"
NOTHING = Rights(buckets=frozenset())


@pytest.fixture
def cluster() -> Iterator[TestCluster]:
    with TestCluster() as cluster:
        yield cluster


@pytest.fixture
def settings(cluster: TestCluster) -> Settings:
    return couchbase_settings(f"couchbase://{cluster.hosts}/default")


@pytest.fixture
def store(settings: Settings) -> Iterator[DocumentStore]:
    store = open_store(settings)
    yield store
    store.close()


class TestCredentials:
    def test_are_needed(self, cluster: TestCluster) -> None:
        with raises(StoreMisconfiguredError, match="USERPROFILE_SERVER_COUCHBASE_PASSWORD") as caught:
            open_store(settings_for(f"couchbase://{cluster.hosts}/default"))
        assert caught.value.permanent

    def test_are_given_in_one_way(self) -> None:
        with raises(ValidationError, match="not both"):
            CouchbaseSettings(password=SecretStr("a"), password_file=Path("b"))
        with raises(ValidationError, match="go together"):
            CouchbaseSettings(certificate=Path("b"))
        with raises(ValidationError, match="not both"):
            CouchbaseSettings(certificate=Path("b"), key=Path("b"), password=SecretStr("a"))
        with raises(StoreMisconfiguredError, match="needs couchbases://"):
            open_store(settings_for("couchbase://a/b", couchbase_certificate=Path("b"), couchbase_key=Path("b")))

    def test_that_are_wrong_are_named_and_not_repeated(self, cluster: TestCluster) -> None:
        wrong = couchbase_settings(f"couchbase://{cluster.hosts}/default", password="secret")
        with raises(StoreMisconfiguredError, match="username or password is wrong") as caught:
            open_store(wrong)
        assert not caught.value.permanent  # the cluster may be repaired
        assert "secret" not in str(caught.value) + repr(wrong)

    def test_in_a_file_are_read_anew_for_each_connection(self, cluster: TestCluster, tmp_path: Path) -> None:
        file = tmp_path / "password"
        settings = settings_for(
            f"couchbase://{cluster.hosts}/default", couchbase_username="username", couchbase_password_file=file
        )
        with raises(StoreMisconfiguredError, match="can't be read"):
            open_store(settings)
        file.write_text("password\n")
        open_store(settings).close()
        cluster.users["username"] = "rotated"
        file.write_text("rotated\n")
        open_store(settings).close()

    def test_in_a_pipe_are_refused_and_not_waited_for(self, cluster: TestCluster, tmp_path: Path) -> None:
        """The first connection would empty it, and every other one would wait for ever."""
        os.mkfifo(tmp_path / "pipe")
        password: dict[str, Any] = {"couchbase_password": None, "couchbase_password_file": tmp_path / "pipe"}
        with raises(StoreMisconfiguredError, match="pipe is a pipe, but must be a file") as caught:
            open_store(couchbase_settings(f"couchbase://{cluster.hosts}/default", **password))
        assert caught.value.permanent

    def test_have_no_flag_for_the_password(self) -> None:
        assert "--couchbase-password " not in run("userprofile-server", "serve", "--help").stdout


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_cluster(authority: trustme.CA) -> Iterator[TestCluster]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    with TestCluster(tls=context) as cluster:
        cluster.put(KEY, document("johndoe"))
        yield cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> MadeFiles:
    return MadeFiles(tmp_path_factory.mktemp("certificates"))


class TestTLS:
    def test_connects_by_password_to_who_can_be_trusted(
        self, tls_cluster: TestCluster, authority: trustme.CA, tmp_path: Path
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        url = f"couchbases://{tls_cluster.hosts}/default"
        store = open_store(couchbase_settings(url, couchbase_ca=tmp_path / "ca.pem"))
        assert get_user(store, "johndoe", timeout=5).username == "johndoe"
        store.close()

    def test_connects_by_a_client_certificate(
        self, tls_cluster: TestCluster, authority: trustme.CA, tmp_path: Path
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        client = authority.issue_cert("service@example.com", common_name="username")
        client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
        client.private_key_pem.write_to_path(tmp_path / "client.key")
        store = open_store(
            settings_for(
                f"couchbases://{tls_cluster.hosts}/default",
                couchbase_certificate=tmp_path / "client.pem",
                couchbase_key=tmp_path / "client.key",
                couchbase_ca=tmp_path / "ca.pem",
            )
        )
        assert get_user(store, "johndoe", timeout=5).username == "johndoe"
        assert Opcode.SASL_AUTH not in tls_cluster.nodes[0].requests
        store.close()

    def test_does_not_connect_to_who_cannot_be_trusted(self, tls_cluster: TestCluster, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        url = f"couchbases://{tls_cluster.hosts}/default"
        untrusted: dict[str, Any] = {"couchbase_ca": tmp_path / "other.pem", "couchbase_bootstrap_timeout": 0.5}
        with raises(StoreUnavailableError):
            open_store(couchbase_settings(url, **untrusted))

    @pytest.mark.parametrize(("name", "says"), BAD_AUTHORITIES.items())
    def test_authorities_that_cannot_be_used_are_named(self, files: MadeFiles, name: str, says: str) -> None:
        settings = couchbase_settings("couchbases://127.0.0.1:1/default", couchbase_ca=files / name)
        with raises(StoreMisconfiguredError, match="can't be used as certificate authorities") as caught:
            open_store(settings)
        assert says in str(caught.value)
        assert not caught.value.permanent  # a file that is just being replaced may be right in a moment

    @pytest.mark.parametrize(("names", "says"), BAD_PAIRS.items(), ids=str)
    def test_a_certificate_or_key_that_cannot_be_used_is_named(
        self, files: MadeFiles, names: tuple[str, str], says: str
    ) -> None:
        certificate, key = (files / name for name in names)
        settings = settings_for(
            "couchbases://127.0.0.1:1/default", couchbase_certificate=certificate, couchbase_key=key
        )
        with raises(StoreMisconfiguredError, match="can't be used as a") as caught:
            open_store(settings)
        assert says in str(caught.value)
        assert not any(secret.decode() in str(caught.value) for secret in files.secrets)

    def test_a_missing_file_is_named(self) -> None:
        settings = couchbase_settings("couchbases://127.0.0.1:1/default", couchbase_ca=Path("missing.pem"))
        with raises(StoreMisconfiguredError, match=r"missing\.pem doesn't exist"):
            open_store(settings)


@pytest.mark.parametrize(
    "flags", [0, 0x02000000, 0x02000006, 0x00000006, 0x01000000, 0x03000002, 0x04000004, 0x06000000, 0xFFFFFFFF]
)
def test_documents_are_read_whatever_their_flags(cluster: TestCluster, store: DocumentStore, flags: int) -> None:
    cluster.put(KEY, document("johndoe", email="j@example.com"), flags=flags)
    assert get_user(store, "johndoe", timeout=5).email == "j@example.com"


def test_documents_are_written_with_the_flags_of_json(cluster: TestCluster, store: DocumentStore) -> None:
    store.put([user_document("johndoe")], timeout=5)
    written = cluster.stored(KEY)
    assert written is not None
    assert written.flags == 0x02000000


def test_every_exception_of_the_sdk_is_decided() -> None:
    known = {kind for _, kind in inspect.getmembers(sdk, inspect.isclass) if issubclass(kind, sdk.CouchbaseException)}
    decided = [
        sdk_errors.TIMEOUTS, sdk_errors.MISCONFIGURED.keys(), sdk_errors.UNAVAILABLE,
        sdk_errors.OUTCOMES, sdk_errors.NEVER,
    ]  # fmt: skip
    assert len(known) > 50
    assert known == frozenset().union(*decided)
    assert sum(map(len, decided)) == len(known), "decided twice"


@pytest.mark.parametrize(
    ("status", "expected", "match"),
    [
        (0x20, StoreMisconfiguredError, "username or password"),
        (0x24, StoreMisconfiguredError, "username or password"),
        (0x08, StoreMisconfiguredError, "bucket"),
        (0x88, StoreMisconfiguredError, "collection doesn't exist"),
        (0x81, StoreMisconfiguredError, "too old"),
        (0x86, StoreUnavailableError, "key_value_temporary_failure"),
        (0x85, StoreUnavailableError, "TemporaryFail"),
        (0x07, StoreUnavailableError, "key_value_not_my_vbucket"),
        (0x09, StoreUnavailableError, "DocumentLocked"),
        (0x30, StoreUnavailableError, "RateLimited"),
        (0x84, StoreUnavailableError, "InternalServerFailure"),
        (0xEE, StoreUnavailableError, "code 1004"),
    ],
)
def test_a_status_of_the_node_becomes_the_domains_error_without_the_users_name(
    cluster: TestCluster, store: DocumentStore, status: int, expected: type[Exception], match: str
) -> None:
    cluster.fault(statuses={Opcode.GET: status})
    with raises(expected, match=match) as caught:
        get_user(store, "johndoe", timeout=0.3)
    assert type(caught.value) is expected
    assert "johndoe" not in str(caught.value)


def test_a_missing_scope_or_collection_is_named(cluster: TestCluster) -> None:
    for query in ("scope=no&collection=such", "collection=such"):
        store = open_store(couchbase_settings(f"couchbase://{cluster.hosts}/default?{query}"))
        with raises(StoreMisconfiguredError, match="(scope|collection) doesn't exist"):
            store.probe(timeout=0.3)
        store.close()


def test_a_silent_node_is_waited_for_no_longer_than_the_timeout(cluster: TestCluster, store: DocumentStore) -> None:
    cluster.fault(frozen=True)
    with raises(StoreTimeoutError):
        get_user(store, "johndoe", timeout=0.05)
    with raises(StoreTimeoutError):
        store.probe(timeout=0.05)
    with raises(StoreError):
        get_user(store, "johndoe", timeout=1e-9)  # no time at all, and not the SDK's default
    cluster.fault()
    with raises(UserNotFoundError):
        get_user(store, "johndoe", timeout=5)


def test_a_put_that_fails_says_so_and_may_be_repeated(cluster: TestCluster, store: DocumentStore) -> None:
    documents = [user_document(f"user{number}") for number in range(50)]
    cluster.fault(statuses={Opcode.ADD: 0x86})
    with raises(StoreUnavailableError):
        store.put(documents, timeout=0.2)
    cluster.fault()
    assert store.put(documents, timeout=5) == 0
    assert store.put(documents, timeout=5) == 50


def test_a_put_stores_what_belongs_to_the_nodes_that_are_left_and_says_that_one_is_lost() -> None:
    documents = [user_document(f"user{number}") for number in range(50)]
    with TestCluster(3) as cluster:
        store = open_store(couchbase_settings(f"couchbase://{cluster.hosts}/default"))
        cluster.stop(2)
        with raises(StoreUnavailableError):
            store.put(documents, timeout=0.5)
        stored = sum(cluster.stored(f"userprofile::user{number}") is not None for number in range(50))
        assert 0 < stored < 50
        cluster.start(2)
        assert store.put(documents, timeout=5) == stored
        store.close()


def test_corrupt_documents_stay_unseen_here_too(cluster: TestCluster, store: DocumentStore) -> None:
    cluster.put(KEY, b"not json: " + CANARY.encode(), flags=0x04000004)
    with raises(CorruptDocumentError):
        get_user(store, "johndoe", timeout=5)


USES: dict[str, Callable[[DocumentStore], object]] = {
    "get": lambda store: store.get(KEY, timeout=1),
    "get_many": lambda store: store.get_many([KEY, "another"], lambda _key, content: content, timeout=1),
    "put": lambda store: store.put([user_document("johndoe")], timeout=1),
    "probe": lambda store: store.probe(timeout=1),
}


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("use", USES)
def test_a_connection_carried_across_a_fork_fails_at_once(cluster: TestCluster, store: DocumentStore, use: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            USES[use](store)
        except StoreMisconfiguredError as error:
            os._exit(0 if "another process" in str(error) else 2)
        os._exit(3)
    for _ in range(500):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    with raises(UserNotFoundError):  # and the parent's goes on
        get_user(store, "johndoe", timeout=5)


def test_the_sdk_may_not_print_packets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCBC_LOG_LEVEL", "TRACE")
    with raises(StoreMisconfiguredError, match="unset it"):
        open_store(settings)


def test_serving_sqlite_does_not_import_the_sdk() -> None:
    code = "import sys, userprofile_server.cli, userprofile_server.server; print('couchbase' in sys.modules)"
    assert run("python", "-c", code).stdout == "False\n"


class TestCheck:
    """`userprofile-server check`."""

    def check(self, url: str, *args: object, **env: str) -> "subprocess.CompletedProcess[str]":
        quick = {"USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "1"}  # when all is well it takes far less
        return run("userprofile-server", "check", "--store", url, *args, **(COUCHBASE_CREDENTIALS | quick | env))

    def test_says_that_all_is_well(self, cluster: TestCluster) -> None:
        done = self.check(f"couchbase://{cluster.hosts}/default")
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["connected", "read", "ok"]

    def test_serves_sqlite_too(self, store_url: str) -> None:
        assert self.check(store_url).stdout.endswith("ok\n")

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("couchbase://HOSTS/nope", "the bucket 'nope' can't be opened: it doesn't exist, or isn't ready yet"),
            ("couchbase://HOSTS/default?collection=nope", "the collection doesn't exist, or this user may not see it"),
            ("couchbase://HOSTS/default?scope=nope&collection=nope", "the scope doesn't exist, or this user may not"),
            ("couchbase://127.0.0.1:1/default", "127.0.0.1:1: Connection refused"),
            ("couchbase://[::1]:1/default", "[::1]:1: "),
            ("couchbase://127.0.0.1:1,[::1]:1/default", "127.0.0.1:1: Connection refused; [::1]:1: "),
            ("couchbase://no-such-host.invalid/default", "no-such-host.invalid: Name or service not known"),
            ("couchbases://HOSTS/default", "no TLS there"),
        ],
    )
    def test_says_what_is_wrong(self, cluster: TestCluster, url: str, says: str) -> None:
        done = self.check(url.replace("HOSTS", cluster.hosts))
        assert done.returncode == 3
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("couchbase://127.0.0.1:8091/default", "port 8091 is the one of Couchbase's web console"),
            ("couchbase://user:secret@HOSTS/default", "credentials don't belong in the URL"),
            ("mysql://HOSTS/default", "a store's URL begins with one of: sqlite://, couchbase://, couchbases://"),
        ],
    )
    def test_a_url_that_is_none_is_a_wrong_option(self, cluster: TestCluster, url: str, says: str) -> None:
        done = self.check(url.replace("HOSTS", cluster.hosts))
        assert done.returncode == 2
        assert f"Invalid value for '--store': {says}" in done.stderr
        assert "secret" not in done.stderr

    def test_says_that_the_password_is_wrong(self, cluster: TestCluster) -> None:
        done = self.check(f"couchbase://{cluster.hosts}/default", USERPROFILE_SERVER_COUCHBASE_PASSWORD="secret")
        assert done.returncode == 3
        assert "username or password is wrong" in done.stderr
        assert "secret" not in done.stderr

    def test_says_that_the_user_may_not_use_the_bucket(self, cluster: TestCluster) -> None:
        for rights, bucket in ((NOTHING, "default"), (Rights(buckets=frozenset({"default"})), "nope")):
            cluster.grant(rights)
            done = self.check(f"couchbase://{cluster.hosts}/{bucket}")
            assert done.returncode == 3
            assert "the bucket doesn't exist, or isn't ready yet, or this user may not see it" in done.stderr

    def test_says_that_the_user_may_not_see_the_collection(self, cluster: TestCluster) -> None:
        cluster.add_collection("app", "users")
        for path, query in (("app.users", ""), ("_default._default", "?scope=app&collection=users")):
            cluster.grant(Rights(collections=frozenset({path})))
            done = self.check(f"couchbase://{cluster.hosts}/default{query}")
            assert done.returncode == 3
            assert "the collection doesn't exist, or this user may not see it" in done.stderr

    @pytest.mark.parametrize(
        ("status", "says"), [(0x01, "the bucket 'default' can't be opened"), (0x86, "isn't ready")]
    )
    def test_says_that_the_bucket_is_not_ready(self, cluster: TestCluster, status: int, says: str) -> None:
        cluster.fault(warming_up=status)
        done = self.check(f"couchbase://{cluster.hosts}/default")
        assert done.returncode == 3
        assert says in done.stderr

    def test_says_that_a_host_can_be_reached_over_tls_though_its_bucket_cannot_be_opened(
        self, tls_cluster: TestCluster, authority: trustme.CA, tmp_path: Path
    ) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        tls_cluster.fault(warming_up=0x01)
        done = self.check(f"couchbases://{tls_cluster.hosts}/default", "--couchbase-ca", tmp_path / "ca.pem")
        assert done.returncode == 3
        assert f"{tls_cluster.hosts} can be reached\n" in done.stdout

    def test_says_that_a_node_is_silent(self, cluster: TestCluster) -> None:
        cluster.fault(mute=True)
        done = self.check(f"couchbase://{cluster.hosts}/default")
        assert done.returncode == 3
        assert "the hosts can be reached, but the store can't be used" in done.stderr

    def test_says_how_long_certificates_are_valid(
        self, tls_cluster: TestCluster, authority: trustme.CA, files: MadeFiles, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes((files / "some expired.pem").read_bytes() + authority.cert_pem.bytes())
        url = f"couchbases://{tls_cluster.hosts}/default"
        done = self.check(url, "--couchbase-ca", ca)
        assert done.returncode == 0
        assert re.search(
            rf"{ca}: 2 authorities, the first of them with \d+ days left \(until .*\); 1 more expired", done.stdout
        )
        pair = "--couchbase-certificate", files / "own.pem", "--couchbase-key", files / "own.key"
        done = run("userprofile-server", "check", "--store", url, "--couchbase-ca", ca, *pair)
        assert f"{files / 'own.pem'}: a client certificate with 90 days left" in done.stdout

    @pytest.mark.parametrize("name", ["empty", "garbage", "expired ca.pem", "own.key", "folder"])
    def test_says_why_a_file_cannot_be_used(self, files: MadeFiles, name: str) -> None:
        done = self.check("couchbases://127.0.0.1:1/default", "--couchbase-ca", files / name)
        assert done.returncode == 3
        assert f"{files / name} can't be used as certificate authorities: " in done.stderr
        assert BAD_AUTHORITIES[name] in done.stderr
        assert done.stderr.count("\n") == 1

    def test_says_that_a_node_takes_no_more_connections(self, cluster: TestCluster) -> None:
        cluster.fault(full=True)
        done = self.check(f"couchbase://{cluster.hosts}/default")
        assert done.returncode == 3
        assert f"{cluster.hosts}: closes connections at once, like a node at its connection limit" in done.stderr

    def test_says_that_the_port_is_for_tls(self, tls_cluster: TestCluster) -> None:
        done = self.check(f"couchbase://{tls_cluster.hosts}/default")
        assert done.returncode == 3
        assert "couchbases://" in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("command", ["check", "import"])
    @pytest.mark.parametrize(
        ("response", "says"),
        [
            # At these the SDK would abort the process.
            (bytes(64), "doesn't speak Couchbase's protocol"),
            (bytes.fromhex("811f0009") + bytes(20), "its response is malformed"),  # a key without a body
            (bytes.fromhex("811f000001") + bytes(19), "its response is malformed"),  # extras without a body
            (bytes.fromhex("181f0300") + bytes(20), "its response is malformed"),  # framing extras without a body
            (bytes.fromhex("811f00000000000000000003") + bytes(15), "its response is malformed"),  # half a feature
            (bytes.fromhex("8100") + bytes(22), "its response is malformed"),  # to another request
            (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS: use couchbases://"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP"),
            (b"220 mail.example.com ESMTP\r\n", "doesn't speak Couchbase's protocol"),
        ],
    )
    def test_says_what_else_responds_there(self, command: str, response: bytes, says: str) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(4096)
                self.request.sendall(response)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as other:
            threading.Thread(target=other.serve_forever, args=[0.01]).start()
            url = f"couchbase://127.0.0.1:{other.server_address[1]}/default"
            done = run("userprofile-server", command, "--store", url, *(["-"] if command == "import" else []), stdin="")
            other.shutdown()
        assert done.returncode == 3
        assert says in done.stderr

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_says_that_a_client_certificate_is_demanded_or_not_a_users(
        self, authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        stranger = authority.issue_cert("service@example.com", common_name="stranger")
        stranger.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
        stranger.private_key_pem.write_to_path(tmp_path / "client.key")
        ca = ("--couchbase-ca", tmp_path / "ca.pem")
        with TestCluster(tls=context) as cluster:
            url = f"couchbases://{cluster.hosts}/default"
            assert "demands a client certificate" in self.check(url, *ca).stderr
            pair = ("--couchbase-certificate", tmp_path / "client.pem", "--couchbase-key", tmp_path / "client.key")
            none = {"USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "0.5"}
            done = run("userprofile-server", "check", "--store", url, *ca, *pair, **none)
        assert done.returncode == 3
        assert "knows no user of the client certificate's name" in done.stderr

    def test_says_that_a_certificate_is_not_trusted(self, tls_cluster: TestCluster, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        done = self.check(f"couchbases://{tls_cluster.hosts}/default", "--couchbase-ca", tmp_path / "other.pem")
        assert done.returncode == 3
        assert "its certificate isn't trusted" in done.stderr


class TestImport:
    """`userprofile-server import`, where the cluster refuses."""

    def import_(self, cluster: TestCluster, *usernames: str, query: str = "") -> "subprocess.CompletedProcess[str]":
        lines = b"\n".join(document(username) for username in usernames)
        url = f"couchbase://{cluster.hosts}/default{query}"
        return run("userprofile-server", "import", "-", "--store", url, stdin=lines, **COUCHBASE_CREDENTIALS)

    def test_says_that_the_right_to_write_is_missing(self, cluster: TestCluster) -> None:
        cluster.grant(Rights(write=False))
        for _ in range(2):  # the second time the document is there already
            done = self.import_(cluster, "johndoe")
            assert done.returncode == 3
            assert "the user may not write to this bucket or collection" in done.stderr
            assert "password" not in done.stderr
            assert "read" not in done.stderr
            assert done.stdout.startswith("0 users imported")
            cluster.put(KEY, document("johndoe"))

    def test_says_that_the_user_may_not_see_the_collection(self, cluster: TestCluster) -> None:
        cluster.add_collection("app", "users")
        cluster.grant(Rights(collections=frozenset({"app.users"})))
        assert "or this user may not see it" in self.import_(cluster, "johndoe").stderr
        assert self.import_(cluster, "johndoe", query="?scope=app&collection=users").returncode == 0

    @pytest.mark.parametrize("opcode", [Opcode.ADD, Opcode.SET])
    @pytest.mark.parametrize(("status", "says"), [(0x03, "larger than the store takes"), (0x04, "malformed")])
    def test_a_document_that_is_refused_does_not_cost_its_neighbours_theirs(
        self, cluster: TestCluster, opcode: int, status: int, says: str
    ) -> None:
        if opcode == Opcode.SET:
            cluster.put(KEY, document("johndoe"))
        cluster.refuse(KEY, status)
        done = self.import_(cluster, "alice", "johndoe", "bob")
        assert done.returncode == 1
        assert done.stderr.startswith("line 2: ")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == "2 users imported (0 replaced an older one), 1 row rejected\n"
        for username in ("alice", "bob"):
            assert cluster.stored(f"userprofile::{username}")


def test_a_put_stores_all_but_the_documents_that_are_refused(cluster: TestCluster, store: DocumentStore) -> None:
    for username in ("johndoe", "alice"):
        cluster.put(f"userprofile::{username}", document(username))
    cluster.lock(KEY)
    new = [user_document(name, email="new") for name in ("bob", "johndoe", "alice", "alice")]
    huge = user_document("huge", avatar="x" * 31 * 1024 * 1024)  # the node would reset the connection
    with raises(DocumentsRefusedError) as caught:
        store.put([*new, huge], timeout=0.3)
    assert caught.value.reasons.keys() == {KEY, document_key("huge")}
    assert "locked" in caught.value.reasons[KEY]
    assert "larger than" in caught.value.reasons[document_key("huge")]
    assert str(caught.value) == "; ".join(sorted(caught.value.reasons.values()))
    assert not caught.value.permanent
    assert caught.value.replaced == 2  # alice's document, and then the first of the two new ones
    assert get_user(store, "alice", timeout=5).email == "new"
    assert get_user(store, "bob", timeout=5).email == "new"
    assert get_user(store, "johndoe", timeout=5).email is None
    cluster.lock(KEY, locked=False)
    assert store.put(new, timeout=5) == 4


def test_an_import_of_large_documents_is_stored_in_small_batches() -> None:
    sizes: list[int] = []

    class Store:
        def put(self, documents: list[Document], *, timeout: float) -> int:
            sizes.append(sum(len(content) for _, content in documents))
            return 0

    rows = [document(f"user{number}", avatar="x" * 6 * 1024 * 1024) for number in range(7)]
    job = Importer(report=print, advance=lambda _size: None)
    job.run(BytesIO(b"\n".join(rows)), Store())  # type: ignore[arg-type]
    assert job.imported == 7
    assert max(sizes) < 24 * 1024 * 1024


def test_every_row_of_a_user_whose_document_is_refused_is_rejected(cluster: TestCluster, store: DocumentStore) -> None:
    cluster.refuse(KEY, 0x03)
    reports: list[str] = []
    job = Importer(report=reports.append, advance=lambda _size: None)
    names = ["alice", "johndoe", "bob", "johndoe", "alice"]
    job.run(BytesIO(b"\n".join(document(name) for name in names)), store)
    assert [report.partition(":")[0] for report in reports] == ["line 2", "line 4"]
    assert job.summary() == "3 users imported (1 replaced an older one), 2 rows rejected"


def test_a_locked_document_is_waited_for(cluster: TestCluster, store: DocumentStore) -> None:
    cluster.put(KEY, document("johndoe"))
    cluster.lock(KEY)
    threading.Timer(0.3, lambda: cluster.lock(KEY, locked=False)).start()
    assert store.put([user_document("johndoe", email="new")], timeout=20) == 1


def test_rights_that_are_taken_away_and_given_back_count_at_once(cluster: TestCluster, store: DocumentStore) -> None:
    cluster.put(KEY, document("johndoe"))
    cluster.grant(NOTHING)
    with raises(StoreMisconfiguredError, match="the user may not read"):
        get_user(store, "johndoe", timeout=5)
    cluster.grant(Rights())
    assert get_user(store, "johndoe", timeout=5).username == "johndoe"


@pytest.mark.timeout(180)
def test_the_stores_suite_leaves_a_cluster_as_it_was(cluster: TestCluster) -> None:
    """`make test-couchbase`, on a bucket that has users of all the names that come to mind."""
    for username in ("johndoe", "JohnDoe", "alice", "bob", "broken", "nobody", "user0", "user0-0", " "):
        cluster.put(f"userprofile::{username}", document(username, full_name="somebody's"))
    before = cluster.contents()
    suite = ["-m", "pytest", "tests/store_contract", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    env = {"TEST_ON_COUCHBASE": "1", "TEST_COUCHBASE": f"couchbase://{cluster.hosts}/default"}
    environment = os.environ | env | COUCHBASE_CREDENTIALS
    done = subprocess.run([sys.executable, *suite], env=environment, capture_output=True, text=True, check=False)
    look("output of the suite", done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert cluster.contents() == before


@pytest.mark.parametrize("kind", ["sqlite", "couchbase"])
def test_the_same_session_on_either_store(
    kind: str, cluster: TestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """import, serve and get, with nothing but --store changed."""
    for name, value in COUCHBASE_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    url = f"couchbase://{cluster.hosts}/default" if kind == "couchbase" else f"sqlite:///{tmp_path / 'users.db'}"
    rows = [{"username": "johndoe", "full_name": "John Doe", "hashed_password": CANARY}, {"username": ""}]
    lines = "\n".join(map(json.dumps, rows)).encode()
    for replaced in (0, 1):
        done = run("userprofile-server", "import", "-", "--store", url, stdin=lines)
        assert done.stdout == f"1 user imported ({replaced} replaced an older one), 1 row rejected\n"
        assert done.returncode == 1
    with ServerProcess(url) as server:
        found = run("userprofile", "get", "johndoe", "--json", "--target", server.address)
        assert json.loads(found.stdout)["full_name"] == "John Doe"
        assert run("userprofile", "get", "nobody", "--target", server.address).returncode == 3
