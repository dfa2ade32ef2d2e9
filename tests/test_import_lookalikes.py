"""Usernames that differ and look alike: each is imported, as a user of its own, with a warning."""

import json
import unicodedata

import pytest

from tests.canary import CANARY
from tests.test_import_forms import Imported
from userprofile_server.importing import lookalikes


def imported(*usernames: str) -> Imported:
    return Imported("\n".join(json.dumps({"username": name, "hashed_password": CANARY}) for name in usernames).encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jürgen", unicodedata.normalize("NFD", "jürgen")),
        ("johndoe", "JohnDoe"),
        ("johndoe", "johndoe "),
        ("johndoe", " johndoe"),
        ("john doe", "john  doe"),
        ("john doe", "john\u00a0doe"),
        ("johndoe", "john\u200bdoe"),
        ("johndoe", "\ufeffjohndoe"),
        ("johndoe", "john\u00addoe"),
        ("johndoe", "johndoe\ufe0f"),
        ("johndoe", "\uff4aohndoe"),
        ("straße", "STRASSE"),
        ("fine", "\ufb01ne"),
        ("Ångström", "\u212bngström"),
    ],
)
def test_names_that_look_alike_are_reported(one: str, other: str) -> None:
    done = imported(one, "else", other)
    assert [user["username"] for user in done.users] == [one, "else", other]
    assert done.reports == ["warning: line 3: the username looks like the one on line 1, but differs"]
    assert "WARNING: 1 username of this file can't be distinguished from an earlier one by eye" in done.summary
    assert done.job.rejected == 0


def test_the_same_name_again_and_names_that_look_different_are_not() -> None:
    done = imported("johndoe", "johndoe", "alice", "jurgen", "jürgen", "john_doe")
    assert done.reports == []
    assert "WARNING" not in done.summary


def test_many_are_counted() -> None:
    done = imported(*(name for number in range(50) for name in (f"user{number}", f"USER{number}")))
    assert len(done.reports) == 5
    assert "WARNING: 50 usernames" in done.summary


def test_what_is_remembered_is_bounded_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookalikes, "_MAX_NAMES", 3)
    done = imported("a", "b", "c", "d", "A", "D")
    assert done.reports == ["warning: line 5: the username looks like the one on line 1, but differs"]
    assert "only the first 500000 usernames were checked" in done.summary
