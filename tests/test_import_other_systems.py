"""Users as Auth0, Firebase, Keycloak and SCIM export them, and flags of theirs that nobody may overlook."""

import json
from typing import Any

import pytest

from tests.canary import CANARY
from tests.support import run
from tests.test_import_forms import Imported
from userprofile_server.users.models import User

HASH = {"hashed_password": CANARY}


def imported(*rows: dict[str, Any], **options: Any) -> Imported:
    return Imported("\n".join(map(json.dumps, rows)).encode(), **options)


@pytest.mark.parametrize(
    ("system", "export", "expected"),
    [
        (
            "auth0",
            {"user_id": "auth0|1", "username": "johndoe", "name": "John Doe", "email": "j@x", "blocked": True},
            {"username": "johndoe", "full_name": "John Doe", "email": "j@x", "disabled": True, "user_id": "auth0|1"},
        ),
        ("auth0", {"username": "johndoe", "email": "j@x"}, {"username": "johndoe", "email": "j@x"}),
        (
            "firebase",
            {"users": [{"localId": "u1", "displayName": "John Doe", "email": "j@x", "disabled": True, "salt": CANARY}]},
            {"username": "u1", "full_name": "John Doe", "email": "j@x", "disabled": True, "salt": CANARY},
        ),
        (
            "keycloak",
            {"realm": "r", "users": [{"username": "johndoe", "enabled": False, "firstName": "John", "email": "j@x"}]},
            {"username": "johndoe", "disabled": True, "firstName": "John", "email": "j@x"},
        ),
        ("keycloak", {"username": "johndoe", "enabled": True}, {"username": "johndoe", "disabled": False}),
        (
            "scim",
            {"totalResults": 1, "Resources": [
                {"userName": "johndoe", "active": False, "name": {"formatted": "John Doe"}, "displayName": "Johnny",
                 "emails": [{"value": "a@x"}, {"value": "j@x", "primary": True}]}]},
            {"username": "johndoe", "disabled": True, "full_name": "John Doe", "email": "j@x",
             "name": {"formatted": "John Doe"}, "displayName": "Johnny",
             "emails": [{"value": "a@x"}, {"value": "j@x", "primary": True}]},
        ),
        (
            "scim",
            {"userName": "johndoe", "displayName": "J. Doe", "emails": [{"value": "a@x"}, {"value": "b@x"}]},
            {"username": "johndoe", "full_name": "J. Doe", "displayName": "J. Doe",
             "emails": [{"value": "a@x"}, {"value": "b@x"}]},
        ),
    ],
)  # fmt: skip
def test_what_is_certain_is_taken_and_all_else_kept(
    system: str, export: dict[str, Any], expected: dict[str, Any]
) -> None:
    done = imported(export, format_=system)
    assert done.reports == []
    assert done.users == [{**expected, "type": "userprofile"}]


def test_another_systems_hash_is_kept_and_never_silently() -> None:
    done = imported({"users": [{"localId": "a", "passwordHash": CANARY, "salt": CANARY}]}, format_="firebase")
    assert done.users[0]["passwordHash"] == CANARY
    assert "hashed_password" not in done.users[0]
    assert "WARNING: what looks like another system's password hash is kept unchanged" in done.summary
    assert "1 without a password hash" in done.summary


@pytest.mark.parametrize("field", ["email", "user_id"])
def test_the_username_is_taken_from_the_field_that_is_named(field: str) -> None:
    row = {"user_id": "auth0|1", "email": "j@x", "username": "johndoe", **HASH}
    done = imported(row, format_="auth0", username_field=field)
    assert done.users[0]["username"] == row[field]
    assert done.users[0]["email"] == "j@x"


TEXT_FIELDS = [name for name, field in User.model_fields.items() if field.annotation == str | None]


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_a_public_field_stays_when_the_username_is_taken_from_it(field: str) -> None:
    done = imported({field: "a text", **HASH}, username_field=field)
    assert (done.users[0]["username"], done.users[0][field]) == ("a text", "a text")


