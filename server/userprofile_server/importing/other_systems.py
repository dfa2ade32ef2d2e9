"""Users from other systems: fields that correspond to ours, and fields that look like an account flag."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from userprofile_server.importing.errors import RowError, printable
from userprofile_server.users.models import User


def _scim_name(row: dict[str, Any]) -> Any:
    name = row.get("name")
    formatted = name.get("formatted") if isinstance(name, dict) else None
    return formatted if formatted is not None else row.get("displayName")


def _scim_email(row: dict[str, Any]) -> Any:
    """Returns the primary address, or the only one."""
    emails = row.get("emails")
    if not isinstance(emails, list) or not all(isinstance(email, dict) for email in emails):
        return None
    chosen = emails if len(emails) == 1 else [email for email in emails if email.get("primary") is True]
    return chosen[0].get("value") if len(chosen) == 1 else None


class Format(NamedTuple):
    """The field names of another system."""

    username: str
    full_name: str | Callable[[dict[str, Any]], Any] | None
    email: str | Callable[[dict[str, Any]], Any]
    flag: str
    """The field that says whether the account is enabled or disabled."""
    disabled_if: bool
    """The flag's value for a disabled account."""


FORMATS: dict[str, Format] = {
    "auth0": Format("username", "name", "email", "blocked", disabled_if=True),
    "firebase": Format("localId", "displayName", "email", "disabled", disabled_if=True),
    "keycloak": Format("username", None, "email", "enabled", disabled_if=False),
    "scim": Format("userName", _scim_name, _scim_email, "active", disabled_if=False),
}

_SIGNS = {"userName": "scim", "localId": "firebase", "user_id": "auth0"}

# Names of flags, in lower case and without separators: those that are true for an enabled account, and those that are
# true for a disabled one.
_ENABLED_IF_TRUE = frozenset({"active", "enabled", "accountenabled", "accountactive", "useractive", "userenabled"})
_DISABLED_IF_TRUE = frozenset(
    {
        "disabled",
        "blocked",
        "suspended",
        "banned",
        "locked",
        "lockedout",
        "deactivated",
        "inactive",
        "frozen",
        "deleted",
    }
    | {"accountdisabled", "accountlocked", "accountblocked", "accountsuspended", "userdisabled", "userblocked"}
    | {"deleted", "loginblocked", "logindisabled", "nsaccountlock"}
)
_STATUS = frozenset({"status", "state", "accountstatus", "userstatus", "accountstate", "userstate"})
_DISABLED_STATUS = _DISABLED_IF_TRUE | {"deprovisioned", "terminated", "archived", "revoked"}
_FALSE = frozenset({"false", "no", "n", "0", "off"})
_TRUE = frozenset({"true", "yes", "y", "1", "on"})


def translate(row: dict[str, Any], form: Format | None, username_field: str | None) -> dict[str, Any]:
    """Returns the row with the fields of `form` renamed to ours. All other fields stay.

    `username_field`, if given, is the field with the username.

    Raises:
        RowError: the row also has our field with another value, or the flag isn't true or false.
    """
    translated = dict(row)
    if form is not None:
        flag = row.get(form.flag)
        if flag is not None:
            if not isinstance(flag, bool):
                raise RowError(f"{form.flag}: must be true or false")
            _set(translated, "disabled", flag is form.disabled_if, form.flag)
        for ours, theirs in (("full_name", form.full_name), ("email", form.email)):
            if isinstance(theirs, str):
                _set(translated, ours, row.get(theirs), theirs)
            elif theirs is not None:
                _set(translated, ours, theirs(row), ours)
    source = username_field or (form.username if form is not None else "username")
    if row.get(source) is None:
        hint = "; --username-field names another field" if username_field is None else ""
        raise RowError(f"no {source} to use as username" if source != "username" else "no username", hint)
    if username_field is not None:
        translated.pop("username", None)
    _set(translated, "username", row[source], source)
    return translated


def _set(row: dict[str, Any], ours: str, value: Any, theirs: str) -> None:
    if value is None:
        return
    if theirs != ours and row.get(ours) is not None and row[ours] != value:
        raise RowError(f"{theirs} and {ours} contradict each other")
    if theirs not in User.model_fields:
        row.pop(theirs, None)
    row[ours] = value


def hint_at_format(row: dict[str, Any]) -> str:
    """Returns a hint to use `--format`, for a row without a username."""
    return next((f"; if this is a user of {name}: --format {name}" for sign, name in _SIGNS.items() if sign in row), "")


def check_flags(row: dict[str, Any], other_fields: list[str]) -> list[str]:
    """Returns the other fields that mark the account as disabled, if the row has no `disabled`.

    Raises:
        RowError: the row's `disabled` contradicts one of them.
    """
    disabled = row.get("disabled")
    found = []
    for name in other_fields:
        if (means := _meaning_of(name)) is None:
            continue
        flag = means(row[name])
        if flag is not None and isinstance(disabled, bool) and flag is not disabled:
            raise RowError(f"{printable(name)} and disabled contradict each other")
        if flag and disabled is None:
            found.append(name)
    return found


@functools.lru_cache(maxsize=1024)
def _meaning_of(name: str) -> Callable[[Any], bool | None] | None:
    """Returns a function that tells from a flag's value whether the account is disabled; None if it isn't a flag."""
    letters = re.sub("[^a-z]", "", name.casefold())
    letters = letters.removeprefix("is")
    if letters in _ENABLED_IF_TRUE:
        return _not_enabled
    if letters in _DISABLED_IF_TRUE or letters.removesuffix("at") in _DISABLED_IF_TRUE:
        return _is_disabled
    return _has_disabled_status if letters in _STATUS else None


def _not_enabled(value: Any) -> bool | None:
    return None if (flag := _as_bool(value)) is None else not flag


def _is_disabled(value: Any) -> bool | None:
    # False doesn't mean enabled: the account may be disabled for another reason. Other values are times of blocking.
    flag = _as_bool(value)
    return True if flag or (flag is None and value) else None


def _has_disabled_status(value: Any) -> bool | None:
    status = re.sub("[^a-z]", "", value.casefold()) if isinstance(value, str) else ""
    return True if status in _DISABLED_STATUS else None


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, str):
        word = value.strip().casefold()
        return True if word in _TRUE else False if word in _FALSE else None
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None
