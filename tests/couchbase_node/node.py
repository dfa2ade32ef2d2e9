"""One node: a listener, and a session for each connection."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable

from tests.couchbase_node import scram
from tests.couchbase_node.cluster import DEFAULT_COLLECTION, Bucket, Cluster, Document
from tests.couchbase_node.faults import Faults
from tests.couchbase_node.protocol import (
    Feature,
    Opcode,
    ProtocolError,
    Request,
    Status,
    response,
    split_collection,
    split_requests,
)

MAX_VALUE_BYTES = 20 * 1024 * 1024
MAX_KEY_BYTES = 250  # of which at most 246 are left beside a collection's id

_DOCUMENT_OPCODES = {Opcode.GET, Opcode.SET, Opcode.ADD, Opcode.REPLACE, Opcode.DELETE, Opcode.GET_META}
_BEFORE_AUTHENTICATION = {
    Opcode.HELLO,
    Opcode.GET_ERROR_MAP,
    Opcode.SASL_LIST_MECHS,
    Opcode.SASL_AUTH,
    Opcode.SASL_STEP,
    Opcode.NOOP,
}
_JSON = 0x01

_ERROR_MAP = {
    "version": 1,
    "revision": 1,
    "errors": {
        "1": {"name": "KEY_ENOENT", "desc": "Not Found", "attrs": ["item-only"]},
        "2": {"name": "KEY_EEXISTS", "desc": "Exists", "attrs": ["item-only"]},
        "3": {"name": "E2BIG", "desc": "Too big", "attrs": ["item-only", "invalid-input"]},
        "7": {"name": "NOT_MY_VBUCKET", "desc": "Not here", "attrs": ["fetch-config", "invalid-input"]},
        "20": {"name": "AUTH_ERROR", "desc": "Authentication failed", "attrs": ["conn-state-invalidated", "auth"]},
        "24": {"name": "EACCESS", "desc": "No access", "attrs": ["support", "auth"]},
        "86": {"name": "ETMPFAIL", "desc": "Temporary failure", "attrs": ["temp", "retry-later"]},
    },
}


class Node:
    """A listener on loopback. Its state (documents, map, users) is the cluster's."""

    def __init__(self, cluster: Cluster, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None):
        self.cluster = cluster
        self.host = host
        self.port = port
        self.tls = tls
        self.faults = Faults()
        self.requests: dict[int, int] = {}
        """How often each opcode was asked for."""
        self.connections_made = 0
        self._server: asyncio.Server | None = None
        self._sessions: set[Session] = set()

    async def start(self) -> None:
        """Listens; again on the same port after `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Session(self), self.host, self.port, ssl=self.tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections from now on and resets those that are open."""
        if self._server is not None:
            # A connection that is being accepted while its server closes is lost to asyncio, socket and all.
            while asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        self.close_connections()

    def set_faults(self, faults: Faults) -> None:
        self.faults = faults
        for session in list(self._sessions):
            session.faults_changed()

    def close_connections(self, bucket: str | None = None) -> None:
        """Resets all connections, or those that have selected this bucket."""
        for session in list(self._sessions):
            if bucket is None or session.bucket_name == bucket:
                session.reset()

    @property
    def connections(self) -> int:
        return len(self._sessions)


