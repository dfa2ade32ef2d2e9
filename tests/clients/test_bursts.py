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


@pytest.mark.slow
def test_thousands_of_tasks_at_once_get_a_response_each(address: str) -> None:
    assert burst(address, "johndoe", 2000) == {"a user": 2000}


def burst(address: str, username: str, tasks: int) -> Counter[str]:
    """What becomes of the calls of so many tasks at once."""

    async def call(client: AsyncUserProfileClient) -> str:
        try:
            await client.get_user(username)
        except UserProfileError as error:
            return outcome(error)
        return outcome(None)

    async def calls() -> list[str]:
        async with AsyncUserProfileClient(address, timeout=240, retries=0) as client:
            return await asyncio.gather(*(call(client) for _ in range(tasks)))

    return Counter(asyncio.run(calls()))


@pytest.mark.slow
def test_hundreds_of_threads_get_a_response_each(make_client: MakeClient, address: str) -> None:
    client = make_client(address, timeout=240, retries=0)
    outcomes: list[str] = []
    ready = threading.Barrier(200)

    def call() -> None:
        ready.wait()
        for _ in range(3):
            try:
                client.get_user("johndoe")
                outcomes.append(outcome(None))
            except UserProfileError as error:
                outcomes.append(outcome(error))

    threads = [threading.Thread(target=call) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"a user": 600}


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
def test_what_grpc_refuses_has_a_reason_and_may_be_retried(make_client: MakeClient, refusal: str) -> None:
    with raw.RawServer(REFUSALS[refusal]) as server:
        client = make_client(server.target, channel_options=BARE)
        for call in (client.get_user, client.find_user, lambda name: client.get_users([name])):
            with raises(userprofile.ServiceUnavailableError) as caught:
                call("johndoe")
            assert caught.value.retryable
            assert f"`{caught.value.reason}`" in PAGE.read_text()
        ((_, error),) = client.iter_users(["johndoe"])
        assert (error.retryable, error.reason) == (True, caught.value.reason)
        client.close()


def test_a_response_that_is_too_large_is_not_retried(make_client: MakeClient, address: str) -> None:
    client = make_client(address, channel_options=[("grpc.max_receive_message_length", 10)])
    with raises(UserProfileError, match="larger than max") as caught:
        client.get_user("johndoe")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (caught.value.retryable, caught.value.reason) == (False, None)
