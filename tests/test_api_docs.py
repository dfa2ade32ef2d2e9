"""docs/api.md leaves nothing out. That it says what the protos' comments say is checked by `make lint-protos`."""

import re

import pytest

from docs.update_api import PAGE
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1.error_reason_pb2 import ErrorReason
from userprofile_server.errors import DeadlineExceededError, MalformedRequestError, StoreError
from userprofile_server.rpc.error_table import ERROR_STATUSES, UNEXPECTED

MESSAGES = {
    message.full_name.removeprefix("userprofile.v1."): message
    for file in (pb.DESCRIPTOR, user_pb.DESCRIPTOR)
    for outer in file.message_types_by_name.values()
    for message in (outer, *outer.nested_types)
}


METHODS = list(pb.DESCRIPTOR.services_by_name["UserProfileService"].methods_by_name)
KNOWN = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118, not a dict


def section(name: str) -> str:
    """What stands under this heading."""
    _, found, rest = PAGE.read_text().partition(f"# {name}\n")
    assert found, "run: make proto-docs"
    return rest.partition("\n#")[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_described(method: str) -> None:
    assert f"`/userprofile.v1.UserProfileService/{method}` takes" in section(method)


def reasons_under(method: str) -> set[str]:
    return {name for name in re.findall(r"\b[A-Z_]{3,}\b", section(method)) if name in KNOWN}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_reasons_that_any_call_may_fail_with(method: str) -> None:
    any_call = (StoreError, DeadlineExceededError, MalformedRequestError)
    of_any_call = {status.reason for error, status in ERROR_STATUSES.items() if issubclass(error, any_call)}
    assert reasons_under(method) >= of_any_call | {UNEXPECTED.reason}


def test_every_reason_of_the_server_stands_under_a_method() -> None:
    given = {status.reason for status in [*ERROR_STATUSES.values(), UNEXPECTED]}
    assert set().union(*map(reasons_under, METHODS)) == given


def test_every_reason_has_its_row() -> None:
    rows = [line.split(" | ") for line in section("ErrorReason").splitlines() if re.match(r"\| \d", line)]
    assert [(row[1].strip("`"), int(row[0].strip("| "))) for row in rows] == ErrorReason.items()
    assert all(row[-1].strip(" |") for row in rows), "each has a comment"
    assert "A server never sends them." in section("ErrorReason")


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_is_described(message: str) -> None:
    rows = [line.split(" | ") for line in section(message).splitlines() if line.startswith("| ")][2:]
    fields = MESSAGES[message].fields
    assert [row[1] for row in rows] == [f"`{field.name}`" for field in fields]
    assert all(row[-1].strip(" |") for row in rows), "each has a comment"


def test_what_is_optional_has_presence_and_what_is_not_has_none() -> None:
    rows = [line.split(" | ") for line in section("User").splitlines() if line.startswith("| ")][2:]
    presence = {row[1].strip("`"): row[3] for row in rows}
    assert presence.pop("username") == "implicit"
    assert set(presence.values()) == {"explicit"}
