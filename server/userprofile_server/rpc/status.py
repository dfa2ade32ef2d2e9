"""From the error table to the wire: the google.rpc.Status that tells a caller of an error."""

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from userprofile_server.rpc.error_table import DOMAIN, Answer


def to_status(
    answer: Answer, error: BaseException, *, request_id: str | None = None, field: str | None = None
) -> status_pb2.Status:
    """Returns what `answer` says of `error`, whose own text stands in it only where a field is to blame.

    `field` is the field's path in the request where the table can't know it; see google.rpc.BadRequest.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=answer.reason, domain=DOMAIN)]
    if answer.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field or answer.field, description=str(error), reason=answer.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if request_id is not None:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    status = status_pb2.Status(code=answer.status.value[0], message=answer.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
