"""Where a Couchbase cluster is: URLs, DNS, and the addresses that its nodes advertise."""

import functools
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from couchbase.options import ClusterOptions

from tests.canary import raises
from tests.couchbase_node import TestCluster
from tests.store_contract.stores import couchbase_settings
from tests.support import COUCHBASE_CREDENTIALS, TIME_TO_CONNECT, document, run
from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.stores import check_url, open_store
from userprofile_server.stores.couchbase import store as couchbase
from userprofile_server.stores.couchbase.url import CouchbaseURL, Host
from userprofile_server.users.lookup import get_user

KEY = "userprofile::johndoe"


@pytest.fixture
def cluster() -> Iterator[TestCluster]:
    with TestCluster() as cluster:
        cluster.put(KEY, document("johndoe"))
        yield cluster


class TestURL:
    @pytest.mark.parametrize(
        ("hosts", "expected", "connection"),
        [
            ("a", [("a", None)], "a"),
            ("a:1", [("a", 1)], "a:1"),
            ("a.b-c.example,d_e:65535", [("a.b-c.example", None), ("d_e", 65535)], "a.b-c.example,d_e:65535"),
            ("example.com.", [("example.com.", None)], "example.com."),
            ("10.0.0.1,10.0.0.2:2", [("10.0.0.1", None), ("10.0.0.2", 2)], "10.0.0.1,10.0.0.2:2"),
            ("[::1]", [("::1", None)], "[::1]:11210"),
            # The SDK has them parsed by urlsplit, which in newer Pythons takes a bracket at the beginning alone.
            ("a:1,[::1]:3", [("a", 1), ("::1", 3)], "[::1]:3,a:1"),
            ("a,[::1],[fe80::2:3]:4", [("a", None), ("::1", None), ("fe80::2:3", 4)], "[::1]:11210,[fe80::2:3]:4,a"),
            ("[::ffff:10.0.0.1]:1,b", [("::ffff:10.0.0.1", 1), ("b", None)], "[::ffff:10.0.0.1]:1,b"),
        ],
    )
    def test_has_hosts_of_every_form(self, hosts: str, expected: list[Host], connection: str) -> None:
        url = CouchbaseURL.parse(f"couchbase://{hosts}/users")
        assert list(url.hosts) == expected
        assert ",".join(map(str, url.hosts)) == hosts
        assert url.connection == f"couchbase://{connection}"

    def test_names_bucket_scope_collection_and_network(self) -> None:
        url = CouchbaseURL.parse("couchbases://a/users.2_x?scope=app&collection=p%25eople&network=external")
        assert (url.scheme, url.bucket, url.scope, url.collection) == ("couchbases", "users.2_x", "app", "p%eople")
        assert (url.network, url.default_port) == ("external", 11207)
        url = CouchbaseURL.parse("couchbase://a/users")
        assert (url.scope, url.collection, url.network) == ("_default", "_default", "auto")

    @pytest.mark.parametrize(
        "url",
        ["couchbase://", "couchbase:///users", "couchbase://a", "couchbase://a/", "couchbase://a,/b",
         "couchbase://,a/b", "couchbase://a/b/c", "couchbase://a/b#c", "couchbase://a/b?bucket=c",
         "couchbase://a/b?scope=", "couchbase://a/b?scope", "couchbase://a/b?scope=c&scope=d",
         "couchbase://a/b?collection=c.d", "couchbase://a/b?scope=_c", "couchbase://a/b?scope=%C3%BC",
         "couchbase://a/b?network=mine", "couchbase://a/b c", "couchbase://a/\u00fc",
         "couchbase://user:secret@a/b", "couchbase://user:sec/secret@a/b", "couchbase://user:sec?secret@a/b",
         "couchbase://[::1/b", "couchbase://::1/b", "couchbase://::1]/b", "couchbase://[::1]x/b", "couchbase://[a]/b",
         "couchbase://[::1%25lo]/b", "couchbase://[::1%lo]/b", "couchbase://[]/b", "couchbase://a:port/b", "couchbase://a:99999/b",
         "couchbase://a:0/b", "couchbase://a:/b", "couchbase://a:-1/b", "couchbase://a:\u0661/b", "couchbase://a:1:2/b",
         "couchbase://a b/b", "couchbase://a\n/b", "couchbase://a\tb/b", "couchbase://a;b/c", "couchbase://a..b/b",
         "couchbase://-a/b", "couchbase://h\u00f6st/b", "couchbase://" + "a" * 64 + "/b",
         "couchbase://" + "a." * 127 + "/b", "couchbase://a\ud800/b", "couchbase://a/\x00"],
    )  # fmt: skip
    def test_that_is_none_is_refused_for_good_and_not_repeated(self, url: str) -> None:
        with raises(StoreMisconfiguredError) as caught:
            check_url(url)  # which asks for nothing else, as a username
        assert caught.value.permanent
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("port", [8091, 18091])
    def test_with_the_web_consoles_port_names_the_right_one(self, port: int) -> None:
        with raises(StoreMisconfiguredError, match=f"port {port} is the one of Couchbase's web console.*11210"):
            CouchbaseURL.parse(f"couchbase://a:{port}/b")


