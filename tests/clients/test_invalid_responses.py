"""What both Python clients make of invalid responses, which our server never sends."""

import base64
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

import userprofile
from tests.canary import raises
from tests.clients import raw_server as raw
from tests.clients.twins import MakeClient
from userprofile import User, UserProfileError
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

NOT_A_DETAIL = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")

Serve = Callable[[Any], str]


class Invalid:
    """Every method responds with the same."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __getattr__(self, _method: str) -> Callable[..., Any]:
        return self._respond

    def _respond(self, _request: Message, context: grpc.ServicerContext) -> Any:
        if isinstance(self._response, status_pb2.Status):
            context.set_trailing_metadata((("grpc-status-details-bin", self._response.SerializeToString()),))
            context.abort(grpc.StatusCode.DATA_LOSS, self._response.message)
        return self._response


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(response: Any) -> str:
        server = grpc.server(ThreadPoolExecutor(2))
        pb_grpc.add_UserProfileServiceServicer_to_server(Invalid(response), server)  # type: ignore[arg-type]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=0).wait()


@pytest.mark.parametrize(
    "response", [pb.GetUserResponse(), pb.GetUserResponse(user=user_pb.User(username="alice"))], ids=["nobody", "alice"]
)
def test_another_user_or_none_is_an_error(make_client: MakeClient, serve: Serve, response: pb.GetUserResponse) -> None:
    client = make_client(serve(response))
    for call in (client.get_user, client.find_user):
        with raises(UserProfileError, match="can't read the server's response") as caught:
            call("johndoe")
        assert caught.value.code is grpc.StatusCode.UNKNOWN


def result(username: str, **outcome: Any) -> pb.BatchGetUsersResponse.Result:
    return pb.BatchGetUsersResponse.Result(username=username, **outcome)


def found(username: str) -> pb.BatchGetUsersResponse.Result:
    return result(username, user=user_pb.User(username=username))


def test_results_that_are_missing_anothers_or_unknown_are_errors(make_client: MakeClient, serve: Serve) -> None:
    results = [
        result("alice", user=user_pb.User(username="bob")),
        result("bob", user=user_pb.User()),
        result("carol"),
        pb.BatchGetUsersResponse.Result(user=user_pb.User(username="dave")),
    ]
    client = make_client(serve(pb.BatchGetUsersResponse(results=results)))
    for _, outcome in client.iter_users(["alice", "bob", "carol", "dave", "eve"]):
        assert isinstance(outcome, UserProfileError)
        assert outcome.code is grpc.StatusCode.UNKNOWN


def test_results_are_found_by_their_usernames_and_not_by_their_places(make_client: MakeClient, serve: Serve) -> None:
    error = status_pb2.Status(code=15, message="Lost.")
    results = [found("carol"), result("nobody", error=error), found("somebody else"), found("alice")]
    client = make_client(serve(pb.BatchGetUsersResponse(results=results)))
    alice, nobody, carol, again = client.iter_users(["alice", "nobody", "carol", "alice"])
    assert (alice, carol, again) == (("alice", User("alice")), ("carol", User("carol")), ("alice", User("alice")))
    assert nobody[1].code is grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize("code", [0, 999])
def test_an_error_with_a_code_that_is_none_is_unknown(make_client: MakeClient, serve: Serve, code: int) -> None:
    error = status_pb2.Status(code=code, message="all is well", details=[NOT_A_DETAIL])
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result("johndoe", error=error)])))
    ((_, outcome),) = client.iter_users(["johndoe"])
    assert (outcome.code, outcome.message) == (grpc.StatusCode.UNKNOWN, "all is well")


def test_details_that_cannot_be_read_are_passed_over(make_client: MakeClient, serve: Serve) -> None:
    status = status_pb2.Status(code=15, message="Lost.", details=[NOT_A_DETAIL])
    client = make_client(serve(status))
    calls: list[Callable[[], object]] = [lambda: client.get_user("johndoe"), lambda: client.get_users(["johndoe"])]
    for call in calls:
        with raises(UserProfileError, match="Lost") as caught:
            call()
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DATA_LOSS, None)


# From here on by a server that sends whatever frames it is given.

EVIL = "\x1b[31mred\x07\r\nerror: \x9b\u202egpj.\u200b\u2028\x00"
"""Colours, a bell, a new line, text from right to left, what can't be seen."""

OTHER_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


