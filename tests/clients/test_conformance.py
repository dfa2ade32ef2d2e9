"""The table that the clients of all languages have in common, seen by both Python clients and by the fake server's."""

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.canary import raises
from tests.client_conformance import FAILURES, TABLE, USERS, cases, serve
from tests.clients.twins import MakeClient
from userprofile import BatchError, User, UserProfileError
from userprofile.testing import FakeUserProfileServer

pytestmark = [pytest.mark.xdist_group("client conformance"), pytest.mark.slow]  # one server for all of them


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    found = USERS.keys() - FAILURES.keys()
    server = FakeUserProfileServer(User(username, **USERS[username]) for username in found)
    for username, reason in FAILURES.items():
        server.fail(reason, username=username, after=0.5 if username == "slow" else 0.0)
    with server:
        yield server.target


@pytest.fixture(params=[pytest.param("real", marks=pytest.mark.xdist_group("a real server")), "fake"])
def target(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def names(case: dict[str, Any]) -> str:
    return str(case["case"])


def fields_of(user: User) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(user).items() if value is not None}


def assert_error(error: UserProfileError, expected: dict[str, Any]) -> None:
    assert error.code.name == expected["code"]
    if "reason" in expected:
        assert (error.reason, error.retryable) == (expected["reason"], expected.get("retryable", False))
    if "field" in expected:
        field = re.sub(r"s\[\d+\]$", "", expected["field"])
        assert f"{field} must " in error.message
    assert error.request_id or error.reason == "INVALID_USERNAME"  # no call is made for some of these


def test_the_table_has_only_methods_that_are_tested_here() -> None:
    assert json.loads(TABLE.read_text()).keys() == {"get_user", "batch_get_users"}


@pytest.mark.parametrize("case", cases("get_user"), ids=names)
def test_get_user(make_client: MakeClient, target: str, case: dict[str, Any]) -> None:
    client = make_client(target, timeout=case.get("timeout", 10), retries=0)
    if "user" in case:
        user = client.get_user(case["username"], fields=case.get("fields"))
        assert fields_of(user) == case["user"]
        assert client.find_user(case["username"], fields=case.get("fields")) == user
    else:
        with raises(UserProfileError) as caught:
            client.get_user(case["username"], fields=case.get("fields"))
        assert_error(caught.value, case["error"])


@pytest.mark.parametrize("case", cases("batch_get_users"), ids=names)
def test_several_users(make_client: MakeClient, target: str, case: dict[str, Any]) -> None:
    client = make_client(target, timeout=case.get("timeout", 10), retries=0)
    usernames = case["usernames"]
    if not usernames:  # the client makes no call
        assert client.get_users(usernames) == {}
        assert list(client.iter_users(usernames)) == []
        return
    outcomes = list(client.iter_users(usernames, fields=case.get("fields")))
    expected = case.get("results") or [{"username": username, "error": case["error"]} for username in usernames]
    for (username, outcome), result in zip(outcomes, expected, strict=True):
        assert username == result["username"]
        if "user" in result:
            assert fields_of(outcome) == result["user"]
        else:
            assert_error(outcome, result["error"])
    if "error" in case:
        with raises(UserProfileError) as caught:
            client.get_users(usernames, fields=case.get("fields"))
        assert not isinstance(caught.value, BatchError)
        assert_error(caught.value, case["error"])


def test_get_users_reports_failures_and_keeps_what_was_found(make_client: MakeClient, target: str) -> None:
    client = make_client(target, retries=0)
    with raises(BatchError) as caught:
        client.get_users(["johndoe", "nobody", "corrupt", "slow", "", "absent", "johndoe"])
    assert caught.value.users.keys() == {"johndoe", "absent"}
    assert [error.reason for error in caught.value.errors.values()] == [
        "CORRUPT_DOCUMENT", "STORE_TIMEOUT", "INVALID_USERNAME",
    ]  # fmt: skip
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_DOCUMENT")


def test_get_users_asks_for_the_fields(make_client: MakeClient, target: str) -> None:
    found = make_client(target).get_users(["johndoe", "nobody"], fields=iter(["disabled"]))
    assert found == {"johndoe": User("johndoe", disabled=False)}


def test_find_user_is_for_names_that_nobody_has_and_for_nothing_else(make_client: MakeClient, target: str) -> None:
    client = make_client(target, retries=0)
    assert client.find_user("nobody") is None
    for username in ("", "corrupt", "down"):
        with raises(UserProfileError):
            client.find_user(username)
