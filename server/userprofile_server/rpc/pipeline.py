"""From a servicer's method to what grpc calls: the stages around it, and the bytes at both ends."""

from typing import Any

import grpc
from google.protobuf.message import Message

from userprofile.v1 import user_profile_pb2 as pb
from userprofile_server.errors import MalformedRequestError
from userprofile_server.rpc.error_boundary import with_error_boundary
from userprofile_server.rpc.handler import MALFORMED, Handler, Stage, deserializer
from userprofile_server.rpc.request_id import with_request_id
from userprofile_server.service import UserProfileService

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["UserProfileService"].full_name


def _reject_malformed(handle: Handler) -> Handler:
    def handle_well_formed(request: object, context: grpc.ServicerContext) -> object:
        if request is MALFORMED:
            raise MalformedRequestError
        return handle(request, context)

    return handle_well_formed


STAGES: tuple[Stage, ...] = (with_request_id, with_error_boundary, _reject_malformed)
"""What every call passes, outermost first."""


def add_user_profile_service(servicer: UserProfileService, server: grpc.Server) -> None:
    """Registers the servicer's methods, each wrapped in all stages once and for all.

    Interceptors could do the same, but grpc asks them anew on each call.
    """
    handlers = {
        "BatchGetUsers": _unary(servicer.BatchGetUsers, pb.BatchGetUsersRequest, pb.BatchGetUsersResponse),
        "GetUser": _unary(servicer.GetUser, pb.GetUserRequest, pb.GetUserResponse),
    }
    server.add_registered_method_handlers(SERVICE_NAME, handlers)


def _unary(
    behavior: Handler, request_type: type[Message], response_type: type[Message]
) -> "grpc.RpcMethodHandler[Any, Any]":
    for stage in reversed(STAGES):
        behavior = stage(behavior)
    return grpc.unary_unary_rpc_method_handler(
        behavior, request_deserializer=deserializer(request_type), response_serializer=response_type.SerializeToString
    )
