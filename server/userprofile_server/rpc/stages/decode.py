"""The innermost stage: decodes the request's bytes into the method's message."""

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from userprofile_server.errors import MalformedRequestError
from userprofile_server.rpc.stages import Handler, Method


def decode(method: Method, handle: Handler) -> Handler:
    """Raises MalformedRequestError for bytes that aren't the method's message. Leaves streaming requests unchanged.

    grpc's own deserializer would log a traceback and return INTERNAL, which blames the server for a caller's mistake.
    """
    if method.client_streaming:
        return handle
    parse = GetMessageClass(method.input_type).FromString

    def handle_decoded(request: bytes, context: grpc.ServicerContext) -> object:
        try:
            message = parse(request)
        except DecodeError:
            raise MalformedRequestError from None
        return handle(message, context)

    return handle_decoded
