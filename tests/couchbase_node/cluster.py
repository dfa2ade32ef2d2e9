"""What the nodes of a cluster share: users, buckets with their documents, and the map of who serves what."""

import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.couchbase_node import snappy
from tests.couchbase_node.protocol import Datatype

if TYPE_CHECKING:
    from tests.couchbase_node.node import Node

VBUCKETS = 1024

DEFAULT_COLLECTION = 0


@dataclass(frozen=True)
class Rights:
    """What a user may do. `Rights()` is an administrator's: everything, in buckets too that nobody has made."""

    buckets: frozenset[str] | None = None
    """The buckets that the user may use at all; None for all."""
    write: bool = True
    collections: frozenset[str] | None = None
    """The collections, as scope.collection, that the user may see in those buckets; None for all."""

    def may_use(self, bucket: str) -> bool:
        return self.buckets is None or bucket in self.buckets

    def may_see(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections


_ADMINISTRATOR = Rights()


@dataclass
class Document:
    """As a client sent it: `datatype` says whether `value` is compressed."""

    value: bytes
    flags: int
    cas: int
    datatype: int = 0
    """In the bits of `Datatype`, as a plain number."""
    expires: int = 0
    """In seconds since the epoch; 0 for never."""
    locked: bool = False

    def inflated(self) -> bytes:
        return snappy.inflate(self.value) if self.datatype & Datatype.SNAPPY else self.value


Place = tuple[int, int, bytes]
"""Where a document is: vbucket, collection id, key."""


@dataclass
class Bucket:
    """The documents of one bucket, and where each of its vbuckets is."""

    name: str
    collections: dict[str, int] = field(default_factory=lambda: {"_default._default": DEFAULT_COLLECTION})
    """Ids by scope.collection. One that is dropped and made again gets another id."""
    owners: list[int] = field(default_factory=lambda: [0] * VBUCKETS)
    """By vbucket, the index of the node that serves it."""
    announced: list[int] | None = None
    """What the map says instead, while it is behind."""
    refused: dict[bytes, int] = field(default_factory=dict)
    """The status by which writes of a key are refused: what a node with another limit might say."""
    manifest_uid: int = 1
    _documents: dict[Place, Document] = field(default_factory=dict)

    def get(self, place: Place) -> Document | None:
        """Returns what is stored there and hasn't expired."""
        document = self._documents.get(place)
        if document is not None and document.expires and document.expires <= time.time():
            del self._documents[place]
            return None
        return document

    def contents(self) -> dict[Place, bytes]:
        """Returns everything that is stored."""
        return {place: document.inflated() for place, document in self._documents.items()}

    def put(self, place: Place, document: Document) -> None:
        self._documents[place] = document

    def delete(self, place: Place) -> None:
        del self._documents[place]

    def place(self, key: bytes, collection: str = "_default._default") -> Place:
        """Returns where clients look for a key."""
        return vbucket_of(key), self.collections[collection], key

    def add_collection(self, scope: str, collection: str) -> int:
        path = f"{scope}.{collection}"
        if path not in self.collections:
            self.manifest_uid += 1
            self.collections[path] = 7 + self.manifest_uid
        return self.collections[path]

    def drop_collection(self, scope: str, collection: str) -> None:
        self.manifest_uid += 1
        dropped = self.collections.pop(f"{scope}.{collection}")
        self._documents = {place: kept for place, kept in self._documents.items() if place[1] != dropped}

    def has(self, collection: int, rights: Rights) -> bool:
        """Whether there is a collection with this id for somebody with these rights."""
        if rights.collections is None:
            return collection in self.collections.values()
        return any(number == collection and rights.may_see(path) for path, number in self.collections.items())

    def manifest(self) -> bytes:
        scopes: dict[str, list[dict[str, str]]] = {}
        for path, number in self.collections.items():
            scope, _, collection = path.partition(".")
            scopes.setdefault(scope, []).append({"name": collection, "uid": f"{number:x}"})
        listed = [
            {"name": name, "uid": "0" if name == "_default" else f"{8 + index:x}", "collections": collections}
            for index, (name, collections) in enumerate(scopes.items())
        ]
        return json.dumps({"uid": f"{self.manifest_uid:x}", "scopes": listed}).encode()


class Cluster:
    """State without sockets; `Node` serves it."""

    def __init__(self, users: dict[str, str] | None = None, buckets: Iterable[str] = ("default",)) -> None:
        """Takes users with their passwords. All of them may do everything until `rights` says otherwise."""
        self.users = users if users is not None else {"username": "password"}
        self.rights: dict[str, Rights] = {}
        """By username. Changing them changes what open connections may do, at once."""
        self.error_context = ""
        """Said in the body of every refusal that has one."""
        self.nodes: list[Node] = []
        self.buckets: dict[str, Bucket] = {name: Bucket(name) for name in buckets}
        self.revision = 1
        self._cas = time.time_ns()

    def rights_of(self, username: str) -> Rights:
        return self.rights.get(username, _ADMINISTRATOR)

    def next_cas(self) -> int:
        self._cas += 1
        return self._cas

    def add_node(self, node: "Node") -> int:
        """Adds a node and spreads the vbuckets of all buckets evenly."""
        self.nodes.append(node)
        for bucket in self.buckets.values():
            bucket.owners = [vbucket % len(self.nodes) for vbucket in range(VBUCKETS)]
        self.changed()
        return len(self.nodes) - 1

    def move_vbuckets(self, name: str, source: int, target: int, *, announce: bool = True) -> None:
        """Lets `target` serve what `source` has served. Clients learn of it by NOT_MY_VBUCKET.

        Without `announce` the map stays as it was until `announce` is called: its keys are nobody's meanwhile.
        """
        bucket = self.buckets[name]
        if not announce and bucket.announced is None:
            bucket.announced = bucket.owners
        bucket.owners = [target if owner == source else owner for owner in bucket.owners]
        if announce:
            self.announce(name)

    def announce(self, name: str) -> None:
        """Lets the map say who serves what."""
        self.buckets[name].announced = None
        self.changed()

    def drop_bucket(self, name: str) -> Bucket:
        """Drops the bucket and all connections to it, and returns it, so that a test can bring it back."""
        dropped = self.buckets.pop(name)
        self.changed()
        for node in self.nodes:
            node.close_connections(bucket=name)
        return dropped

    def restore_bucket(self, bucket: Bucket) -> None:
        self.buckets[bucket.name] = bucket
        self.changed()

    def changed(self) -> None:
        self.revision += 1

    def config(self, seen_from: "Node", bucket_name: str | None) -> bytes:
        """The configuration that a client gets from one node; without a bucket's name, of the cluster alone."""
        config: dict[str, Any] = {
            "rev": self.revision,
            "revEpoch": 1,
            "nodesExt": [
                {
                    "hostname": node.advertised,
                    # Nobody listens on the port for management, but an SDK (Go's) takes no node without one.
                    "services": {"kvSSL": node.port, "mgmtSSL": 18091} if node.tls else {"kv": node.port, "mgmt": 8091},
                    **({"thisNode": True} if node is seen_from else {}),
                    **({"alternateAddresses": {"external": _external(node)}} if node.external else {}),
                }
                for node in self.nodes
            ],
            "clusterCapabilitiesVer": [1, 0],
            "clusterCapabilities": {},
        }
        bucket = self.buckets.get(bucket_name) if bucket_name else None
        if bucket is not None:
            config |= {
                "name": bucket.name,
                "uuid": f"{zlib.crc32(bucket.name.encode()):032x}",
                "nodeLocator": "vbucket",
                "bucketCapabilitiesVer": "",
                "bucketCapabilities": ["collections", "cccp", "xattr", "nodesExt"],
                "nodes": [
                    {"hostname": f"{node.advertised}:8091", "ports": {} if node.tls else {"direct": node.port}}
                    for node in self.nodes
                ],
                "vBucketServerMap": {
                    "hashAlgorithm": "CRC",
                    "numReplicas": 0,
                    "serverList": [f"{node.advertised}:{node.port}" for node in self.nodes],
                    "vBucketMap": [[owner] for owner in bucket.announced or bucket.owners],
                },
            }
        return json.dumps(config).encode()


def _external(node: "Node") -> dict[str, Any]:
    assert node.external is not None
    host, port = node.external
    return {"hostname": host, "ports": {"kvSSL" if node.tls else "kv": port}}


def vbucket_of(key: bytes) -> int:
    """The vbucket that the key (without its collection) belongs to, as every client computes it."""
    return (zlib.crc32(key) >> 16 & 0x7FFF) % VBUCKETS


def is_json(value: bytes) -> bool:
    """Whether the engine would mark the value as JSON, which it finds out by itself."""
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True
