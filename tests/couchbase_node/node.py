"""One node: a listener, and a session for each connection."""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable

from tests.couchbase_node import scram, snappy
from tests.couchbase_node.cluster import DEFAULT_COLLECTION, Bucket, Cluster, Document, Place, Rights, is_json
from tests.couchbase_node.faults import Faults
from tests.couchbase_node.protocol import (
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    Datatype,
    Feature,
    Frame,
    MalformedRequestError,
    Opcode,
    ProtocolError,
    Request,
    Status,
    response,
    split_collection,
    split_requests,
)

MAX_VALUE_BYTES = 20 * 1024 * 1024
MAX_KEY_BYTES = 250
MAX_KEY_BYTES_IN_COLLECTION = 246  # in any but the default one
_LONGEST_RELATIVE_EXPIRY = 30 * 24 * 60 * 60  # what is longer is an absolute time

_WRITES: dict[int, int] = {
    Opcode.SET: 8,
    Opcode.ADD: 8,
    Opcode.REPLACE: 8,
    Opcode.DELETE: 0,
}  # and the size of their extras
_DOCUMENT_OPCODES = {Opcode.GET, Opcode.GET_META, *_WRITES}
_BEFORE_AUTHENTICATION = {
    Opcode.HELLO,
    Opcode.GET_ERROR_MAP,
    Opcode.SASL_LIST_MECHS,
    Opcode.SASL_AUTH,
    Opcode.SASL_STEP,
    Opcode.NOOP,
}
_LOCKED_CAS = 0xFFFFFFFFFFFFFFFF  # a read of a locked document doesn't return the CAS that would unlock it

_HAVE_BODIES = {
    Status.INVALID,
    Status.AUTH_ERROR,
    Status.NO_ACCESS,
    Status.UNKNOWN_COLLECTION,
    Status.UNKNOWN_SCOPE,
}

