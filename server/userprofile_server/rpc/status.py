"""Encodes an entry of the error table as the google.rpc.Status that a caller receives."""

import functools

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from userprofile_server.rpc.error_table import DOMAIN, ErrorStatus


class ForeignStatusError(Exception):
    """Raised where another protocol, such as health, requires a status that has no reason of our contract."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """The caller receives both."""
        super().__init__(message)
        self.code = code
        self.message = message


def to_bytes(status: ErrorStatus, error: BaseException, *, request_id: str) -> bytes:
    """Returns `to_status`, serialized, with the request id.

    The part that all errors of a kind share is serialized once. The request id is appended: concatenated protobuf
    messages of one type are merged.
    """
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.RequestInfo(request_id=request_id))
    id_alone: bytes = status_pb2.Status(details=[packed]).SerializeToString()
    return (_common(status) if status.field is None else _serialized(status, error)) + id_alone


def _serialized(status: ErrorStatus, error: BaseException | None = None) -> bytes:
    serialized: bytes = to_status(status, error).SerializeToString()
    return serialized


_common = functools.cache(_serialized)


def to_status(status: ErrorStatus, error: BaseException | None, *, field: str | None = None) -> status_pb2.Status:
    """Returns the google.rpc.Status for `error`. It contains the error's own text only if a request field is to blame.

    `field` is the field's path in the request if the table can't know it; see google.rpc.BadRequest.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=status.reason, domain=DOMAIN)]
    if status.retry_delay is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=status.retry_delay)))
    if status.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field or status.field, description=str(error), reason=status.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    message = status_pb2.Status(code=status.code.value[0], message=status.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        message.details.append(packed)
    return message