def test_a_row_without_a_username_says_how_to_name_the_field() -> None:
    done = imported({"user_id": "auth0|1", "email": "j@x"}, format_="auth0")
    assert done.reports == ["line 1: no username; --username-field names another field"]


@pytest.mark.parametrize(
    ("row", "system"),
    [({"userName": "a"}, "scim"), ({"localId": "a"}, "firebase"), ({"user_id": "a", "email": "b"}, "auth0")],
)
def test_a_row_of_another_system_says_which_format_it_may_have(row: dict[str, Any], system: str) -> None:
    assert f"--format {system}" in imported(row).reports[0]


FLAGS: list[tuple[str, object]] = [
    ("active", False),
    ("enabled", False),
    ("blocked", True),
    ("is_active", False),
    ("isActive", "false"),
    ("Enabled", 0),
    ("accountEnabled", False),
    ("Disabled", True),
    ("is_disabled", "yes"),
    ("suspended", True),
    ("locked", 1),
    ("banned", True),
    ("deactivated_at", "2020-01-01"),
    ("blocked", {"since": 7}),
    ("status", "SUSPENDED"),
    ("status", "Inactive"),
    ("state", "LOCKED_OUT"),
]


@pytest.mark.parametrize(("flag", "value"), FLAGS)
def test_a_disabled_account_of_another_system_is_a_warning(flag: str, value: object) -> None:
    done = imported({"username": "a", flag: value, **HASH}, {"username": "b", **HASH})
    assert "disabled" not in done.users[0]
    assert (
        f"WARNING: 1 row disabled in another system's form, by {flag} (1 row): `disabled` was NOT set" in done.summary
    )


@pytest.mark.parametrize(("flag", "value"), FLAGS)
def test_flags_that_contradict_each_other_are_an_error(flag: str, value: object) -> None:
    done = imported({"username": "a", "disabled": False, flag: value, **HASH}, {"username": "b", **HASH})
    assert [user["username"] for user in done.users] == ["b"]
    assert done.reports == [f"line 1: {flag} and disabled contradict each other"]


@pytest.mark.parametrize(
    "fields",
    [{"disabled": True, "active": True}, {"disabled": True, "enabled": "true"}],
)
def test_an_enabled_account_that_is_disabled_is_one_too(fields: dict[str, Any]) -> None:
    assert imported({"username": "a", **fields, **HASH}).users == []


@pytest.mark.parametrize(
    "fields",
    [
        {"active": True},
        {"blocked": False, "disabled": True},
        {"enabled": False, "disabled": True},
        {"blocked": None},
        {"status": "ACTIVE"},
        {"state": 7},
        {"locked": "false"},
        {"active_since": "2020", "actives": False},
    ],
)
def test_what_says_nothing_of_a_disabled_account_is_no_warning(fields: dict[str, Any]) -> None:
    done = imported({"username": "a", **fields, **HASH})
    assert len(done.users) == 1
    assert "WARNING" not in done.summary


@pytest.mark.parametrize(
    ("row", "system"),
    [
        ({"username": "a", "blocked": True, "disabled": False}, "auth0"),
        ({"username": "a", "enabled": True, "disabled": True}, "keycloak"),
        ({"userName": "a", "username": "b"}, "scim"),
        ({"username": "a", "enabled": "false"}, "keycloak"),
        ({"userName": "a", "active": "False"}, "scim"),
    ],
)
def test_in_a_format_contradictions_and_strange_flags_are_errors(row: dict[str, Any], system: str) -> None:
    done = imported(row, format_=system)
    assert done.users == []
    assert len(done.reports) == 1


def test_the_command_takes_a_format() -> None:
    rows = b'{"user_id": "auth0|1", "email": "j@x", "blocked": true}'
    done = run(
        "userprofile-server", "import", "-", "--dry-run", "--format", "auth0", "--username-field", "email", stdin=rows
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 user could be imported, 0 rows rejected\n")
