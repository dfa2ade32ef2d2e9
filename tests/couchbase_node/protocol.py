"""Frames of the memcached binary protocol as Couchbase extends it.

https://github.com/couchbase/kv_engine/blob/master/docs/BinaryProtocol.md
"""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

HEADER = struct.Struct(">BBHBBHIIQ")
HEADER_BYTES = HEADER.size

MAX_PACKET_BYTES = 30 * 1024 * 1024
"""Of a request's body. The real engine resets the connection of a client that announces more."""

_REQUEST = 0x80
_RESPONSE = 0x81
_FLEXIBLE_REQUEST = 0x08
_FLEXIBLE_RESPONSE = 0x18


class Opcode(IntEnum):
    GET = 0x00
    SET = 0x01
    ADD = 0x02
    REPLACE = 0x03
    DELETE = 0x04
    NOOP = 0x0A
    HELLO = 0x1F
    SASL_LIST_MECHS = 0x20
    SASL_AUTH = 0x21
    SASL_STEP = 0x22
    SELECT_BUCKET = 0x89
    GET_META = 0xA0
    GET_CLUSTER_CONFIG = 0xB5
    GET_COLLECTIONS_MANIFEST = 0xBA
    GET_COLLECTION_ID = 0xBB
    GET_ERROR_MAP = 0xFE


class Status(IntEnum):
    SUCCESS = 0x00
    NOT_FOUND = 0x01
    EXISTS = 0x02
    TOO_BIG = 0x03
    INVALID = 0x04
    NOT_MY_VBUCKET = 0x07
    NO_BUCKET = 0x08
    LOCKED = 0x09
    AUTH_ERROR = 0x20
    AUTH_CONTINUE = 0x21
    NO_ACCESS = 0x24
    UNKNOWN_COMMAND = 0x81
    TEMPORARY_FAILURE = 0x86
    UNKNOWN_COLLECTION = 0x88
    UNKNOWN_SCOPE = 0x8C
    DURABILITY_IMPOSSIBLE = 0xA1


class Feature(IntEnum):
    """What HELLO negotiates here. The real engine also grants sub-documents and pushes maps."""

    TCP_NODELAY = 0x03
    MUTATION_TOKENS = 0x04
    EXTENDED_ERRORS = 0x07
    SELECT_BUCKET = 0x08
    SNAPPY = 0x0A
    JSON = 0x0B
    DUPLEX = 0x0C
    UNORDERED_EXECUTION = 0x0E
    SERVER_DURATION = 0x0F
    ALTERNATIVE_REQUEST = 0x10
    DURABILITY = 0x11
    COLLECTIONS = 0x12
    PRESERVE_EXPIRY = 0x14
    ONE_MAP_FOR_NOT_MY_VBUCKET = 0x1E


class Datatype(IntFlag):
    """What a value is, and how it is packed."""

    JSON = 0x01
    SNAPPY = 0x02


class Frame(IntEnum):
    """The kinds of framing extras of a request."""

    DURABILITY = 1
    PRESERVE_EXPIRY = 5


class Request(NamedTuple):
    opcode: int
    vbucket: int
    opaque: int
    cas: int
    datatype: int
    frames: frozenset[int]
    extras: bytes
    key: bytes
    value: bytes
    malformed: bool = False
    """Its lengths contradict each other: it can be rejected, but not read."""


class ProtocolError(Exception):
    """Raised when what arrives isn't a frame: a node closes the connection then."""


class MalformedRequestError(Exception):
    """Raised when a frame isn't a request that can be carried out. The text says why."""


def split_requests(buffer: bytearray) -> list[Request]:
    """Takes all complete requests out of `buffer`."""
    requests = []
    position = 0
    while len(buffer) - position >= HEADER_BYTES:
        header = HEADER.unpack_from(buffer, position)
        if header[0] not in (_REQUEST, _FLEXIBLE_REQUEST):
            raise ProtocolError(f"magic {header[0]:#x}")
        body_size = header[6]
        if body_size > MAX_PACKET_BYTES:
            raise ProtocolError(f"a packet of {body_size} bytes")
        body_at = position + HEADER_BYTES
        position = body_at + body_size
        if len(buffer) < position:
            position = body_at - HEADER_BYTES
            break
        requests.append(_request(header, bytes(buffer[body_at:position])))
    del buffer[:position]
    return requests


def _request(header: tuple[int, ...], body: bytes) -> Request:
    magic, opcode, key_size, extras_size, datatype, vbucket, _, opaque, cas = header
    framing_size = 0
    if magic == _FLEXIBLE_REQUEST:
        framing_size, key_size = key_size >> 8, key_size & 0xFF
    key_at = framing_size + extras_size
    value_at = key_at + key_size
    frames = _frames(body[:framing_size]) if value_at <= len(body) else None
    if frames is None:
        return Request(opcode, vbucket, opaque, cas, datatype, frozenset(), b"", b"", b"", malformed=True)
    extras, key, value = body[framing_size:key_at], body[key_at:value_at], body[value_at:]
    return Request(opcode, vbucket, opaque, cas, datatype, frames, extras, key, value)


_NO_FRAMES: frozenset[int] = frozenset()


def _frames(framing: bytes) -> frozenset[int] | None:
    """Returns the ids of the frames, whatever they hold; None if they contradict their own lengths."""
    if not framing:
        return _NO_FRAMES
    found = set()
    position = 0
    while position < len(framing):
        number, size = framing[position] >> 4, framing[position] & 0x0F
        if number == 0x0F or size == 0x0F:  # escapes, for ids and sizes that nothing has yet
            return None
        found.add(number)
        position += 1 + size
    return frozenset(found) if position == len(framing) else None


def response(
    request: Request,
    status: int = Status.SUCCESS,
    *,
    extras: bytes = b"",
    key: bytes = b"",
    value: bytes = b"",
    cas: int = 0,
    datatype: int = 0,
    with_duration: bool = False,
) -> bytes:
    """Returns the response to `request`, with the server's duration in a flexible frame if requested."""
    framing = b"\x02\x00\x05" if with_duration else b""  # frame 0 (server duration), 2 bytes, a few microseconds
    magic = _FLEXIBLE_RESPONSE if framing else _RESPONSE
    key_size = len(framing) << 8 | len(key) if framing else len(key)
    body = b"".join((framing, extras, key, value))
    return (
        HEADER.pack(magic, request.opcode, key_size, len(extras), datatype, status, len(body), request.opaque, cas)
        + body
    )


def split_collection(key: bytes) -> tuple[int, bytes]:
    """Splits the LEB128 collection id off a key."""
    collection = shift = 0
    for index, byte in enumerate(key):
        collection |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return collection, key[index + 1 :]
        shift += 7
    raise MalformedRequestError("a collection id without an end")
