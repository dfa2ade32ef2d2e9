"""Interceptors of the caller's, in gRPC's own form: what they see and change, and what becomes of what they raise."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

import userprofile
from tests.canary import raises
from tests.clients import raw_server as raw
from tests.clients.twins import MakeClient, making
from tests.support import eventually
from userprofile import User, UserProfileError
from userprofile.testing import FakeUserProfileServer

TOKEN = "a-token-of-these-tests"
GET_USER, BATCH, CHECK = (
    "/userprofile.v1.UserProfileService/GetUser",
    "/userprofile.v1.UserProfileService/BatchGetUsers",
    "/grpc.health.v1.Health/Check",
)

Change = Callable[[Any], Any]
"""Returns the details with which a call goes on."""


class Interceptor(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, change: Change) -> None:
        self._change = change

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._change(client_call_details), request)


class AsyncInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, change: Change) -> None:
        self._change = change

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._change(client_call_details), request)


Intercept = Callable[[Change], Any]


@pytest.fixture
def intercept(request: pytest.FixtureRequest) -> Intercept:
    """Makes interceptors for the clients of `make_client`."""
    return Interceptor if request.node.callspec.params["make_client"] == "sync" else AsyncInterceptor


class Seen(list[Any]):
    """The details of the calls that were seen."""

    def __call__(self, details: Any) -> Any:
        self.append(details)
        return details

    @property
    def methods(self) -> list[str]:
        return [each.method if isinstance(each.method, str) else each.method.decode() for each in self]


@pytest.fixture
def server(fake_userprofile: FakeUserProfileServer) -> FakeUserProfileServer:
    fake_userprofile.add(User("johndoe"))
    return fake_userprofile


def test_see_each_call_with_its_request_id_and_without_its_token(
    make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer
) -> None:
    seen = Seen()
    client = make_client(server.target, interceptors=[intercept(seen)], token=TOKEN, metadata=[("x-tenant", "acme")])
    assert client.get_user("johndoe", request_id="mine", timeout=20) == User("johndoe")
    assert client.get_users(f"user{number}" for number in range(101)) == {}
    assert client.check_health()
    assert seen.methods == [GET_USER, BATCH, BATCH, CHECK]
    assert {"x-tenant": "acme", "x-request-id": "mine"}.items() <= dict([*seen[0].metadata]).items()
    assert seen[0].timeout == 20
    assert TOKEN not in repr([(details, list(details.metadata)) for details in seen])
    assert [request.metadata["authorization"] for request in server.requests] == [f"Bearer {TOKEN}"] * 3


def test_change_what_is_sent_and_first_come_first(
    make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer
) -> None:
    def adding(value: str) -> Any:
        def add(details: Any) -> Any:
            order = dict([*details.metadata]).get("x-order", "")
            others = [pair for pair in details.metadata if pair[0] != "x-order"]
            kind = grpc.aio.Metadata if isinstance(details, grpc.aio.ClientCallDetails) else lambda *pairs: pairs
            return details._replace(metadata=kind(*others, ("x-order", order + value)), timeout=1000)

        return intercept(add)

    client = make_client(server.target, interceptors=(adding(value) for value in "abc"), token=TOKEN)
    client.get_user("johndoe")
    client.get_users(["johndoe"])
    for request in server.requests:
        assert (request.metadata["x-order"], request.metadata["authorization"]) == ("abc", f"Bearer {TOKEN}")
        assert request.time_remaining == pytest.approx(1000, abs=20)


def test_see_a_call_once_whatever_its_retries(
    make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer
) -> None:
    seen = Seen()
    server.fail("STORE_UNAVAILABLE")
    client = make_client(server.target, interceptors=[intercept(seen)], retries=2, token=TOKEN)
    with raises(userprofile.ServiceUnavailableError) as caught:
        client.get_user("johndoe")
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert seen.methods == [GET_USER]
    assert [request.metadata["authorization"] for request in server.requests] == [f"Bearer {TOKEN}"] * 3


def test_see_the_clients_own_retries_with_the_same_request_id(make_client: MakeClient, intercept: Intercept) -> None:
    seen = Seen()
    with raw.RawServer(*raw.html_in_parts(503)) as gateway:
        client = make_client(gateway.target, interceptors=[intercept(seen)], retries=2, token=TOKEN)
        with raises(userprofile.ServiceUnavailableError, match="HTTP 503"):
            client.get_user("johndoe")
        client.close()
    assert set(seen.methods) == {GET_USER}
    assert len({dict([*details.metadata])["x-request-id"] for details in seen}) == 1


def test_do_not_see_how_the_client_finds_out_why_no_server_is_reached(
    make_client: MakeClient, intercept: Intercept, unused_target: str
) -> None:
    seen = Seen()
    client = make_client(unused_target, interceptors=[intercept(seen)])
    with raises(userprofile.ServiceUnavailableError, match=r"could be reached within 0.2 s: .*refused"):
        client.get_user("johndoe", timeout=0.2)
    assert seen.methods == [GET_USER]


class WithoutStatusError(grpc.RpcError):
    """As an interceptor may raise it."""


def calls_of(client: Any) -> list[Callable[[], object]]:
    return [
        lambda: client.get_user("johndoe"),
        lambda: client.find_user("johndoe"),
        lambda: client.get_users(["johndoe"]),
        lambda: list(client.iter_users(["johndoe"])),
        lambda: client.check_health(),
    ]


class TestThatRaise:
    @pytest.fixture(params=[ValueError("mine"), KeyError("mine"), WithoutStatusError("mine")], ids=repr)
    def error(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    # An RpcError that isn't a call, below another interceptor, gRPC takes for the outcome of the call.
    @pytest.mark.parametrize(
        ("error", "others"),
        [(ValueError("mine"), 0), (ValueError("mine"), 1), (KeyError("mine"), 1), (WithoutStatusError("mine"), 0)],
    )
    def test_are_heard_as_they_are_and_leave_nothing(
        self, make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer, error: Any, others: int
    ) -> None:
        broken = True

        def change(details: Any) -> Any:
            if broken:
                raise error
            return details

        interceptors = [*(intercept(Seen()) for _ in range(others)), intercept(change)]
        client = make_client(server.target, interceptors=interceptors)
        for call in calls_of(client):
            with raises(type(error), match="mine") as caught:
                call()
            assert caught.value is error
        assert server.requests == []
        broken = False
        for call in calls_of(client):
            call()

    def test_are_heard_through_others_that_raise_what_they_see(self, server: FakeUserProfileServer, error: Any) -> None:
        class Raising(grpc.UnaryUnaryClientInterceptor):
            def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                call = continuation(client_call_details, request)
                if isinstance(call, grpc.RpcError):
                    raise call
                return call

        def change(_details: Any) -> Any:
            raise error

        with userprofile.UserProfileClient(server.target, interceptors=[Raising(), Interceptor(change)]) as client:
            for call in calls_of(client):
                with raises(type(error), match="mine") as caught:
                    call()
                assert caught.value is error

    def test_a_status_raise_the_error_for_it(
        self, make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer
    ) -> None:
        def change(_details: Any) -> Any:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "circuit open"
            )

        client = make_client(server.target, interceptors=[intercept(change)])
        get_user, find_user, get_users, _, check = calls_of(client)
        for call in (get_user, find_user, get_users, check):
            with raises(userprofile.ServiceUnavailableError, match="circuit open"):
                call()
        ((_, error),) = list(client.iter_users(["johndoe"]))
        assert type(error) is userprofile.ServiceUnavailableError


class TestTheEnd:
    def test_of_the_client_ends_calls_that_passed_them(
        self, make_client: MakeClient, intercept: Intercept, server: FakeUserProfileServer
    ) -> None:
        server.delay = 30
        client = make_client(server.target, interceptors=[intercept(Seen())], timeout=60)
        with ThreadPoolExecutor(2) as callers:
            calls = [callers.submit(client.get_user, "johndoe"), callers.submit(client.get_users, ["johndoe"])]
            eventually(lambda: len(server.requests) == 2, "the calls have arrived")
            client.close()
            for call in calls:
                error = call.exception(timeout=20)
                assert isinstance(error, UserProfileError)
                assert error.code is grpc.StatusCode.CANCELLED
        with raises(RuntimeError, match="closed"):
            client.get_user("johndoe")

    @pytest.mark.parametrize("whose", ["the client's", "gRPC's"])
    def test_comes_between_a_call_and_its_interceptor(
        self, server: FakeUserProfileServer, monkeypatch: pytest.MonkeyPatch, whose: str
    ) -> None:
        """In threads alone. In gRPC itself it would be the end of the process."""
        closing = Interceptor(lambda details: client.close() or details)  # type: ignore[func-returns-value]
        if whose == "gRPC's":  # as OpenTelemetry's instrumentor does it
            plain = grpc.insecure_channel
            monkeypatch.setattr(grpc, "insecure_channel", lambda *a: grpc.intercept_channel(plain(*a), closing))
        arguments: dict[str, list[Any]] = {"get_user": ["johndoe"], "get_users": [["johndoe"]], "check_health": []}
        for call in arguments:
            client = userprofile.UserProfileClient(
                server.target, interceptors=[closing] if whose == "the client's" else []
            )
            with raises(RuntimeError, match="this client is closed"):
                getattr(client, call)(*arguments[call])

    @pytest.mark.parametrize("end", ["close", "cancel"])
    def test_interrupts_one_that_waits(self, server: FakeUserProfileServer, end: str) -> None:
        waiting = asyncio.Event()

        class Waiting(grpc.aio.UnaryUnaryClientInterceptor):
            async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                waiting.set()
                await asyncio.sleep(3600)

        async def main() -> BaseException | None:
            client = userprofile.AsyncUserProfileClient(server.target, interceptors=[Waiting()])
            task = asyncio.create_task(client.get_user("johndoe"))
            await waiting.wait()
            if end == "cancel":
                task.cancel()
            else:
                await client.close()
            await asyncio.wait([task])
            await client.close()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return None if task.cancelled() else task.exception()

        error = asyncio.run(main())
        if end == "cancel":
            assert error is None
        else:
            assert isinstance(error, UserProfileError)
            assert "The client was closed" in str(error)


def test_one_may_respond_itself(server: FakeUserProfileServer) -> None:
    responses: dict[Any, Any] = {}

    class Cache(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            key = client_call_details.method, request.SerializeToString()
            if key not in responses:
                responses[key] = await (await continuation(client_call_details, request))
            return responses[key]

    with making("async") as make:
        client = make(server.target, interceptors=[Cache()])
        for _ in range(3):
            assert client.get_user("johndoe") == User("johndoe")
            assert client.get_users(["johndoe"]).keys() == {"johndoe"}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("interceptors", "says"),
    [
        (5, "interceptors must be a sequence, not int"),
        (Interceptor(Seen()), "interceptors must be a sequence, not Interceptor"),
        (AsyncInterceptor(Seen()), "interceptors must be a sequence, not AsyncInterceptor"),
        ([None], r"UnaryUnaryClientInterceptor, not a builtins.NoneType"),
        ([Interceptor], "not the class tests.clients.test_interceptors.Interceptor"),
        (["grpc"], "not a builtins.str"),
    ],
)
def test_that_are_none_are_refused(make_client: MakeClient, interceptors: Any, says: str) -> None:
    with raises(TypeError, match=says):
        make_client(interceptors=interceptors)


def test_those_of_the_other_client_are_refused(make_client: MakeClient, intercept: Intercept) -> None:
    other = AsyncInterceptor if intercept is Interceptor else Interceptor
    needed = "grpc.aio.UnaryUnary" if intercept is AsyncInterceptor else "grpc.UnaryUnary"
    with raises(TypeError, match=f"must be a {re.escape(needed)}ClientInterceptor, not a tests"):
        make_client(interceptors=[other(Seen())])


def test_those_of_streams_alone_are_left_out(make_client: MakeClient, server: FakeUserProfileServer) -> None:
    """Libraries return all kinds at once."""

    class OfStreams(grpc.UnaryStreamClientInterceptor):
        def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise AssertionError

    class AsyncOfStreams(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            raise AssertionError

    kind = OfStreams if isinstance(make_client(server.target), userprofile.UserProfileClient) else AsyncOfStreams
    assert make_client(server.target, interceptors=[kind()]).get_user("johndoe") == User("johndoe")


def test_without_any_no_channel_is_wrapped(server: FakeUserProfileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "insecure_channel", grpc.insecure_channel.__wrapped__)  # type: ignore[attr-defined]
    with userprofile.UserProfileClient(server.target) as client:
        assert client._channels.for_stub() is client._channels.current[0]