class Session(asyncio.Protocol):
    """One connection: what was negotiated on it, who it is, which bucket it has selected."""

    def __init__(self, node: Node) -> None:
        self.bucket_name: str | None = None
        self._node = node
        self._cluster = node.cluster
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._features: set[int] = set()
        self._scram: scram.Scram | None = None
        self._authenticated = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name in (transport.get_extra_info("peercert") or {}).get("subject", ()):
            self._authenticated |= dict(name).get("commonName") in self._cluster.users  # no password, no SASL
        self._node._sessions.add(self)
        self._node.connections_made += 1
        self.faults_changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._node._sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._node.faults.mute:
            return
        self._buffer += data
        if self._node.faults.frozen:
            return
        self._work()

    # What the node calls.

    def faults_changed(self) -> None:
        if self._node.faults.frozen:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._work()

    def reset(self) -> None:
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() != -1:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
        self._transport.abort()

    # The work.

    def _work(self) -> None:
        try:
            requests = split_requests(self._buffer)
            for request in requests:
                self._node.requests[request.opcode] = self._node.requests.get(request.opcode, 0) + 1
                self._send(request, self._answer(request))
        except (ProtocolError, struct.error, ValueError):
            self._transport.abort()

    def _send(self, request: Request, frame: bytes) -> None:
        faults = self._node.faults
        if self._transport.is_closing():
            return
        if request.opcode not in _DOCUMENT_OPCODES:
            self._transport.write(frame)
        elif faults.reset_mid_frame:
            self._transport.write(frame[: len(frame) // 2])
            self.reset()
        elif faults.truncate:
            self._transport.write(frame[: len(frame) // 2])
            self._transport.close()
        elif faults.delay:
            asyncio.get_running_loop().call_later(faults.delay, self._send_late, frame)
        else:
            self._transport.write(frame)

    def _send_late(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame)

    def _answer(self, request: Request) -> bytes:
        forced = self._node.faults.statuses.get(request.opcode)
        if forced is not None:
            return response(request, forced, value=self._config() if forced == Status.NOT_MY_VBUCKET else b"")
        if not self._authenticated and request.opcode not in _BEFORE_AUTHENTICATION:
            return response(request, Status.NO_ACCESS)
        handler = _HANDLERS.get(request.opcode)
        if handler is None:
            return response(request, Status.UNKNOWN_COMMAND)
        return handler(self, request)

    def _hello(self, request: Request) -> bytes:
        count = len(request.value) // 2
        asked = struct.unpack(f">{count}H", request.value[: count * 2])
        granted = [feature for feature in asked if feature in set(Feature)]
        self._features = set(granted)
        return response(request, value=struct.pack(f">{len(granted)}H", *granted))

    def _error_map(self, request: Request) -> bytes:
        return response(request, value=json.dumps(_ERROR_MAP).encode(), datatype=_JSON)

    def _noop(self, request: Request) -> bytes:
        return response(request)

    def _list_mechanisms(self, request: Request) -> bytes:
        return response(request, value=" ".join([*scram.MECHANISMS, "PLAIN"]).encode())

    def _authenticate(self, request: Request) -> bytes:
        mechanism = request.key.decode()
        try:
            if mechanism == "PLAIN":
                scram.check_plain(request.value, self._cluster.users)
                self._authenticated = True
                return response(request)
            self._scram = scram.Scram(mechanism, self._cluster.users)
            return response(request, Status.AUTH_CONTINUE, value=self._scram.first(request.value))
        except (scram.AuthenticationError, KeyError, ValueError):
            return response(request, Status.AUTH_ERROR)

    def _authenticate_step(self, request: Request) -> bytes:
        exchange, self._scram = self._scram, None
        try:
            if exchange is None:
                raise scram.AuthenticationError
            value = exchange.final(request.value)
        except (scram.AuthenticationError, ValueError):
            return response(request, Status.AUTH_ERROR)
        self._authenticated = True
        return response(request, value=value)

    def _select_bucket(self, request: Request) -> bytes:
        name = request.key.decode()
        if name not in self._cluster.buckets:
            return response(request, Status.NO_ACCESS)  # as a server does, which doesn't tell who has no access
        self.bucket_name = name
        return response(request)

    def _cluster_config(self, request: Request) -> bytes:
        return response(request, value=self._config(), datatype=_JSON)

    def _config(self) -> bytes:
        return self._cluster.config(self._node, self.bucket_name)

    def _manifest(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        return response(request, value=bucket.manifest(), datatype=_JSON)

    def _collection_id(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        path = (request.value or request.key).decode()
        number = bucket.collections.get(path)
        if number is None:
            scope = path.partition(".")[0] + "."
            known = any(name.startswith(scope) for name in bucket.collections)
            return response(request, Status.UNKNOWN_COLLECTION if known else Status.UNKNOWN_SCOPE)
        return response(request, extras=struct.pack(">QI", 1, number))

    def _document(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        collection, key = DEFAULT_COLLECTION, request.key
        if Feature.COLLECTIONS in self._features:
            collection, key = split_collection(key)
        if collection not in bucket.collections.values():
            return response(request, Status.UNKNOWN_COLLECTION)
        if not key or len(request.key) > MAX_KEY_BYTES:
            return response(request, Status.INVALID)
        owner = bucket.owners[request.vbucket] if request.vbucket < len(bucket.owners) else None
        if owner is None or self._cluster.nodes[owner] is not self._node:
            return response(request, Status.NOT_MY_VBUCKET, value=self._config(), datatype=_JSON)
        return _OPERATIONS[request.opcode](self, request, bucket, (collection, key))

    def _get(self, request: Request, bucket: Bucket, key: tuple[int, bytes]) -> bytes:
        document = bucket.documents.get(key)
        if document is None:
            return self._done(request, Status.NOT_FOUND)
        extras = struct.pack(">I", document.flags)
        return self._done(request, extras=extras, value=document.value, cas=document.cas)

    def _get_meta(self, request: Request, bucket: Bucket, key: tuple[int, bytes]) -> bytes:
        document = bucket.documents.get(key)
        if document is None:
            return self._done(request, Status.NOT_FOUND)
        extras = struct.pack(">IIIQB", 0, document.flags, 0, 1, 0)  # deleted, flags, expiry, sequence, datatype
        return self._done(request, extras=extras, cas=document.cas)

    def _store(self, request: Request, bucket: Bucket, key: tuple[int, bytes]) -> bytes:
        existing = bucket.documents.get(key)
        if request.opcode == Opcode.ADD and existing is not None:
            return self._done(request, Status.EXISTS)
        if existing is None and (request.opcode == Opcode.REPLACE or request.cas):
            return self._done(request, Status.NOT_FOUND)
        if existing is not None and request.cas not in (0, existing.cas):
            return self._done(request, Status.EXISTS)
        if len(request.value) > MAX_VALUE_BYTES:
            return self._done(request, Status.TOO_BIG)
        (flags,) = struct.unpack_from(">I", request.extras)
        cas = self._cluster.next_cas()
        bucket.documents[key] = Document(request.value, flags, cas)
        return self._done(request, extras=self._mutation_token(), cas=cas)

    def _delete(self, request: Request, bucket: Bucket, key: tuple[int, bytes]) -> bytes:
        existing = bucket.documents.get(key)
        if existing is None:
            return self._done(request, Status.NOT_FOUND)
        if request.cas not in (0, existing.cas):
            return self._done(request, Status.EXISTS)
        del bucket.documents[key]
        return self._done(request, extras=self._mutation_token(), cas=self._cluster.next_cas())

    def _mutation_token(self) -> bytes:
        return struct.pack(">QQ", 1, self._cluster.next_cas()) if Feature.MUTATION_TOKENS in self._features else b""

    def _done(
        self, request: Request, status: int = Status.SUCCESS, *, extras: bytes = b"", value: bytes = b"", cas: int = 0
    ) -> bytes:
        with_duration = Feature.SERVER_DURATION in self._features
        return response(request, status, extras=extras, value=value, cas=cas, with_duration=with_duration)

    def _bucket(self) -> Bucket | None:
        return self._cluster.buckets.get(self.bucket_name) if self.bucket_name is not None else None


_HANDLERS: dict[int, Callable[[Session, Request], bytes]] = {
    Opcode.HELLO: Session._hello,
    Opcode.GET_ERROR_MAP: Session._error_map,
    Opcode.NOOP: Session._noop,
    Opcode.SASL_LIST_MECHS: Session._list_mechanisms,
    Opcode.SASL_AUTH: Session._authenticate,
    Opcode.SASL_STEP: Session._authenticate_step,
    Opcode.SELECT_BUCKET: Session._select_bucket,
    Opcode.GET_CLUSTER_CONFIG: Session._cluster_config,
    Opcode.GET_COLLECTIONS_MANIFEST: Session._manifest,
    Opcode.GET_COLLECTION_ID: Session._collection_id,
    **dict.fromkeys(_DOCUMENT_OPCODES, Session._document),
}

_OPERATIONS: dict[int, Callable[[Session, Request, Bucket, tuple[int, bytes]], bytes]] = {
    Opcode.GET: Session._get,
    Opcode.GET_META: Session._get_meta,
    Opcode.SET: Session._store,
    Opcode.ADD: Session._store,
    Opcode.REPLACE: Session._store,
    Opcode.DELETE: Session._delete,
}
