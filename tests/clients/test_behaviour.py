"""The table that the clients of all languages have in common, seen by both Python clients and by the fake server's."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.behaviour import cases, serve
from tests.canary import raises
from tests.clients.twins import MakeClient
from userprofile import BatchError, User, UserProfileError
from userprofile.testing import FakeUserProfileServer

pytestmark = pytest.mark.xdist_group("behaviour")  # one server for all of them


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    server = FakeUserProfileServer(
        [
            User("johndoe", "johndoe@example.com", "John Doe", disabled=False),
            User("absent"),
            User("null"),
            User("empty", "", "", disabled=False),
            User("true", disabled=True),
            User("jürgen 🦊", full_name="Jürgen 🦊"),
        ]
    )
    server.fail("CORRUPT_DOCUMENT", username="corrupt")
    server.fail("PROFILE_TOO_LARGE", username="large")
    server.fail("STORE_UNAVAILABLE", username="down")
    server.fail("STORE_TIMEOUT", username="slow", after=0.5)
    with server:
        yield server.target


@pytest.fixture(params=["real", "fake"])
def target(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def names(case: dict[str, Any]) -> str:
    return str(case["case"])


def fields_of(user: User) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(user).items() if value is not None}


def assert_error(error: UserProfileError, expected: dict[str, str]) -> None:
    assert error.code.name == expected["code"]
    if "reason" in expected:
        assert error.reason == expected["reason"]
    if "field" in expected:
        assert "username must " in error.message
    assert error.request_id


@pytest.mark.parametrize("case", cases("get_user"), ids=names)
def test_get_user(make_client: MakeClient, target: str, case: dict[str, Any]) -> None:
    client = make_client(target, timeout=case.get("timeout", 10), retries=0)
    if "user" in case:
        assert fields_of(client.get_user(case["username"])) == case["user"]
        assert client.find_user(case["username"]) == client.get_user(case["username"])
    else:
        with raises(UserProfileError) as caught:
            client.get_user(case["username"])
        assert_error(caught.value, case["error"])


@pytest.mark.parametrize("case", cases("batch_get_users"), ids=names)
def test_several_users(make_client: MakeClient, target: str, case: dict[str, Any]) -> None:
    client = make_client(target, timeout=case.get("timeout", 10), retries=0)
    asked = case["usernames"]
    if not asked:  # the client has no need to ask
        assert client.get_users(asked) == {}
        assert list(client.iter_users(asked)) == []
        return
    outcomes = list(client.iter_users(asked))
    assert [username for username, _ in outcomes] == asked
    expected = case.get("results") or [{"error": case["error"]}] * len(asked)
    for (_, outcome), result in zip(outcomes, expected, strict=True):
        if "user" in result:
            assert fields_of(outcome) == result["user"]
        else:
            assert_error(outcome, result["error"])
    if "error" in case:
        with raises(UserProfileError) as caught:
            client.get_users(asked)
        assert not isinstance(caught.value, BatchError)
        assert_error(caught.value, case["error"])


def test_get_users_tells_of_failures_and_keeps_what_was_found(make_client: MakeClient, target: str) -> None:
    client = make_client(target, retries=0)
    with raises(BatchError) as caught:
        client.get_users(["johndoe", "nobody", "corrupt", "slow", "", "absent", "johndoe"])
    assert caught.value.users.keys() == {"johndoe", "absent"}
    assert [error.reason for error in caught.value.errors.values()] == [
        "CORRUPT_DOCUMENT", "STORE_TIMEOUT", "INVALID_USERNAME",
    ]  # fmt: skip
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_DOCUMENT")


def test_find_user_is_for_names_that_nobody_has_and_for_nothing_else(make_client: MakeClient, target: str) -> None:
    client = make_client(target, retries=0)
    assert client.find_user("nobody") is None
    for username in ("", "corrupt", "down"):
        with raises(UserProfileError):
            client.find_user(username)
