"""A server without room for a call: when both Python clients call again, and when they don't."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import userprofile
from tests.canary import raises
from tests.clients.twins import MakeClient
from tests.support import WAIT
from userprofile import User, reasons
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

CODE = grpc.StatusCode.RESOURCE_EXHAUSTED
MESSAGE = "The server is overloaded."


def packed(detail: Message) -> any_pb2.Any:
    found = any_pb2.Any()
    found.Pack(detail)
    return found


DETAILS = status_pb2.Status(
    code=CODE.value[0],
    message=MESSAGE,
    details=map(
        packed,
        [
            error_details_pb2.ErrorInfo(domain="userprofile", reason=reasons.OVERLOADED),
            error_details_pb2.RetryInfo(),
        ],
    ),
).SerializeToString()


class Overloaded(pb_grpc.UserProfileServiceServicer):
    """Refuses the attempts for which `pushback` returns one, and notes when each attempt has come."""

    BatchGetUsers: Any = None

    def __init__(self, pushback: Callable[[int], str | None]) -> None:
        self.attempts: list[float] = []
        self._pushback = pushback

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        self.attempts.append(time.monotonic())
        pushback = self._pushback(len(self.attempts))
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback), ("grpc-status-details-bin", DETAILS)))
            context.abort(CODE, MESSAGE)
        return pb.GetUserResponse(user=user_pb.User(username=request.username))


@contextmanager
def serving(service: Overloaded) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(8))
    pb_grpc.add_UserProfileServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait()


def test_a_refused_call_is_retried_after_the_pushback(make_client: MakeClient) -> None:
    service = Overloaded(lambda attempt: "400" if attempt == 1 else None)
    with serving(service) as target:
        assert make_client(target, timeout=WAIT).get_user("johndoe") == User("johndoe")
    refused, retried = service.attempts
    assert retried - refused >= 0.4


def test_a_call_that_the_server_does_not_want_again_is_not_retried(make_client: MakeClient) -> None:
    service = Overloaded(lambda _attempt: "-1")
    with serving(service) as target, raises(userprofile.ServiceUnavailableError) as caught:
        make_client(target, timeout=WAIT).get_user("johndoe")
    assert (caught.value.reason, caught.value.retryable) == (reasons.OVERLOADED, True)
    assert len(service.attempts) == 1


def test_a_sustained_overload_is_not_multiplied(make_client: MakeClient) -> None:
    service = Overloaded(lambda _attempt: "1")
    calls = 1000
    with serving(service) as target, ThreadPoolExecutor(20) as pool:
        client = make_client(target, timeout=WAIT)

        def call(_number: int) -> None:
            with raises(userprofile.ServiceUnavailableError):
                client.get_user("johndoe")

        list(pool.map(call, range(calls)))
    assert len(service.attempts) <= calls + 600  # 500 failures until gRPC's throttle ends the retries
