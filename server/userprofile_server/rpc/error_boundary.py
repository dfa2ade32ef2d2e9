"""The stage that no exception passes: whatever is raised inside becomes a status from the error table."""

import logging
from typing import NoReturn

import grpc

from userprofile_server.errors import DomainError
from userprofile_server.rpc import request_id
from userprofile_server.rpc.error_table import UNEXPECTED, Answer, answer_to
from userprofile_server.rpc.handler import Handler
from userprofile_server.rpc.status import to_status

_log = logging.getLogger(__name__)


def with_error_boundary(handle: Handler) -> Handler:
    """Answers errors by the table. Left alone, grpc would send any exception's text to the caller.

    What is inside doesn't call `context.abort()`: it raises the domain's errors.
    """

    def handle_within_boundary(request: object, context: grpc.ServicerContext) -> object:
        try:
            return handle(request, context)
        except DomainError as error:
            answer = answer_to(error)
            _abort(context, answer, error)
        # BaseException: grpc would leave a call unanswered on SystemExit or a panic of a native module.
        except BaseException as error:  # noqa: BLE001
            _log.error("%s", UNEXPECTED.reason, exc_info=error, extra={"kind": UNEXPECTED.reason})
            _abort(context, UNEXPECTED, error)

    return handle_within_boundary


def _abort(context: grpc.ServicerContext, answer: Answer, error: BaseException) -> NoReturn:
    current_id = request_id.current.get()
    status = to_status(answer, error, request_id=current_id)
    metadata: list[tuple[str, str | bytes]] = [
        (request_id.METADATA_KEY, current_id),
        ("grpc-status-details-bin", status.SerializeToString()),
    ]
    if not answer.retry:
        metadata.append(("grpc-retry-pushback-ms", "-1"))
    context.set_trailing_metadata(tuple(metadata))
    context.abort(answer.status, answer.message)
