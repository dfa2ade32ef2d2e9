"""docs/api.md leaves nothing out. That it says what the protos' comments say is checked by `make lint-protos`."""

import pytest

from docs.update_api import PAGE
from userprofile.v1 import user_profile_pb2 as pb
from userprofile_server.rpc.error_table import ANSWERS, UNEXPECTED


def section(name: str) -> str:
    """What stands under this heading."""
    _, found, rest = PAGE.read_text().partition(f"# {name}\n")
    assert found, "run: make proto-docs"
    return rest.partition("\n#")[0]


@pytest.mark.parametrize("method", pb.DESCRIPTOR.services_by_name["UserProfileService"].methods_by_name)
def test_every_method_is_described(method: str) -> None:
    assert f"`/userprofile.v1.UserProfileService/{method}` takes" in section(method)


@pytest.mark.parametrize("method", pb.DESCRIPTOR.services_by_name["UserProfileService"].methods_by_name)
def test_every_reason_is_described(method: str) -> None:
    """Those of the README, under each method: of the whole call or of one name."""
    reasons = {answer.reason for answer in [*ANSWERS.values(), UNEXPECTED]}
    if method != "BatchGetUsers":
        reasons.discard("INVALID_BATCH_SIZE")
    assert not {reason for reason in reasons if reason not in section(method)}


@pytest.mark.parametrize("message", pb.DESCRIPTOR.message_types_by_name)
def test_every_field_is_described(message: str) -> None:
    rows = [line.split(" | ") for line in section(message).splitlines() if line.startswith("| ")][2:]
    fields = pb.DESCRIPTOR.message_types_by_name[message].fields
    assert [row[1] for row in rows] == [f"`{field.name}`" for field in fields]
    assert all(row[-1].strip(" |") for row in rows), "each has a comment"


def test_what_is_optional_has_presence_and_what_is_not_has_none() -> None:
    rows = [line.split(" | ") for line in section("User").splitlines() if line.startswith("| ")][2:]
    assert {row[1].strip("`"): row[3] for row in rows} == {
        "username": "implicit",
        "email": "explicit",
        "full_name": "explicit",
        "disabled": "explicit",
    }
