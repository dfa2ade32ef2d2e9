"""Many calls at once: none is given up that its caller hasn't given up, and what gRPC refuses has a reason."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest

import userprofile
from tests.canary import raises
from tests.clients import raw_server as raw
from tests.clients.twins import MakeClient
from userprofile import AsyncUserProfileClient, UserProfileError

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"
BARE = [("grpc.service_config", "{}")]


def outcome(error: UserProfileError | None) -> str:
    return "a user" if error is None else str((error.code, error.reason, error.message))


@pytest.mark.timeout(300)
def test_ten_thousand_tasks_at_once_get_an_answer_each(address: str) -> None:
    async def burst() -> Counter[str]:
        async with AsyncUserProfileClient(address, timeout=240, retries=0) as client:

            async def ask() -> str:
                try:
                    await client.get_user("johndoe")
                except UserProfileError as error:
                    return outcome(error)
                return outcome(None)

            return Counter(await asyncio.gather(*(ask() for _ in range(10_000))))

    assert asyncio.run(burst()) == {"a user": 10_000}


@pytest.mark.timeout(300)
def test_five_hundred_threads_get_an_answer_each(make_client: MakeClient, address: str) -> None:
    client = make_client(address, timeout=240, retries=0)
    outcomes: list[str] = []
    ready = threading.Barrier(500)

    def ask() -> None:
        ready.wait()
        for _ in range(4):
            try:
                client.get_user("johndoe")
                outcomes.append(outcome(None))
            except UserProfileError as error:
                outcomes.append(outcome(error))

    threads = [threading.Thread(target=ask) for _ in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"a user": 2000}


REFUSALS = {
    "CANCELLED": raw.failure(1),
    "CANCELLED in words": raw.failure(1, ("grpc-message", "Cancelled on the server side")),
    "RST_STREAM CANCEL": raw.reset(8),
    "RST_STREAM REFUSED_STREAM": raw.reset(7),
    "RST_STREAM ENHANCE_YOUR_CALM": raw.reset(11),
    "too many calls": raw.failure(8, ("grpc-message", "Concurrent RPC limit exceeded!")),
    "RESOURCE_EXHAUSTED": raw.failure(8),
    "too many pending": raw.failure(14, ("grpc-message", "Too many pending requests for this server.")),
    "GOAWAY ENHANCE_YOUR_CALM": raw.goaway(11, text=b"too_many_pings"),
    "HTTP 429": raw.html(429),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_grpc_refuses_has_a_reason_and_may_be_tried_again(make_client: MakeClient, refusal: str) -> None:
    with raw.RawServer(REFUSALS[refusal]) as server:
        client = make_client(server.target, channel_options=BARE)
        for ask in (client.get_user, client.find_user, lambda name: client.get_users([name])):
            with raises(userprofile.ServiceUnavailableError) as caught:
                ask("johndoe")
            assert caught.value.retryable
            assert f"`{caught.value.reason}`" in PAGE.read_text()
        ((_, error),) = client.iter_users(["johndoe"])
        assert (error.retryable, error.reason) == (True, caught.value.reason)
        client.close()


def test_an_answer_that_is_too_large_is_not_tried_again(make_client: MakeClient, address: str) -> None:
    client = make_client(address, channel_options=[("grpc.max_receive_message_length", 10)])
    with raises(UserProfileError, match="larger than max") as caught:
        client.get_user("johndoe")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (caught.value.retryable, caught.value.reason) == (False, None)