def packed(status: status_pb2.Status, *details: Message) -> tuple[str, bytes]:
    """The trailer with the details of an error."""
    for detail in details:
        status.details.add().Pack(detail)
    return "grpc-status-details-bin", base64.b64encode(status.SerializeToString())


def info(reason: str, domain: str = "userprofile") -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(domain=domain, reason=reason)


def success(message: Message | bytes, *trailers: raw.Header) -> list[bytes]:
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    return [raw.start(), raw.message(payload), raw.trailers(0, *trailers)]


JOHNDOE = pb.GetUserResponse(user=user_pb.User(username="johndoe")).SerializeToString()
INVALID_UTF8 = b"\x0a\x04\x0a\x02\xff\xfe"  # a user, or a result of a batch, with it in the first field

INVALID_RESPONSES: dict[str, list[bytes]] = {
    "OK without a message": [raw.start(), raw.trailers(0)],
    "OK in trailers alone": [raw.failure(0)],
    "not a message": success(b"\xff\xff\xff"),
    "half a message": [raw.start(), raw.message(JOHNDOE, claimed=1000), raw.trailers(0)],
    "a message with an unknown flag": [raw.start(), raw.message(JOHNDOE, flag=7), raw.trailers(0)],
    "a message that claims to be compressed": [raw.start(), raw.message(JOHNDOE, flag=1), raw.trailers(0)],
    "a message that claims 4 GiB": [raw.start(), raw.message(JOHNDOE, claimed=0xFFFFFFFF), raw.trailers(0)],
    "broken gzip": [raw.start(("grpc-encoding", "gzip")), raw.message(JOHNDOE, flag=1), raw.trailers(0)],
    "an unknown encoding": [raw.start(("grpc-encoding", "x")), raw.message(JOHNDOE, flag=1), raw.trailers(0)],
    "a message and then an error": [raw.start(), raw.message(JOHNDOE), raw.trailers(13)],
    "no status": [raw.start(), raw.message(JOHNDOE), raw.headers(("x", "y"), end=True)],
    **{f"status {status!r}": [raw.failure(status)] for status in (*OTHER_CODES, 17, 99, 2**31, -1, "abc", "")},
    "details that aren't base64": [raw.start(), raw.trailers(13, ("grpc-status-details-bin", "!!!"))],
    "details that aren't a status": [raw.start(), raw.trailers(13, ("grpc-status-details-bin", "/w=="))],
    "a pushback that is no number": [raw.failure(14, ("grpc-retry-pushback-ms", "soon"))],
    "metadata in bytes": [raw.start(("x", b"\xff\xfe")), raw.trailers(13, ("y", b"\x80"), ("z-bin", "!"))],
    **{f"HTTP {status}": [raw.html(status)] for status in (200, 301, 400, 401, 403, 404, 429, 500, 502, 503, 999)},
    "HTTP without a status": [raw.headers(("content-type", "text/html"), end=True)],
    "HTTP/1.1": [b"HTTP/1.1 400 Bad Request\r\n\r\n<html>"],
    **{f"RST_STREAM {code}": [raw.reset(code)] for code in (*range(14), 99)},
    "RST_STREAM after a message": [raw.start(), raw.message(JOHNDOE), raw.reset(8)],
    "GOAWAY": [raw.goaway(0)],
    "GOAWAY with a word": [raw.goaway(11, text=EVIL.encode())],
    "GOAWAY within a response": [raw.start(), raw.goaway(2)],
    "a closed connection": [raw.CLOSE],
    "a connection closed within a message": [raw.start(), raw.message(JOHNDOE, claimed=1000), raw.CLOSE],
    "a connection closed after a message": [raw.start(), raw.message(JOHNDOE), raw.CLOSE],
}  # fmt: skip

BARE = [("grpc.service_config", "{}")]
"""No retries: the tests are about the first response."""


def outcomes(client: Any) -> Iterator[Any]:
    """Calls every method. Yields what it returned or raised; raises only what isn't an error of ours."""
    calls: list[Callable[[], object]] = [
        lambda: client.get_user("johndoe"),
        lambda: client.find_user("johndoe"),
        lambda: client.get_users(["johndoe", "alice"]),
        lambda: client.check_health(),
    ]
    for call in calls:
        try:
            yield call()
        except UserProfileError as error:
            yield error
    yield from (outcome for _, outcome in client.iter_users(["johndoe", "alice"]))


