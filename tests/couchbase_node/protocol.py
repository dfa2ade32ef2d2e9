"""Frames of the memcached binary protocol as Couchbase extends it.

https://github.com/couchbase/kv_engine/blob/master/docs/BinaryProtocol.md
"""

import struct
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct(">BBHBBHIIQ")
HEADER_BYTES = HEADER.size

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
    AUTH_ERROR = 0x20
    AUTH_CONTINUE = 0x21
    NO_ACCESS = 0x24
    UNKNOWN_COMMAND = 0x81
    TEMPORARY_FAILURE = 0x86
    UNKNOWN_COLLECTION = 0x88
    UNKNOWN_SCOPE = 0x8C


class Feature(IntEnum):
    """What HELLO negotiates."""

    TCP_NODELAY = 0x03
    MUTATION_TOKENS = 0x04
    EXTENDED_ERRORS = 0x07
    SELECT_BUCKET = 0x08
    JSON = 0x0B
    UNORDERED_EXECUTION = 0x0E
    SERVER_DURATION = 0x0F
    ALTERNATIVE_REQUEST = 0x10
    COLLECTIONS = 0x12


class Request(NamedTuple):
    opcode: int
    vbucket: int
    opaque: int
    cas: int
    extras: bytes
    key: bytes
    value: bytes


class ProtocolError(Exception):
    """Raised when what arrives isn't a frame: a node closes the connection then."""


def split_requests(buffer: bytearray) -> list[Request]:
    """Takes all complete requests out of `buffer`."""
    requests = []
    position = 0
    while len(buffer) - position >= HEADER_BYTES:
        magic, opcode, key_size, extras_size, _, vbucket, body_size, opaque, cas = HEADER.unpack_from(buffer, position)
        framing_size = 0
        if magic == _FLEXIBLE_REQUEST:
            framing_size, key_size = key_size >> 8, key_size & 0xFF
        elif magic != _REQUEST:
            raise ProtocolError(f"magic {magic:#x}")
        end = position + HEADER_BYTES + body_size
        if len(buffer) < end:
            break
        extras_at = position + HEADER_BYTES + framing_size
        key_at = extras_at + extras_size
        value_at = key_at + key_size
        if value_at > end:
            raise ProtocolError("lengths contradict each other")
        requests.append(
            Request(
                opcode,
                vbucket,
                opaque,
                cas,
                bytes(buffer[extras_at:key_at]),
                bytes(buffer[key_at:value_at]),
                bytes(buffer[value_at:end]),
            )
        )
        position = end
    del buffer[:position]
    return requests


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
    """Returns the frame that answers `request`, with the server's duration in a flexible frame if asked for."""
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
    raise ProtocolError("a collection id without an end")