@contextmanager
def silent_dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A DNS server that drops what comes by UDP and refuses TCP. Yields the queries of the SDK."""
    queries: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def swallow() -> None:
            while query := server.recv(4096):
                queries.append(query)

        thread = threading.Thread(target=swallow)
        thread.start()
        address = server.getsockname()
        with_nameserver = functools.partial(ClusterOptions, dns_nameserver=address[0], dns_port=address[1])
        monkeypatch.setattr(couchbase, "ClusterOptions", with_nameserver)
        yield queries
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", address)
        thread.join()


class TestDNS:
    @pytest.mark.parametrize("hosts", ["localhost:{0}", "localhost:{0},localhost:{0}", "127.0.0.1:{0}"])
    def test_is_not_queried_for_services_if_a_port_or_several_hosts_are_given(
        self, cluster: TestCluster, monkeypatch: pytest.MonkeyPatch, hosts: str
    ) -> None:
        url = f"couchbase://{hosts.format(cluster.nodes[0].port)}/default"
        with silent_dns(monkeypatch) as queries:
            store = open_store(couchbase_settings(url))
            assert get_user(store, "johndoe", timeout=5).username == "johndoe"
            store.close()
        assert queries == []

    def test_that_does_not_respond_leaves_the_host_itself(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # 127.1.2 is no IP address to the SDK, but a name that every resolver knows as 127.1.0.2.
        middle, last = (1 + secrets.randbelow(250) for _ in range(2))
        with TestCluster(host=f"127.{middle}.0.{last}", port=11210) as cluster:
            cluster.put(KEY, document("johndoe"))
            with silent_dns(monkeypatch) as queries:
                store = open_store(couchbase_settings(f"couchbase://127.{middle}.{last}/default"))
                assert get_user(store, "johndoe", timeout=5).username == "johndoe"
                store.close()
        assert queries
        assert "failed: connecting to the host itself" in caplog.text


class TestAdvertisedAddresses:
    """Nodes that report addresses which clients can't reach, as in containers."""

    NOWHERE = "127.0.0.9"  # nobody listens there

    def check(self, cluster: TestCluster, query: str = "", **env: str) -> tuple[int, str]:
        hosts = cluster.hosts.split(",")[0]
        env = {"USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "3"} | env
        url = f"couchbase://{hosts}/default{query}"
        done = run("userprofile-server", "check", "--store", url, **COUCHBASE_CREDENTIALS, **env)
        return done.returncode, done.stdout + done.stderr

    def test_that_cannot_be_reached_are_named(self, cluster: TestCluster) -> None:
        cluster.nodes[0].advertised = self.NOWHERE
        status, says = self.check(cluster)
        assert status == 3
        where = f"{self.NOWHERE}:{cluster.nodes[0].port}"
        assert f"the cluster's node {where} can't be reached from here: Connection refused" in says
        assert "network=external" in says

    def test_a_host_of_the_url_that_cannot_be_reached_is_not_called_a_node(self, cluster: TestCluster) -> None:
        url = f"couchbase://{cluster.hosts},{self.NOWHERE}:1/default"
        done = run("userprofile-server", "check", "--store", url, **COUCHBASE_CREDENTIALS)
        assert done.returncode == 3
        assert f"the URL's host {self.NOWHERE}:1 can't be reached from here" in done.stderr
        assert "network=external" not in done.stderr

    def test_that_have_no_name_are_named_too(self, cluster: TestCluster) -> None:
        cluster.nodes[0].advertised = "node1.cluster.invalid"
        status, says = self.check(cluster)
        assert status == 3
        assert f"the cluster's node node1.cluster.invalid:{cluster.nodes[0].port} can't be reached from here" in says

    def test_of_one_node_of_two_are_named_although_the_other_responds(self) -> None:
        with TestCluster(2) as cluster:
            cluster.nodes[1].advertised = self.NOWHERE
            status, says = self.check(cluster)
        assert status == 3
        assert f"the cluster's node {self.NOWHERE}:{cluster.nodes[1].port} can't be reached from here" in says

    def test_are_chosen_by_the_urls_network(self, cluster: TestCluster) -> None:
        (node,) = cluster.nodes
        node.advertised, node.external = self.NOWHERE, (node.host, node.port)
        assert self.check(cluster, "?network=external")[0] == 0
        assert self.check(cluster)[0] == 0  # the SDK sees which of them the URL names
        assert self.check(cluster, "?network=default")[0] == 3
        node.advertised, node.external = node.host, (self.NOWHERE, node.port)
        assert self.check(cluster, "?network=default")[0] == 0
        status, says = self.check(cluster, "?network=external")
        assert status == 3
        assert f"{self.NOWHERE}:{node.port} can't be reached" in says


@pytest.mark.parametrize("url", ["localhost", "127.0.0.1", "localhost,127.0.0.1"])
def test_the_same_hosts_are_meant_everywhere(cluster: TestCluster, url: str, tmp_path: Path) -> None:
    """By import, check and a store."""
    hosts = ",".join(f"{host}:{cluster.nodes[0].port}" for host in url.split(","))
    env = {"USERPROFILE_SERVER_STORE": f"couchbase://{hosts}/default", **COUCHBASE_CREDENTIALS, **TIME_TO_CONNECT}
    row = json.dumps({"username": "alice", "hashed_password": "x"}).encode()
    assert run("userprofile-server", "import", "-", stdin=row, **env).returncode == 0
    assert run("userprofile-server", "check", **env).stdout.endswith("ok\n")
