"""The test node responds like Couchbase's KV engine 7.6.6: each case was observed there, with the same SDK."""

import json
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import trustme
from couchbase import exceptions as sdk
from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.collection import Collection
from couchbase.durability import Durability, ServerDurability
from couchbase.options import ClusterOptions, ClusterTimeoutOptions, UpsertOptions
from couchbase.transcoder import Transcoder

from tests.canary import CANARY, raises
from tests.couchbase_node import Rights, TestCluster
from tests.couchbase_node.protocol import HEADER, HEADER_BYTES, Datatype, Feature, Opcode, Status
from tests.support import WAIT

MIB = 1024 * 1024
IN_COLLECTION = Rights(collections=frozenset({"app.users"}))


class AnyBytes(Transcoder):  # type: ignore[misc] # the SDK has no types
    """Bytes as they are."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def decode_value(self, value: bytes, flags: int) -> bytes:
        return value


@contextmanager
def connected(cluster: TestCluster, *, timeout: float = WAIT, bootstrap: float = WAIT) -> Iterator[Cluster]:
    timeouts = ClusterTimeoutOptions(
        bootstrap_timeout=timedelta(seconds=bootstrap), kv_timeout=timedelta(seconds=timeout)
    )
    options = ClusterOptions(
        PasswordAuthenticator("username", "password"), timeout_options=timeouts, transcoder=AnyBytes()
    )
    connection = Cluster(f"couchbase://{cluster.hosts}", options)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture
def cluster() -> Iterator[TestCluster]:
    with TestCluster() as cluster:
        cluster.add_collection("app", "users")
        yield cluster


@pytest.fixture
def default(cluster: TestCluster) -> Iterator[Collection]:
    with connected(cluster) as connection:
        yield connection.bucket("default").default_collection()


@pytest.fixture
def named(cluster: TestCluster) -> Iterator[Collection]:
    with connected(cluster) as connection:
        yield connection.bucket("default").scope("app").collection("users")


@pytest.mark.parametrize(
    ("rights", "bucket", "kind"),
    [
        (Rights(), "nope", sdk.UnAmbiguousTimeoutException),  # 0x01: the SDK waits for it
        (Rights(buckets=frozenset({"default"})), "nope", sdk.BucketNotFoundException),  # 0x24
        (Rights(buckets=frozenset()), "default", sdk.BucketNotFoundException),
        (Rights(buckets=frozenset({"nope"})), "nope", sdk.UnAmbiguousTimeoutException),
    ],
)
def test_a_bucket_that_is_not_there_is_waited_for_by_who_may_use_it(
    cluster: TestCluster, rights: Rights, bucket: str, kind: type[Exception]
) -> None:
    cluster.grant(rights)
    with connected(cluster, bootstrap=1) as connection, raises(kind):
        connection.bucket(bucket)


def test_rights_count_on_open_connections(cluster: TestCluster, default: Collection) -> None:
    default.upsert("key", b"{}")
    cluster.grant(Rights(write=False))
    for write in (default.upsert, default.insert, default.replace):
        with raises(sdk.AuthenticationException):
            write("key", b"{}")
    with raises(sdk.AuthenticationException):
        default.remove("key")
    assert default.get("key").value == b"{}"
    cluster.grant(Rights(buckets=frozenset()))
    with raises(sdk.AuthenticationException):
        default.get("key")
    cluster.grant(Rights())
    default.upsert("key", b"{}")


def test_a_collection_that_a_user_may_not_see_is_not_there(cluster: TestCluster) -> None:
    cluster.add_collection("app", "others")
    cluster.grant(IN_COLLECTION)
    with connected(cluster, timeout=0.5) as connection:
        bucket = connection.bucket("default")
        for hidden in (bucket.default_collection(), bucket.scope("app").collection("others")):
            with raises(sdk.CouchbaseException) as caught:
                hidden.get("key")
            assert "key_value_collection_outdated" in caught.value.error_context.retry_reasons
    with connected(cluster) as connection:
        connection.bucket("default").scope("app").collection("users").upsert("key", b"{}")


def test_large_values_come_compressed_and_clients_without_snappy_get_them_inflated(
    cluster: TestCluster, default: Collection
) -> None:
    value = json.dumps({"text": "some text " * 2000}).encode()
    default.upsert("key", value)
    stored = cluster.stored("key")
    assert stored is not None
    assert stored.datatype == Datatype.SNAPPY | Datatype.JSON
    assert len(stored.value) < len(value)
    assert default.get("key").value == value
    with Wire(cluster) as wire:
        wire.log_in(Feature.JSON)
        response = wire.request(Opcode.GET, b"key", vbucket=cluster.vbucket_of("key"))
        assert (response.datatype, response.value) == (Datatype.JSON, value)


def test_sizes(cluster: TestCluster, default: Collection) -> None:
    default.upsert("key", b"x" * (20 * MIB))
    with raises(sdk.CouchbaseException) as caught:
        default.upsert("key", b"x" * (20 * MIB + 1))
    assert caught.value.error_code == 104
    with raises(sdk.InvalidArgumentException):
        default.upsert("key", b"x" * (31 * MIB))
    made = cluster.nodes[0].connections_made
    with raises(sdk.RequestCanceledException):
        default.upsert("key", random.randbytes(31 * MIB))  # doesn't compress: the connection is reset
    assert default.get("key").value == b"x" * (20 * MIB)
    assert cluster.nodes[0].connections_made > made


@pytest.mark.parametrize(("collection", "longest"), [("default", 250), ("named", 246)])
def test_keys_are_shorter_in_a_named_collection(collection: str, longest: int, request: pytest.FixtureRequest) -> None:
    found: Collection = request.getfixturevalue(collection)
    found.upsert("k" * longest, b"{}")
    with raises(sdk.InvalidArgumentException):
        found.upsert("k" * (longest + 1), b"{}")


def test_what_has_expired_is_not_there(cluster: TestCluster, default: Collection) -> None:
    cluster.put("key", b"{}", expires=1)
    with raises(sdk.DocumentNotFoundException):
        default.get("key")
    with raises(sdk.DocumentNotFoundException):
        default.replace("key", b"{}")
    default.insert("key", b"{}")
    default.upsert("key", b"{}", UpsertOptions(expiry=timedelta(days=40)))
    stored = cluster.stored("key")
    assert stored is not None
    assert stored.expires > 40 * 24 * 3600
    default.upsert("key", b"new", UpsertOptions(preserve_expiry=True))
    kept = cluster.stored("key")
    assert kept is not None
    assert (kept.expires, kept.value) == (stored.expires, b"new")


def test_what_is_locked_can_be_read_and_not_written(cluster: TestCluster) -> None:
    cluster.put("key", b"{}")
    cluster.lock("key")
    with connected(cluster, timeout=0.3) as connection:
        collection = connection.bucket("default").default_collection()
        assert collection.get("key").value == b"{}"
        writes: list[Callable[[], object]] = [lambda: collection.upsert("key", b"1"), lambda: collection.remove("key")]
        for write in writes:
            with raises(sdk.DocumentLockedException):
                write()
        with raises(sdk.DocumentExistsException):
            collection.insert("key", b"1")
        cluster.lock("key", locked=False)
        collection.upsert("key", b"1")


def test_durability_is_refused(default: Collection) -> None:
    with raises(sdk.DurabilityImpossibleException):
        default.upsert("key", b"{}", UpsertOptions(durability=ServerDurability(Durability.MAJORITY)))
    with raises(sdk.DocumentNotFoundException):
        default.get("key")


def test_a_map_that_comes_late_leaves_keys_without_a_node() -> None:
    with TestCluster(2) as cluster, connected(cluster, timeout=0.5) as connection:
        collection = connection.bucket("default").default_collection()
        keys = [f"key{number}" for number in range(20)]
        for key in keys:
            collection.upsert(key, b"{}")
        moved = next(key for key in keys if cluster.owner_of(key) == 0)
        stayed = next(key for key in keys if cluster.owner_of(key) == 1)
        cluster.move_vbuckets(0, 1, announce=False)
        with raises(sdk.UnAmbiguousTimeoutException) as caught:
            collection.get(moved)
        assert caught.value.error_context.retry_reasons == {"key_value_not_my_vbucket"}
        collection.get(stayed)
        cluster.announce()
        collection.get(moved)


@pytest.mark.parametrize(
    ("status", "kind"), [(0x01, sdk.UnAmbiguousTimeoutException), (0x86, sdk.BucketNotFoundException)]
)
def test_a_node_that_warms_up(cluster: TestCluster, status: int, kind: type[Exception]) -> None:
    cluster.put("key", b"{}")
    cluster.fault(warming_up=status)
    with connected(cluster, bootstrap=0.5) as connection:
        with raises(kind):
            connection.bucket("default")
    cluster.fault()
    with connected(cluster) as connection:
        connection.bucket("default").default_collection().get("key")


def test_a_full_node_closes_new_connections_and_keeps_those_that_it_has(
    cluster: TestCluster, default: Collection
) -> None:
    default.upsert("key", b"{}")
    cluster.fault(full=True)
    with Wire(cluster) as wire:
        assert wire.ended()
    default.get("key")


def test_a_collection_that_is_made_again_is_another_one(cluster: TestCluster, named: Collection) -> None:
    named.upsert("key", b"{}")
    cluster.drop_collection("app", "users")
    cluster.add_collection("app", "users")
    assert cluster.stored("key", collection="app.users") is None


class TestOnTheWire:
    """What no SDK sends, or shows."""

    @pytest.fixture
    def wire(self, cluster: TestCluster) -> Iterator["Wire"]:
        with Wire(cluster) as wire:
            yield wire

    @pytest.mark.parametrize(
        "malformed",
        [
            lambda wire, vbucket: wire.request(Opcode.GET, b"key", vbucket=vbucket, extras=b"1234"),
            lambda wire, vbucket: wire.request(Opcode.GET, b"key", vbucket=vbucket, value=b"value"),
            lambda wire, vbucket: wire.request(Opcode.GET, b"", vbucket=vbucket),
            lambda wire, vbucket: wire.request(Opcode.GET, b"k" * 251, vbucket=vbucket),
            lambda wire, vbucket: wire.request(Opcode.SET, b"key", vbucket=vbucket, value=b"{}"),
            lambda wire, vbucket: wire.request(Opcode.SET, b"key", vbucket=vbucket, extras=bytes(8), datatype=0x02),
            lambda wire, vbucket: wire.request(Opcode.SET, b"key", vbucket=vbucket, extras=bytes(8), datatype=0x80),
            lambda wire, vbucket: wire.send(0x80, Opcode.GET, 4, 0, b"key"),
            lambda wire, vbucket: wire.send(0x80, Opcode.SET, 3, 200, b"key"),
            lambda wire, vbucket: wire.send(0x08, Opcode.GET, 0x0503, 0, b"key"),
            lambda wire, vbucket: wire.send(0x08, Opcode.GET, 0x0103, 0, b"\x2fkey"),
        ],
    )
    def test_malformed_requests_are_refused_with_a_body_and_the_connection_stays(
        self, cluster: TestCluster, wire: "Wire", malformed: "Callable[[Wire, int], Response]"
    ) -> None:
        cluster.put("key", b"{}")
        vbucket = cluster.vbucket_of("key")
        wire.log_in(Feature.JSON, Feature.EXTENDED_ERRORS)
        response = malformed(wire, vbucket)
        assert (response.status, response.datatype) == (Status.INVALID, Datatype.JSON)
        error = json.loads(response.value)["error"]
        assert error.keys() == {"context", "ref"}
        assert CANARY in error["context"]
        assert wire.request(Opcode.GET, b"key", vbucket=vbucket).value == b"{}"

    def test_refusals_have_bodies_for_those_who_ask_for_them(self, cluster: TestCluster, wire: "Wire") -> None:
        wire.log_in()
        assert wire.request(Opcode.GET, b"").value == b""
        wire.hello(Feature.EXTENDED_ERRORS, Feature.COLLECTIONS)
        vbucket = cluster.vbucket_of("key")
        refused = [
            wire.request(Opcode.SELECT_BUCKET, b"default", rights=Rights(buckets=frozenset())),
            wire.request(Opcode.GET, b"\x7fkey", vbucket=vbucket),
            wire.request(Opcode.GET, b"\x80\x80", vbucket=vbucket),
            wire.request(Opcode.GET_COLLECTION_ID, value=b"nope.nope"),
            wire.request(Opcode.SASL_AUTH, b"PLAIN", value=b"\0username\0wrong"),
        ]
        statuses = [response.status for response in refused]
        assert statuses == [
            Status.NO_ACCESS, Status.UNKNOWN_COLLECTION, Status.INVALID, Status.UNKNOWN_SCOPE, Status.AUTH_ERROR,
        ]  # fmt: skip
        assert all(CANARY in json.loads(response.value)["error"]["context"] for response in refused)

    def test_documents_are_found_only_through_their_own_vbucket(self, cluster: TestCluster, wire: "Wire") -> None:
        cluster.put("key", b"{}")
        vbucket = cluster.vbucket_of("key")
        wire.log_in()
        assert wire.request(Opcode.GET, b"key", vbucket=vbucket).status == Status.SUCCESS
        assert wire.request(Opcode.GET, b"key", vbucket=vbucket ^ 1).status == Status.NOT_FOUND

    def test_not_my_vbucket_has_the_map_once_for_each_revision(self) -> None:
        with TestCluster(2) as cluster, Wire(cluster) as wire:
            wire.log_in(Feature.ONE_MAP_FOR_NOT_MY_VBUCKET)
            for _ in range(2):
                assert [bool(wire.request(Opcode.GET, b"key", vbucket=1).value) for _ in range(3)] == [
                    True,
                    False,
                    False,
                ]
                cluster.announce()
            wire.hello()
            assert all(wire.request(Opcode.GET, b"key", vbucket=1).value for _ in range(2))

    def test_a_packet_above_30_mib_resets_the_connection(self, wire: "Wire") -> None:
        wire.log_in()
        with raises(ConnectionResetError):
            wire.send(0x80, Opcode.SET, 3, 8, b"", announced=30 * MIB + 1)

    def test_a_stranger_s_certificate_is_accepted_and_then_dropped(self) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(client)
        authority.issue_cert("service@example.com", common_name="stranger").configure_cert(client)
        with TestCluster(tls=context) as cluster, Wire(cluster, client) as wire:
            assert wire.ended()


class Response:
    """One response."""

    def __init__(self, header: tuple[int, ...], body: bytes) -> None:
        _, _, key_size, extras_size, self.datatype, self.status, _, _, _ = header
        self.value = body[key_size + extras_size :]


class Wire:
    """A connection of bare frames."""

    def __init__(self, cluster: TestCluster, tls: ssl.SSLContext | None = None) -> None:
        self._cluster = cluster
        node = cluster.nodes[0]
        self._socket: socket.socket = socket.create_connection((node.host, node.port), timeout=20)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=node.host)

    def hello(self, *features: int) -> None:
        assert self.request(Opcode.HELLO, value=struct.pack(f">{len(features)}H", *features)).status == Status.SUCCESS

    def log_in(self, *features: int) -> None:
        self.hello(*features)
        assert self.request(Opcode.SASL_AUTH, b"PLAIN", value=b"\0username\0password").status == Status.SUCCESS
        assert self.request(Opcode.SELECT_BUCKET, b"default").status == Status.SUCCESS

    def request(
        self, opcode: int, key: bytes = b"", *, value: bytes = b"", rights: Rights | None = None, **header: Any
    ) -> Response:
        self._cluster.grant(rights or Rights())
        extras: bytes = header.pop("extras", b"")
        return self.send(0x80, opcode, len(key), len(extras), extras + key + value, **header)

    def send(
        self,
        magic: int,
        opcode: int,
        key_size: int,
        extras_size: int,
        body: bytes,
        *,
        vbucket: int = 0,
        datatype: int = 0,
        announced: int | None = None,
    ) -> Response:
        size = len(body) if announced is None else announced
        header = HEADER.pack(magic, opcode, key_size, extras_size, datatype, vbucket, size, 7, 0)
        self._socket.sendall(header + body)
        fields = HEADER.unpack(self._read(HEADER_BYTES))
        return Response(fields, self._read(fields[6]))

    def ended(self) -> bool:
        return not self._socket.recv(1)

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self._socket.recv(size - len(found))
            assert more, "the connection has ended"
            found += more
        return found

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
