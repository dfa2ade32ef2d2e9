"""A cluster for tests that aren't asyncio themselves: its nodes run on a thread, and commands wait for their effect."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.canary import CANARY
from tests.couchbase_node.cluster import Bucket, Cluster, Document, Place, Rights, is_json, vbucket_of
from tests.couchbase_node.faults import Faults
from tests.couchbase_node.node import Node
from tests.couchbase_node.protocol import Datatype

T = TypeVar("T")


class TestCluster:
    """One or several nodes on loopback, on free ports."""

    __test__ = False  # not a test, whatever its name

    def __init__(
        self,
        nodes: int = 1,
        *,
        users: dict[str, str] | None = None,
        buckets: tuple[str, ...] = ("default",),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.cluster = Cluster(users, buckets)
        self.cluster.error_context = CANARY  # a server's words may hold anything: none of them may be passed on
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="couchbase node", daemon=True)
        self._thread.start()
        self.nodes = [Node(self.cluster, host=host, port=port, tls=tls) for _ in range(nodes)]
        for node in self.nodes:
            self._wait_for(node.start())
            self.cluster.add_node(node)

    @property
    def hosts(self) -> str:
        """`127.0.0.1:1234,127.0.0.1:1235`, for a connection string."""
        return ",".join(f"{node.host}:{node.port}" for node in self.nodes)

    @property
    def users(self) -> dict[str, str]:
        """Passwords by username; may be changed."""
        return self.cluster.users

    def fault(self, node: int = 0, **faults: Any) -> None:
        """Lets a node misbehave in this way alone; without `faults`, behave."""
        self._run(lambda: self.nodes[node].set_faults(Faults(**faults)))

    def stop(self, node: int = 0) -> None:
        """Lets a node refuse and reset connections."""
        self._wait_for(self.nodes[node].stop())

    def start(self, node: int = 0) -> None:
        """Lets a stopped node listen on its port again."""
        self._wait_for(self.nodes[node].start())

    def close_connections(self) -> None:
        for node in self.nodes:
            self._run(node.close_connections)

    def move_vbuckets(self, source: int, target: int, bucket: str = "default", *, announce: bool = True) -> None:
        self._run(lambda: self.cluster.move_vbuckets(bucket, source, target, announce=announce))

    def announce(self, bucket: str = "default") -> None:
        """Lets the map of the bucket say what `move_vbuckets` has left unsaid."""
        self._run(lambda: self.cluster.announce(bucket))

    def assign(self, key: str, node: int, bucket: str = "default") -> None:
        """Lets a node serve a key, with all else in its vbucket. For clients that connect later."""
        self._run(lambda: self.cluster.buckets[bucket].owners.__setitem__(vbucket_of(key.encode()), node))

    def grant(self, rights: Rights, username: str = "username") -> None:
        """Lets a user do this and nothing else from now on, on open connections too."""
        self._run(lambda: self.cluster.rights.__setitem__(username, rights))

    def lock(self, key: str, *, locked: bool = True) -> None:
        """Locks a document, as another program would that is about to change it; for as long as the test likes."""

        def lock() -> None:
            bucket = self.cluster.buckets["default"]
            document = bucket.get(bucket.place(key.encode()))
            assert document is not None
            document.locked = locked

        self._run(lock)

    def refuse(self, key: str, status: int) -> None:
        """Refuses writes of one key by this status."""
        self._run(lambda: self.cluster.buckets["default"].refused.__setitem__(key.encode(), status))

    def drop_bucket(self, name: str = "default") -> Bucket:
        return self._run(lambda: self.cluster.drop_bucket(name))

    def restore_bucket(self, bucket: Bucket) -> None:
        self._run(lambda: self.cluster.restore_bucket(bucket))

    def add_collection(self, scope: str, collection: str, bucket: str = "default") -> None:
        self._run(lambda: self.cluster.buckets[bucket].add_collection(scope, collection))

    def drop_collection(self, scope: str, collection: str, bucket: str = "default") -> None:
        self._run(lambda: self.cluster.buckets[bucket].drop_collection(scope, collection))

    def put(
        self,
        key: str,
        value: bytes,
        *,
        flags: int = 0x02000006,
        expires: int = 0,
        collection: str = "_default._default",
        bucket: str = "default",
    ) -> None:
        """Stores any bytes with any flags, as any tool might. `expires` is in seconds since the epoch."""

        def put() -> None:
            datatype = int(Datatype.JSON) if is_json(value) else 0
            document = Document(value, flags, self.cluster.next_cas(), datatype, expires)
            holder = self.cluster.buckets[bucket]
            holder.put(holder.place(key.encode(), collection), document)

        self._run(put)

    def stored(self, key: str, *, collection: str = "_default._default", bucket: str = "default") -> Document | None:
        """What is stored under a key."""

        def stored() -> Document | None:
            holder = self.cluster.buckets[bucket]
            return holder.get(holder.place(key.encode(), collection))

        return self._run(stored)

    def contents(self, bucket: str = "default") -> dict[Place, bytes]:
        """Everything that is stored in a bucket."""
        return self._run(lambda: self.cluster.buckets[bucket].contents())

    def vbucket_of(self, key: str) -> int:
        """The vbucket in which clients look for a key."""
        return vbucket_of(key.encode())

    def owner_of(self, key: str, bucket: str = "default") -> int:
        """The index of the node that serves a key."""
        return self.cluster.buckets[bucket].owners[vbucket_of(key.encode())]

    @property
    def connections(self) -> int:
        """Open connections to all nodes."""
        return self._run(lambda: sum(node.connections for node in self.nodes))

    def close(self) -> None:
        for node in self.nodes:
            self._wait_for(node.stop())
        self._wait_for(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "TestCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _settle(self) -> None:
        """Waits for connections that are being closed: their sockets would be left open."""
        while any(node.connections for node in self.nodes):
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _run(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return self._wait_for(run())

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)
