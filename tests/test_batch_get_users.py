"""BatchGetUsers, as a caller sees it, beyond the table in tests/client_conformance."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from tests.couchbase_node import TestCluster
from tests.store_contract.stores import couchbase_settings
from tests.support import WAIT, CallError, ScriptedStore, bare_call, document
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server import errors
from userprofile_server.server import UserProfileServer
from userprofile_server.users.documents import document_key


def batch(channel: grpc.Channel, *usernames: str, timeout: float = WAIT) -> list[pb.BatchGetUsersResponse.Result]:
    request = pb.BatchGetUsersRequest(usernames=usernames)
    return list(pb_grpc.UserProfileServiceStub(channel).BatchGetUsers(request, timeout=timeout).results)


def reason(result: pb.BatchGetUsersResponse.Result) -> str:
    details = [detail for detail in result.error.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    assert info.domain == "userprofile"
    return str(info.reason)


@pytest.fixture
def channel(address: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        yield channel


def test_one_result_for_each_name_in_the_order_of_the_request(channel: grpc.Channel) -> None:
    results = batch(channel, "nobody", "johndoe", "jürgen 🦊", "nobody", "johndoe")
    assert [result.WhichOneof("outcome") for result in results] == ["error", "user", "user", "error", "user"]
    assert [result.user.full_name for result in results] == ["", "John Doe", "Jürgen", "", "John Doe"]
    assert results[0].error.code == code_pb2.NOT_FOUND
    assert reason(results[0]) == "USER_NOT_FOUND"
    assert results[0].error.message == "There is no such user."


def test_repeated_names_are_read_once(serve: Serve) -> None:  # noqa: F811
    reads: list[float] = []
    results = batch(serve(reads.append).channel, *["johndoe"] * 50, *["nobody"] * 50)
    assert len(results) == 100
    assert len(reads) == 2


@pytest.mark.parametrize("count", [0, 101])
def test_takes_1_to_100_names(channel: grpc.Channel, count: int) -> None:
    assert len(batch(channel, *["johndoe"] * 100)) == 100
    error = CallError.of(lambda: batch(channel, *["johndoe"] * count))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_BATCH_SIZE")
    (violation,) = error.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field == "usernames"
    assert violation.description == f"must hold 1 to 100 names, not {count}"


def test_invalid_names_are_reported_with_their_index(channel: grpc.Channel) -> None:
    results = batch(channel, "johndoe", "", "a\nb")
    assert [reason(result) for result in results[1:]] == ["INVALID_USERNAME"] * 2
    bad_request = error_details_pb2.BadRequest()
    assert results[2].error.details[1].Unpack(bad_request)
    assert bad_request.field_violations[0].field == "usernames[2]"


def test_invalid_names_never_reach_the_store(serve: Serve) -> None:  # noqa: F811
    reads: list[float] = []
    assert [reason(result) for result in batch(serve(reads.append).channel, "", "x" * 234)] == ["INVALID_USERNAME"] * 2
    assert reads == []


class Failing(ScriptedStore):
    """A store that fails for some names, with an error of each one's own, and has a corrupt document."""

    def __init__(self, failures: dict[str, Exception]) -> None:
        super().__init__(lambda _timeout: None)
        self._failures = {document_key(username): error for username, error in failures.items()}

    def get(self, key: str, *, timeout: float) -> bytes | None:
        if key in self._failures:
            raise self._failures[key]
        return b"secret" if key == document_key("corrupt") else super().get(key, timeout=timeout)


@pytest.fixture
def failing(serve: Serve) -> Callable[..., grpc.Channel]:  # noqa: F811
    return lambda failures, **settings: serve(store=Failing(failures), **settings).channel


def test_a_failure_of_one_is_not_that_of_the_others(failing: Callable[..., grpc.Channel]) -> None:
    channel = failing(
        {
            "down": errors.StoreUnavailableError("secret"),
            "slow": errors.StoreTimeoutError("secret"),
            "wrong": errors.StoreMisconfiguredError("secret"),
        },
        store_timeout=1,
    )
    results = batch(channel, "down", "slow", "corrupt", "wrong", "johndoe")
    assert [reason(result) for result in results[:4]] == [
        "STORE_UNAVAILABLE", "STORE_TIMEOUT", "CORRUPT_DOCUMENT", "STORE_MISCONFIGURED",
    ]  # fmt: skip
    assert [result.error.code for result in results[:4]] == [
        code_pb2.UNAVAILABLE, code_pb2.UNAVAILABLE, code_pb2.DATA_LOSS, code_pb2.INTERNAL,
    ]  # fmt: skip
    assert results[4].user.username == "johndoe"
    assert "secret" not in str(results)


def test_where_it_was_the_callers_time_that_ran_out_each_result_says_so(
    failing: Callable[..., grpc.Channel],
) -> None:
    channel = failing({"slow": errors.StoreTimeoutError()}, store_timeout=60)
    (slow, _) = batch(channel, "slow", "johndoe", timeout=5)
    assert (slow.error.code, reason(slow)) == (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    error = CallError.of(lambda: batch(channel, "slow", timeout=5))
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


def test_the_call_fails_if_the_store_responds_for_no_name(failing: Callable[..., grpc.Channel]) -> None:
    channel = failing({"down": errors.StoreUnavailableError(), "slow": errors.StoreTimeoutError()}, store_timeout=1)
    error = CallError.of(lambda: batch(channel, "down", "slow"))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    error = CallError.of(lambda: batch(channel, "slow"))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_TIMEOUT")
    assert error.metadata["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.timing(only=True)  # a tenth of a second is kept for the way to the caller
def test_results_of_other_nodes_arrive_before_the_deadline_that_a_frozen_one_uses_up() -> None:
    names = [f"user{number}" for number in range(100)]
    with TestCluster(nodes=3) as cluster:
        for name in names:
            cluster.put(f"userprofile::{name}", document(name))
        settings = couchbase_settings(f"couchbase://{cluster.hosts}/default", store_timeout=30)
        with UserProfileServer(settings) as address:
            with grpc.insecure_channel(address) as channel:
                assert {result.WhichOneof("outcome") for result in batch(channel, *names)} == {"user"}
                cluster.fault(2, frozen=True)
                for name, result in zip(names, batch(channel, *names, timeout=1.5), strict=True):
                    frozen = cluster.owner_of(f"userprofile::{name}") == 2
                    assert result.WhichOneof("outcome") == ("error" if frozen else "user")
                cluster.fault(2)


def test_a_request_that_is_not_the_message_is_the_callers_mistake(channel: grpc.Channel) -> None:
    call = bare_call(channel, "/userprofile.v1.UserProfileService/BatchGetUsers")
    error = CallError.of(lambda: call(b"\x0a\x05ab", timeout=WAIT))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
