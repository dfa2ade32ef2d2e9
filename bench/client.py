"""The Python client's CPU per call compared with the bare stub, and the savings by batches."""

import statistics
import time
from collections.abc import Callable, Sequence

import grpc

from userprofile import UserProfileClient
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

_CALLS = 3000


def client_ratios(target: str, rounds: int) -> dict[str, float]:
    """Returns the CPU of a call with the stub, in microseconds, and the client's as a multiple of it."""
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
        names = [f"user{number}" for number in range(1, 1000)]
        rates = [(_rate(client.get_user, names), _batch_rate(client, names * 20)) for _ in range(rounds)]
    return {
        "iter_users, names/s against get_user one by one": round(statistics.median(b / a for a, b in rates), 1),
        "stub, CPU µs/call": round(statistics.median(stub for stub, _ in pairs), 1),
        "client, × stub": round(statistics.median(client / stub for stub, client in pairs), 3),
    }


def _cpu_us(call: Callable[[], object]) -> float:
    before = time.process_time()
    for _ in range(_CALLS):
        call()
    return (time.process_time() - before) / _CALLS * 1e6


def _rate(call: Callable[[str], object], names: Sequence[str]) -> float:
    began = time.monotonic()
    for name in names:
        call(name)
    return len(names) / (time.monotonic() - began)


def _batch_rate(client: UserProfileClient, names: Sequence[str]) -> float:
    began = time.monotonic()
    found = sum(1 for _ in client.iter_users(names))
    return found / (time.monotonic() - began)
