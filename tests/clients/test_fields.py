"""`fields=…` of both Python clients, beyond the table of test_conformance.py."""

from typing import Any

import pytest

from tests.canary import raises
from tests.clients.twins import MakeClient
from userprofile import User, UserProfileError, reasons
from userprofile.testing import FakeUserProfileServer


def requested(server: FakeUserProfileServer) -> list[set[str] | None]:
    return [None if request.fields is None else set(request.fields) for request in server.requests]


@pytest.fixture
def server(fake_userprofile: FakeUserProfileServer) -> FakeUserProfileServer:
    fake_userprofile.add(*(User(f"user{number}", f"{number}@example.com", "Name", True) for number in range(250)))
    return fake_userprofile


@pytest.fixture
def fields_client(make_client: MakeClient, server: FakeUserProfileServer) -> Any:
    return make_client(server.target)


def test_what_is_not_requested_is_not_sent(fields_client: Any, server: FakeUserProfileServer) -> None:
    assert fields_client.get_user("user1") == User("user1", "1@example.com", "Name", True)
    assert fields_client.get_user("user1", fields=["email"]) == User("user1", "1@example.com")
    assert fields_client.find_user("user1", fields=("full_name",)) == User("user1", full_name="Name")
    assert requested(server) == [
        None, {"username", "email"}, {"username", "full_name"},
    ]  # fmt: skip


def test_no_fields_are_the_username_and_not_all(fields_client: Any, server: FakeUserProfileServer) -> None:
    """By AIP-157 an empty mask requests all fields; an empty list of fields must not."""
    assert fields_client.get_user("user1", fields=[]) == User("user1")
    assert fields_client.get_users(["user1"], fields=iter(())) == {"user1": User("user1")}
    assert requested(server) == [{"username"}] * 2


def test_a_field_may_be_named_any_number_of_times(fields_client: Any, server: FakeUserProfileServer) -> None:
    assert fields_client.get_user("user1", fields=["disabled"] * 100_000) == User("user1", disabled=True)
    assert requested(server) == [{"username", "disabled"}]


def test_every_hundred_of_many_names_has_the_fields(fields_client: Any, server: FakeUserProfileServer) -> None:
    names = [f"user{number}" for number in range(250)]
    found = fields_client.get_users(names, fields=(field for field in ["disabled"]))
    assert found == {name: User(name, disabled=True) for name in names}
    assert list(fields_client.iter_users(names, fields={"disabled"})) == list(found.items())
    assert requested(server) == [{"username", "disabled"}] * 6


def test_the_server_judges_their_names(fields_client: Any) -> None:
    with raises(UserProfileError, match="read_mask.paths must ") as caught:
        fields_client.get_user("user1", fields=["emial"])
    assert (caught.value.reason, caught.value.retryable) == (reasons.INVALID_READ_MASK, False)
    ((_, outcome),) = fields_client.iter_users(["user1"], fields=["emial"])
    assert outcome.reason == reasons.INVALID_READ_MASK


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ("email", TypeError, "expected an iterable of field names, got a single string"),
        (b"email", TypeError, "expected an iterable of field names, got a single string"),
        ([None], TypeError, "the name of a field is a string, not NoneType"),
        ([1], TypeError, "the name of a field is a string, not int"),
        (1, TypeError, None),
        (["\ud800"], ValueError, None),
        (["x" * 5000], ValueError, "too long"),
        ([f"field{number}" for number in range(1000)], ValueError, "too long"),
    ],
)
def test_what_cannot_be_a_list_of_names_is_refused_before_any_call(
    fields_client: Any, server: FakeUserProfileServer, fields: Any, error: type[Exception], says: str | None
) -> None:
    for call in (
        lambda: fields_client.get_user("user1", fields=fields),
        lambda: fields_client.find_user("user1", fields=fields),
        lambda: fields_client.get_users(["user1"], fields=fields),
        lambda: list(fields_client.iter_users(["user1"], fields=fields)),
    ):
        with raises(error, match=says):
            call()
    assert server.requests == []
