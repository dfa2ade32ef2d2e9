"""What the nodes of a cluster share: users, buckets with their documents, and the map of who serves what."""

import json
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.couchbase_node.node import Node

VBUCKETS = 1024

DEFAULT_COLLECTION = 0


@dataclass
class Document:
    value: bytes
    flags: int
    cas: int


@dataclass
class Bucket:
    """The documents of one bucket, by collection id and key, and where each of its vbuckets is."""

    name: str
    collections: dict[str, int] = field(default_factory=lambda: {"_default._default": DEFAULT_COLLECTION})
    documents: dict[tuple[int, bytes], Document] = field(default_factory=dict)
    owners: list[int] = field(default_factory=lambda: [0] * VBUCKETS)
    """By vbucket, the index of the node that serves it."""

    def add_collection(self, scope: str, collection: str) -> int:
        return self.collections.setdefault(f"{scope}.{collection}", 8 + len(self.collections))

    def manifest(self) -> bytes:
        scopes: dict[str, list[dict[str, str]]] = {}
        for path, number in self.collections.items():
            scope, _, collection = path.partition(".")
            scopes.setdefault(scope, []).append({"name": collection, "uid": f"{number:x}"})
        listed = [
            {"name": name, "uid": "0" if name == "_default" else f"{8 + index:x}", "collections": collections}
            for index, (name, collections) in enumerate(scopes.items())
        ]
        return json.dumps({"uid": "1", "scopes": listed}).encode()


class Cluster:
    """State without sockets; `Node` serves it."""

    def __init__(self, users: dict[str, str] | None = None, buckets: Iterable[str] = ("default",)) -> None:
        """Takes users with their passwords, all of whom may do everything."""
        self.users = users if users is not None else {"username": "password"}
        self.nodes: list[Node] = []
        self.buckets: dict[str, Bucket] = {name: Bucket(name) for name in buckets}
        self.revision = 1
        self._cas = time.time_ns()

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

    def move_vbuckets(self, bucket: str, source: int, target: int) -> None:
        """Lets `target` serve what `source` has served. Clients learn of it by NOT_MY_VBUCKET."""
        owners = self.buckets[bucket].owners
        self.buckets[bucket].owners = [target if owner == source else owner for owner in owners]
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
                    "hostname": node.host,
                    # Nobody listens on the port for management, but an SDK (Go's) takes no node without one.
                    "services": {"kvSSL": node.port, "mgmtSSL": 18091} if node.tls else {"kv": node.port, "mgmt": 8091},
                    **({"thisNode": True} if node is seen_from else {}),
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
                    {"hostname": f"{node.host}:8091", "ports": {} if node.tls else {"direct": node.port}}
                    for node in self.nodes
                ],
                "vBucketServerMap": {
                    "hashAlgorithm": "CRC",
                    "numReplicas": 0,
                    "serverList": [f"{node.host}:{node.port}" for node in self.nodes],
                    "vBucketMap": [[owner] for owner in bucket.owners],
                },
            }
        return json.dumps(config).encode()


def vbucket_of(key: bytes) -> int:
    """The vbucket that the key (without its collection) belongs to, as every client computes it."""
    return (zlib.crc32(key) >> 16 & 0x7FFF) % VBUCKETS