@pytest.mark.parametrize("name", INVALID_RESPONSES)
def test_an_invalid_response_is_an_error(make_client: MakeClient, name: str) -> None:
    with raw.RawServer(*INVALID_RESPONSES[name]) as server:
        client = make_client(server.target, channel_options=BARE, retries=0)
        for error in outcomes(client):
            assert isinstance(error, UserProfileError)
            assert str(error).isprintable()
            assert error.code is not grpc.StatusCode.OK
        client.close()


@pytest.mark.parametrize(
    "message", [b"", health_pb2.HealthCheckResponse(status="SERVING"), b"\x08\x63", INVALID_UTF8],
    ids=["empty", "another type", "a number for a user", "invalid UTF-8"],
)  # fmt: skip
def test_a_message_that_is_not_the_methods_is_an_error(make_client: MakeClient, message: Message | bytes) -> None:
    with raw.RawServer(*success(message)) as server:
        client = make_client(server.target, channel_options=BARE)
        for call in (client.get_user, client.find_user, lambda name: client.get_users([name])):
            with raises(UserProfileError, match="can't read the server's response") as caught:
                call("johndoe")
            assert caught.value.code is grpc.StatusCode.UNKNOWN
        ((_, outcome),) = client.iter_users(["johndoe"])
        assert isinstance(outcome, UserProfileError)
        client.close()


@pytest.mark.parametrize("status", [0, 2, 3, 99, -1])
def test_only_a_server_that_says_it_is_serving_is(make_client: MakeClient, status: Any) -> None:
    with raw.RawServer(*success(health_pb2.HealthCheckResponse(status=status))) as server:
        client = make_client(server.target, channel_options=BARE)
        assert client.check_health() is False
        client.close()


def test_what_can_be_read_is_no_error_whatever_comes_with_it(make_client: MakeClient) -> None:
    contradiction = packed(status_pb2.Status(code=5, message="x"), info("USER_NOT_FOUND"))
    with raw.RawServer(*success(JOHNDOE, ("grpc-message", "x"), contradiction)) as server:
        client = make_client(server.target, channel_options=BARE)
        assert client.get_user("johndoe") == User("johndoe")
        client.close()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (13, status_pb2.Status(code=5, message="No.")),
        (5, status_pb2.Status(code=5, message="Another.")),
        (13, status_pb2.Status(code=13, message="No.")),
        (5, status_pb2.Status(code=0, message="No.")),
    ],
    ids=["another code", "another message", "another reason", "OK"],
)
def test_details_that_contradict_their_status_never_say_that_nobody_has_the_name(
    make_client: MakeClient, code: int, status: status_pb2.Status
) -> None:
    details = packed(status, info("USER_NOT_FOUND"))
    with raw.RawServer(raw.start(), raw.trailers(code, ("grpc-message", "No."), details)) as server:
        client = make_client(server.target, channel_options=BARE)
        for error in outcomes(client):
            assert type(error) in (UserProfileError, userprofile.BatchError)
            assert error.code is OTHER_CODES[code]
        client.close()


FOREIGN = ["", "gateway.example", "userprofile.example", "USERPROFILE"]


@pytest.mark.parametrize("domain", FOREIGN)
def test_a_reason_of_another_domain_is_not_the_services(make_client: MakeClient, serve: Serve, domain: str) -> None:
    status = status_pb2.Status(code=5, message="No.")
    details = packed(status, info("USER_NOT_FOUND", domain))
    with raw.RawServer(raw.start(), raw.trailers(5, ("grpc-message", "No."), details)) as server:
        client = make_client(server.target, channel_options=BARE)
        for error in outcomes(client):
            assert type(error) in (UserProfileError, userprofile.BatchError)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, None)
        client.close()
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result("johndoe", error=status)])))
    ((_, outcome),) = client.iter_users(["johndoe"])
    assert type(outcome) is UserProfileError
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.NOT_FOUND, None)
    with raises(userprofile.BatchError):  # it isn't as if nobody had the name
        client.get_users(["johndoe"])


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_reason_of_another_domain_hides_none_of_the_services(
    make_client: MakeClient, serve: Serve, ours_first: bool
) -> None:
    infos = [info("USER_NOT_FOUND"), info("NO_ROUTE", "gateway.example")]
    status = status_pb2.Status(code=5, message="No.")
    packed(status, *(infos if ours_first else reversed(infos)))
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result("johndoe", error=status)])))
    assert client.get_users(["johndoe"]) == {}