_ERROR_MAP = {
    "version": 1,
    "revision": 1,
    "errors": {
        "1": {"name": "KEY_ENOENT", "desc": "Not Found", "attrs": ["item-only"]},
        "2": {"name": "KEY_EEXISTS", "desc": "Exists", "attrs": ["item-only"]},
        "3": {"name": "E2BIG", "desc": "Too big", "attrs": ["item-only", "invalid-input"]},
        "7": {"name": "NOT_MY_VBUCKET", "desc": "Not here", "attrs": ["fetch-config", "invalid-input"]},
        "9": {"name": "LOCKED", "desc": "Locked", "attrs": ["item-locked", "item-only", "retry-now"]},
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
        self.advertised = host
        """What the cluster's map says that its host is."""
        self.external: tuple[str, int] | None = None
        """Its alternate address for clients on another network."""
        self.tls = tls
        self.faults = Faults()
        self.requests: dict[int, int] = {}
        """How many requests there were of each opcode."""
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
        self._datatypes = 0
        """What it may send and be sent beside plain values, in the bits of `Datatype`."""
        self._scram: scram.Scram | None = None
        self._username: str | None = None
        self._sent_revision = 0
        self._unsent = bytearray()
        """What a slow line has still to carry."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._node._sessions.add(self)
        self._node.connections_made += 1
        subject = [dict(name) for name in (transport.get_extra_info("peercert") or {}).get("subject", ())]
        if subject:  # no password, no SASL: the certificate says who it is
            names = [name["commonName"] for name in subject if "commonName" in name]
            self._username = next((name for name in names if name in self._cluster.users), None)
        if self._node.faults.full or (subject and self._username is None):
            transport.close()
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
                self._send(request, self._respond(request))
        except ProtocolError:
            self.reset()

    def _send(self, request: Request, frame: bytes) -> None:
        faults = self._node.faults
        if self._transport.is_closing():
            return
        if faults.bytes_per_second or self._unsent:
            self._unsent += frame
            if len(self._unsent) == len(frame):
                self._send_slowly()
        elif request.opcode not in _DOCUMENT_OPCODES:
            self._transport.write(frame)
        elif faults.overlong:
            at = 3 if faults.overlong == "key" else 4
            self._transport.write(frame[:at] + b"\xff" + frame[at + 1 : HEADER_BYTES])
            self._transport.write(frame[HEADER_BYTES:])
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

    def _send_slowly(self) -> None:
        """Sends what a hundredth of a second has room for, and the rest after that."""
        if self._transport.is_closing():
            return
        room = self._node.faults.bytes_per_second // 100 or len(self._unsent)
        self._transport.write(bytes(self._unsent[:room]))
        del self._unsent[:room]
        if self._unsent:
            asyncio.get_running_loop().call_later(0.01, self._send_slowly)

    def _send_late(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame)

    def _respond(self, request: Request) -> bytes:
        forced = self._node.faults.statuses.get(request.opcode)
        if forced is not None:
            return self._not_my_vbucket(request) if forced == Status.NOT_MY_VBUCKET else self._refuse(request, forced)
        if request.malformed:
            return self._refuse(request, Status.INVALID)
        if self._username is None and request.opcode not in _BEFORE_AUTHENTICATION:
            return self._refuse(request, Status.NO_ACCESS)
        handler = _HANDLERS.get(request.opcode)
        if handler is None:
            return response(request, Status.UNKNOWN_COMMAND)
        try:
            return handler(self, request)
        except (MalformedRequestError, ValueError, struct.error) as error:
            return self._refuse(request, Status.INVALID, str(error))

    def _refuse(self, request: Request, status: int, why: str = "") -> bytes:
        """Returns an error with the body that belongs to its status: the cause, and a reference to the node's log."""
        if status not in _HAVE_BODIES or Feature.EXTENDED_ERRORS not in self._features:
            return response(request, status)
        body: dict[str, object] = {
            "error": {"context": f"{why} {self._cluster.error_context}".strip(), "ref": f"{request.opaque:08x}"}
        }
        bucket = self._bucket()
        if status in (Status.UNKNOWN_COLLECTION, Status.UNKNOWN_SCOPE) and bucket is not None:
            body["manifest_uid"] = f"{bucket.manifest_uid:x}"
        return response(request, status, value=json.dumps(body).encode(), datatype=Datatype.JSON & self._datatypes)

    def _not_my_vbucket(self, request: Request) -> bytes:
        """Returns the error with the cluster map; only once per revision if the client has requested that."""
        if Feature.ONE_MAP_FOR_NOT_MY_VBUCKET in self._features and self._sent_revision == self._cluster.revision:
            return response(request, Status.NOT_MY_VBUCKET)
        self._sent_revision = self._cluster.revision
        json_ = Datatype.JSON & self._datatypes
        return response(request, Status.NOT_MY_VBUCKET, value=self._config(), datatype=json_)

    def _hello(self, request: Request) -> bytes:
        count = len(request.value) // 2
        requested = struct.unpack(f">{count}H", request.value[: count * 2])
        granted = [feature for feature in requested if feature in set(Feature)]
        self._features = set(granted)
        self._datatypes = 0
        for feature, datatype in ((Feature.JSON, Datatype.JSON), (Feature.SNAPPY, Datatype.SNAPPY)):
            self._datatypes |= int(datatype) if feature in self._features else 0
        return response(request, value=struct.pack(f">{len(granted)}H", *granted))

    def _error_map(self, request: Request) -> bytes:
        return response(request, value=json.dumps(_ERROR_MAP).encode(), datatype=Datatype.JSON)

    def _noop(self, request: Request) -> bytes:
        return response(request)

    def _list_mechanisms(self, request: Request) -> bytes:
        return response(request, value=" ".join([*scram.MECHANISMS, "PLAIN"]).encode())

    def _authenticate(self, request: Request) -> bytes:
        mechanism = request.key.decode()
        try:
            if mechanism == "PLAIN":
                self._username = scram.check_plain(request.value, self._cluster.users)
                return response(request)
            self._scram = scram.Scram(mechanism, self._cluster.users)
            return response(request, Status.AUTH_CONTINUE, value=self._scram.first(request.value))
        except (scram.AuthenticationError, KeyError, ValueError):
            return self._refuse(request, Status.AUTH_ERROR, "Authentication failed")

    def _authenticate_step(self, request: Request) -> bytes:
        exchange, self._scram = self._scram, None
        try:
            if exchange is None:
                raise scram.AuthenticationError
            value = exchange.final(request.value)
        except (scram.AuthenticationError, ValueError):
            return self._refuse(request, Status.AUTH_ERROR, "Authentication failed")
        self._username = exchange.username
        return response(request, value=value)

    def _select_bucket(self, request: Request) -> bytes:
        name = request.key.decode()
        if not self._rights().may_use(name):  # whether it exists isn't for this user to know
            return self._refuse(request, Status.NO_ACCESS, "no access to the bucket")
        if self._node.faults.warming_up:
            return response(request, self._node.faults.warming_up)
        if name not in self._cluster.buckets:
            return response(request, Status.NOT_FOUND)
        self.bucket_name = name
        return response(request)

    def _cluster_config(self, request: Request) -> bytes:
        return response(request, value=self._config(), datatype=Datatype.JSON)

    def _config(self) -> bytes:
        return self._cluster.config(self._node, self.bucket_name)

    def _manifest(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        return response(request, value=bucket.manifest(), datatype=Datatype.JSON)

    def _collection_id(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        path = (request.value or request.key).decode()
        number = bucket.collections.get(path)
        if number is None or not self._rights().may_see(path):  # which of the two isn't for this user to know
            scope = path.partition(".")[0] + "."
            known = any(name.startswith(scope) for name in bucket.collections)
            return self._refuse(request, Status.UNKNOWN_COLLECTION if known else Status.UNKNOWN_SCOPE, "unknown")
        return response(request, extras=struct.pack(">QI", bucket.manifest_uid, number))

    def _document(self, request: Request) -> bytes:
        bucket = self._bucket()
        if bucket is None:
            return response(request, Status.NO_BUCKET)
        collection, key = DEFAULT_COLLECTION, request.key
        if Feature.COLLECTIONS in self._features:
            collection, key = split_collection(key)
        self._check_form(request, collection, key)
        if self._node.faults.warming_up:
            return response(request, Status.TEMPORARY_FAILURE)
        rights = self._rights()
        if not rights.may_use(bucket.name) or (request.opcode in _WRITES and not rights.write):
            return self._refuse(request, Status.NO_ACCESS, "the privilege for this is missing")
        if not bucket.has(collection, rights):
            return self._refuse(request, Status.UNKNOWN_COLLECTION, "unknown")
        owner = bucket.owners[request.vbucket] if request.vbucket < len(bucket.owners) else None
        if owner is None or self._cluster.nodes[owner] is not self._node:
            return self._not_my_vbucket(request)
        if Frame.DURABILITY in request.frames:  # a node without replicas, or whose replicas are made up
            return response(request, Status.DURABILITY_IMPOSSIBLE)
        place = request.vbucket, collection, key
        refused = bucket.refused.get(key)
        if refused is not None and request.opcode in _WRITES:
            there = request.opcode == Opcode.ADD and bucket.get(place) is not None
            return self._refuse(request, Status.EXISTS if there else refused)
        return _OPERATIONS[request.opcode](self, request, bucket, place)

    def _check_form(self, request: Request, collection: int, key: bytes) -> None:
        """Raises MalformedRequestError for what the engine refuses before it looks for the document."""
        longest = MAX_KEY_BYTES if collection == DEFAULT_COLLECTION else MAX_KEY_BYTES_IN_COLLECTION
        if not 0 < len(key) <= longest:
            raise MalformedRequestError("the key's size")
        extras = _WRITES.get(request.opcode, 0)
        if request.opcode != Opcode.GET_META and len(request.extras) != extras:
            raise MalformedRequestError("the extras' size")
        if not extras and request.value:
            raise MalformedRequestError("a value where none belongs")
        if request.datatype & ~self._datatypes or (request.datatype and not extras):
            raise MalformedRequestError("the datatype")

    def _get(self, request: Request, bucket: Bucket, place: Place) -> bytes:
        document = bucket.get(place)
        if document is None:
            return self._done(request, Status.NOT_FOUND)
        datatype = document.datatype & self._datatypes
        value = document.value if datatype == document.datatype else document.inflated()
        cas = _LOCKED_CAS if document.locked else document.cas
        return self._done(request, extras=struct.pack(">I", document.flags), value=value, cas=cas, datatype=datatype)

    def _get_meta(self, request: Request, bucket: Bucket, place: Place) -> bytes:
        document = bucket.get(place)
        if document is None:
            return self._done(request, Status.NOT_FOUND)
        # deleted, flags, expiry, sequence, datatype
        extras = struct.pack(">IIIQB", 0, document.flags, document.expires, 1, document.datatype)
        return self._done(request, extras=extras, cas=document.cas)

    def _store(self, request: Request, bucket: Bucket, place: Place) -> bytes:
        compressed = request.datatype & Datatype.SNAPPY
        size = snappy.inflated_size(request.value) if compressed else len(request.value)
        if size > MAX_PACKET_BYTES:
            raise MalformedRequestError("inflates to more than a packet may have")
        value = snappy.inflate(request.value) if compressed else request.value
        existing = bucket.get(place)
        if request.opcode == Opcode.ADD and existing is not None:
            return self._done(request, Status.EXISTS)
        if existing is None and (request.opcode == Opcode.REPLACE or request.cas):
            return self._done(request, Status.NOT_FOUND)
        if existing is not None and existing.locked and request.cas != existing.cas:
            return self._done(request, Status.LOCKED)
        if existing is not None and request.cas not in (0, existing.cas):
            return self._done(request, Status.EXISTS)
        if size > MAX_VALUE_BYTES:
            return self._done(request, Status.TOO_BIG)
        flags, expiry = struct.unpack(">II", request.extras)
        if 0 < expiry <= _LONGEST_RELATIVE_EXPIRY:
            expiry += int(time.time())
        if existing is not None and Frame.PRESERVE_EXPIRY in request.frames:
            expiry = existing.expires
        cas = self._cluster.next_cas()
        datatype = int(compressed) | (int(Datatype.JSON) if is_json(value) else 0)
        bucket.put(place, Document(request.value, flags, cas, datatype, expiry))
        return self._done(request, extras=self._mutation_token(), cas=cas)

    def _delete(self, request: Request, bucket: Bucket, place: Place) -> bytes:
        existing = bucket.get(place)
        if existing is None:
            return self._done(request, Status.NOT_FOUND)
        if existing.locked and request.cas != existing.cas:
            return self._done(request, Status.LOCKED)
        if request.cas not in (0, existing.cas):
            return self._done(request, Status.EXISTS)
        bucket.delete(place)
        return self._done(request, extras=self._mutation_token(), cas=self._cluster.next_cas())

    def _mutation_token(self) -> bytes:
        return struct.pack(">QQ", 1, self._cluster.next_cas()) if Feature.MUTATION_TOKENS in self._features else b""

    def _done(
        self,
        request: Request,
        status: int = Status.SUCCESS,
        *,
        extras: bytes = b"",
        value: bytes = b"",
        cas: int = 0,
        datatype: int = 0,
    ) -> bytes:
        with_duration = Feature.SERVER_DURATION in self._features
        return response(
            request, status, extras=extras, value=value, cas=cas, datatype=datatype, with_duration=with_duration
        )

    def _rights(self) -> Rights:
        return self._cluster.rights_of(self._username or "")

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

_OPERATIONS: dict[int, Callable[[Session, Request, Bucket, Place], bytes]] = {
    Opcode.GET: Session._get,
    Opcode.GET_META: Session._get_meta,
    Opcode.SET: Session._store,
    Opcode.ADD: Session._store,
    Opcode.REPLACE: Session._store,
    Opcode.DELETE: Session._delete,
}
