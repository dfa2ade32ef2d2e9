"""What the Python client costs over the bare stub: its own CPU for each call, in one process, in turn."""

import statistics
import time
from collections.abc import Callable

import grpc

from userprofile import UserProfileClient
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

_CALLS = 3000


def client_ratios(target: str, rounds: int) -> dict[str, float]:
    """Returns the CPU of a call by the stub, in microseconds, and what the client takes as a multiple of it."""
    request = pb.GetUserRequest(username="johndoe")
    with grpc.insecure_channel(target) as channel, UserProfileClient(target) as client:
        stub = pb_grpc.UserProfileServiceStub(channel)

        def by_stub() -> object:
            return stub.GetUser(request, timeout=5)

        def by_client() -> object:
            return client.get_user("johndoe")

        _cpu_us(by_stub)
        _cpu_us(by_client)
        pairs = [(_cpu_us(by_stub), _cpu_us(by_client)) for _ in range(2 * rounds)]
    return {
        "stub, CPU µs/call": round(statistics.median(stub for stub, _ in pairs), 1),
        "client, × stub": round(statistics.median(client / stub for stub, client in pairs), 3),
    }


def _cpu_us(ask: Callable[[], object]) -> float:
    before = time.process_time()
    for _ in range(_CALLS):
        ask()
    return (time.process_time() - before) / _CALLS * 1e6