EVIL_STATUS = status_pb2.Status(code=3, message=f"No: {EVIL}")
EVIL_DETAILS = [
    info(EVIL),
    error_details_pb2.RequestInfo(request_id=EVIL),
    error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field=EVIL, description=EVIL)]
    ),
]


def test_text_cannot_steer_who_reads_it(make_client: MakeClient) -> None:
    text = ("grpc-message", urllib.parse.quote(EVIL_STATUS.message))
    status = status_pb2.Status()
    status.CopyFrom(EVIL_STATUS)
    with raw.RawServer(raw.start(), raw.trailers(3, text, packed(status, *EVIL_DETAILS))) as server:
        client = make_client(server.target, channel_options=BARE)
        for error in outcomes(client):
            assert_harmless(error)
        client.close()


def test_text_in_a_batch_cannot_either(make_client: MakeClient, serve: Serve) -> None:
    error = status_pb2.Status()
    error.CopyFrom(EVIL_STATUS)
    packed(error, *EVIL_DETAILS)
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result("johndoe", error=error)])))
    ((_, outcome),) = client.iter_users(["johndoe"])
    assert_harmless(outcome)
    with raises(userprofile.BatchError) as caught:
        client.get_users(["johndoe"])
    assert_harmless(caught.value)


def assert_harmless(error: object) -> None:
    assert isinstance(error, UserProfileError)
    for text in (str(error), error.message, error.reason, error.request_id):
        assert text is None or text.isprintable()
    assert r"No: \x1b[31mred\x07\r\n" in error.message
    assert r"\u202egpj." in error.message
    assert len(error.request_id or "") == 32  # the client's own


@pytest.mark.parametrize("message", ["%FF%FE no", b"\xff\xfe no", "%", "%zz", "%0"])
def test_a_message_that_is_not_text_is_shown_as_far_as_it_goes(make_client: MakeClient, message: str | bytes) -> None:
    with raw.RawServer(raw.start(), raw.trailers(13, ("grpc-message", message))) as server:
        client = make_client(server.target, channel_options=BARE)
        for error in outcomes(client):
            assert isinstance(error, UserProfileError)
            assert str(error).isprintable()
        client.close()


def test_a_message_is_kept_to_a_length_that_can_be_read(make_client: MakeClient, serve: Serve) -> None:
    huge = "x" * 10_000_000
    error = status_pb2.Status(code=13, message=huge)
    packed(error, info("X" * 100_000), error_details_pb2.RequestInfo(request_id=huge))
    client = make_client(serve(pb.BatchGetUsersResponse(results=[result("johndoe", error=error)])))
    ((_, outcome),) = client.iter_users(["johndoe"])
    assert isinstance(outcome, UserProfileError)
    assert outcome.reason is None
    assert outcome.message.endswith("… (9999000 more characters)")
    assert len(str(outcome)) < 1200


def test_more_results_than_names_take_nothing_from_those_that_were_requested(
    make_client: MakeClient, serve: Serve
) -> None:
    names = ["alice", "bob", "alice", "carol"]
    results = [found(name) for name in names]
    client = make_client(serve(pb.BatchGetUsersResponse(results=results)))
    assert client.get_users(["alice", "bob"]) == {"alice": User("alice"), "bob": User("bob")}


def test_the_same_result_twice_is_nobody_elses(make_client: MakeClient, serve: Serve) -> None:
    results = [found("alice")] * 2
    client = make_client(serve(pb.BatchGetUsersResponse(results=results)))
    with raises(userprofile.BatchError) as caught:
        client.get_users(["alice", "bob"])
    assert (caught.value.users, list(caught.value.errors)) == ({"alice": User("alice")}, ["bob"])


@pytest.mark.parametrize("frames", [raw.failure(12, ("grpc-message", "unknown service")), raw.html(404)])
def test_a_server_without_our_service_is_named_in_words(make_client: MakeClient, frames: bytes) -> None:
    with raw.RawServer(frames) as server:
        client = make_client(server.target, channel_options=BARE)
        says = (
            rf"the server at {server.target} doesn't have this method: it isn't a userprofile service"
            r"|HTTP 404 \(Not Found\) in place of the service: it has no route to the service"
        )
        for call in (lambda: client.get_user("johndoe"), lambda: client.get_users(["johndoe"]), client.check_health):
            with raises(UserProfileError, match=says) as caught:
                call()
            assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
        client.close()
