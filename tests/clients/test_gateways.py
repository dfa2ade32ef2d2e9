"""A gateway whose service is away for a while, and which returns HTML pages meanwhile: calls are retried."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

import userprofile
from tests.canary import raises
from tests.clients import raw_server as raw
from tests.clients.twins import MakeClient
from tests.support import eventually
from userprofile import User
from userprofile.channel import ChannelConfig
from userprofile.retries import BURST, Retries
from userprofile.v1 import user_profile_pb2 as users_pb
from userprofile.v1 import user_profile_service_pb2 as pb

JOHN = users_pb.User(username="johndoe")
FOUND = pb.GetUserResponse(user=JOHN)
BATCH = pb.BatchGetUsersResponse(results=[pb.BatchGetUsersResponse.Result(username="johndoe", user=JOHN)])


class Gateway(raw.RawServer):
    """Responds with these pages, one for each attempt, and then with a message.

    A page whose text comes after its headers have been read, as most do, is never retried by gRPC itself.
    """

    def __init__(self, pages: Sequence[int], message: Any = FOUND, *, in_parts: bool = True) -> None:
        super().__init__(raw.start(), raw.message(message.SerializeToString()), raw.trailers(0))
        self._pages: Iterator[int] = iter(pages)
        self._in_parts = in_parts
        self.attempts = 0

    def frames_of_call(self) -> Sequence[bytes]:
        self.attempts += 1
        page = next(self._pages, None)
        if page is None:
            return super().frames_of_call()
        head, text = raw.html_in_parts(page)
        return [head, raw.READ, text] if self._in_parts else [head + text]


def failure(http: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Any:
    class Failure(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return code

        def details(self) -> str:
            return f"Received http2 header with status: {http}"

    return Failure()


class TestClients:
    @pytest.mark.parametrize("in_parts", [True, False])
    @pytest.mark.parametrize("page", [502, 503, 504])
    def test_a_user(self, make_client: MakeClient, page: int, in_parts: bool) -> None:
        with Gateway([page], in_parts=in_parts) as gateway:
            client = make_client(gateway.target, timeout=30)
            assert client.get_user("johndoe") == User("johndoe")
            assert gateway.attempts == 2

    def test_a_batch(self, make_client: MakeClient) -> None:
        with Gateway([502], BATCH) as gateway:
            assert make_client(gateway.target, timeout=30).get_users(["johndoe"]) == {"johndoe": User("johndoe")}
            assert gateway.attempts == 2

    def test_a_batch_that_is_taken_late(self, make_client: MakeClient) -> None:
        with Gateway([502], BATCH) as gateway:
            outcomes = make_client(gateway.target, timeout=30).iter_users(["johndoe"])
            assert list(outcomes) == [("johndoe", User("johndoe"))]

    @pytest.mark.slow
    def test_an_outage_ends_in_an_error(self, make_client: MakeClient) -> None:
        with Gateway([502] * 1000) as gateway:
            with raises(userprofile.ServiceUnavailableError, match="HTTP 502") as caught:
                make_client(gateway.target, timeout=30).get_user("johndoe")
            assert caught.value.reason == "SERVICE_UNREACHABLE"
            # Five; on a busy machine fewer, for their time is counted; more where gRPC has its own between two of ours.
            assert 2 <= gateway.attempts <= 15

    @pytest.mark.parametrize("page", [401, 403, 404])
    def test_a_refusal_is_not_retried(self, make_client: MakeClient, page: int) -> None:
        with Gateway([page] * 1000) as gateway:
            with raises(userprofile.UserProfileError, match=f"HTTP {page}"):
                make_client(gateway.target, timeout=30).get_user("johndoe")
            assert gateway.attempts == 1

    def test_who_wants_no_retries_has_none(self, make_client: MakeClient) -> None:
        with Gateway([502] * 1000) as gateway:
            with raises(userprofile.ServiceUnavailableError):
                make_client(gateway.target, timeout=30, retries=0).get_user("johndoe")
            assert gateway.attempts == 1

    def test_closing_ends_the_wait(self, make_client: MakeClient) -> None:
        with Gateway([502] * 1000) as gateway, ThreadPoolExecutor(1) as threads:
            client = make_client(gateway.target, timeout=3600)
            call = threads.submit(client.get_user, "johndoe")
            eventually(lambda: gateway.attempts > 1, "the gateway has received the call", timeout=30)
            client.close()
            with raises(userprofile.UserProfileError, match="closed"):
                call.result(timeout=30)


class TestRetries:
    @pytest.fixture
    def retries(self) -> Retries:
        return Retries(ChannelConfig("localhost:1", tls=None, retries=4, channel_options=()).pauses)

    def test_pauses_are_those_of_grpc(self, retries: Retries) -> None:
        pauses = retries.pauses("GetUser")
        got = [retries.next_pause(pauses, failure(502), took=0, left=30) for _ in range(5)]
        assert got[:4] == pytest.approx([0.05, 0.2, 0.8, 2], rel=0.2)
        assert got[4] is None

    @pytest.mark.parametrize(("took", "pause"), [(0.039, 0.05), (0.041, 0.2), (0.21, 0.8), (0.9, 2), (3, 2), (60, 2)])
    def test_what_grpc_may_have_tried_itself_counts_but_one_is_left(
        self, retries: Retries, took: float, pause: float
    ) -> None:
        pauses = retries.pauses("GetUser")
        assert retries.next_pause(pauses, failure(502), took=took, left=30) == pytest.approx(pause, rel=0.2)

    def test_a_method_without_a_retry_policy_has_none(self, retries: Retries) -> None:
        assert retries.next_pause(retries.pauses("DeleteUser"), failure(502), took=0, left=30) is None

    def test_none_would_begin_after_the_deadline(self, retries: Retries) -> None:
        assert retries.next_pause(retries.pauses("GetUser"), failure(502), took=0, left=0.03) is None

    @pytest.mark.parametrize(
        "error",
        [
            failure(429),
            failure(500, grpc.StatusCode.UNKNOWN),
            failure(502, grpc.StatusCode.UNKNOWN),
            failure(404, grpc.StatusCode.UNIMPLEMENTED),
        ],
    )
    def test_other_errors_are_final(self, retries: Retries, error: Any) -> None:
        assert retries.next_pause(retries.pauses("GetUser"), error, took=0, left=30) is None

    def test_many_failures_end_them_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr("userprofile.retries.time", SimpleNamespace(monotonic=lambda: now))
        retries = Retries({"GetUser": [1.0]})

        def made() -> int:
            each = (retries.pauses("GetUser") for _ in range(2 * BURST))
            return sum(retries.next_pause(pauses, failure(502), took=0, left=30) is not None for pauses in each)

        assert made() == BURST
        assert made() == 0
        now += 2
        assert made() == 100
