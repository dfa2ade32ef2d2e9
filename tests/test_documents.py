"""From a document's bytes to the public `User`, and no further: with any store, so here with the smallest one."""

import pytest

from tests.canary import CANARY, look, raises
from tests.store_contract.dictionary_store import DictionaryStore
from tests.support import document, settings_for, user_document
from userprofile_server.errors import CorruptDocumentError, ProfileTooLargeError, UserNotFoundError
from userprofile_server.stores.base import MAX_KEY_BYTES, Document
from userprofile_server.users.documents import MAX_PUBLIC_BYTES, MAX_USERNAME_BYTES, document_key, username_of
from userprofile_server.users.lookup import Outcome, get_user, get_users
from userprofile_server.users.models import User


@pytest.fixture
def store(request: pytest.FixtureRequest) -> DictionaryStore:
    return DictionaryStore(settings_for(f"dictionary://{request.node.nodeid}"), True)


def get(store: DictionaryStore, username: str = "johndoe") -> User:
    return get_user(store, username, timeout=5)


def put(store: DictionaryStore, *documents: Document) -> None:
    store.put(documents, timeout=5)


def public(user: Outcome) -> tuple[object, ...]:
    assert isinstance(user, User)
    return user.username, user.email, user.full_name, user.disabled


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, None, None)),
        ({"email": None, "full_name": None, "disabled": None}, (None, None, None)),
        ({"email": "", "full_name": "", "disabled": False}, ("", "", False)),
        ({"email": "j@example.com", "full_name": "John", "disabled": True}, ("j@example.com", "John", True)),
    ],
    ids=["absent", "null", "empty", "set"],
)
def test_reads_the_public_fields_and_distinguishes_unset_from_empty(
    store: DictionaryStore, fields: dict[str, object], expected: tuple[object, ...]
) -> None:
    put(store, user_document("johndoe", **fields))
    assert public(get(store)) == ("johndoe", *expected)


@pytest.mark.parametrize("letter", ["x", "é", "€", "🦊", '"', "\n"])
def test_the_public_part_has_a_limit_in_bytes_of_utf8(store: DictionaryStore, letter: str) -> None:
    name = letter * ((MAX_PUBLIC_BYTES - len("johndoe") - len("j@example.com")) // len(letter.encode()))
    put(store, user_document("johndoe", email="j@example.com", full_name=name))
    assert get(store).full_name == name
    put(store, user_document("johndoe", email="j@example.com", full_name=name + letter))
    with raises(ProfileTooLargeError):
        get(store)
    found = get_users(store, ["johndoe", "nobody"], timeout=5)
    assert [type(outcome) for outcome in found] == [ProfileTooLargeError, UserNotFoundError]


def test_other_fields_have_none(store: DictionaryStore) -> None:
    large = {"notes": "x" * 3_000_000, "hashed_password": CANARY + "x" * 3_000_000}
    put(store, user_document("johndoe", full_name="John", **large))
    assert get(store).full_name == "John"
    assert public(get_users(store, ["johndoe"], timeout=5)[0]) == ("johndoe", None, "John", None)


def test_the_hash_is_no_part_of_what_is_read(store: DictionaryStore) -> None:
    put(store, user_document("johndoe"))
    user = get(store)
    assert CANARY not in repr(user) + str(user.model_dump()) + repr(vars(user))


def test_says_not_found_and_case_counts(store: DictionaryStore) -> None:
    put(store, user_document("johndoe"))
    for username in ("nobody", "JohnDoe", "johndoe "):
        with raises(UserNotFoundError):
            get(store, username)


@pytest.mark.parametrize("username", ["jürgen 🦊", "a/b:c::d%20'\"\\", "x" * MAX_USERNAME_BYTES, " "])
def test_a_users_document_is_under_the_tutorials_key(store: DictionaryStore, username: str) -> None:
    key = document_key(username)
    assert key == f"userprofile::{username}"
    assert username_of(key) == username
    assert len(key.encode()) <= MAX_KEY_BYTES
    put(store, Document(key, document(username)))
    assert get(store, username).username == username


def test_tolerates_other_fields_and_never_shows_them(store: DictionaryStore) -> None:
    roles = {"admin_roles": ["superuser"], "admin_channels": {"a": [1, 2.5, None]}}
    put(store, user_document("johndoe", email="j@example.com", **roles))
    assert public(get(store)) == ("johndoe", "j@example.com", None, None)


@pytest.mark.parametrize(
    "content",
    [
        b'{"username": "johndoe", "hashed_password": "h"}',
        b'{"username": "johndoe", "hashed_password": "h", "type": null}',
        b'{"username": "johndoe"}',
    ],
    ids=["no type", "null type", "no hash"],
)
def test_reads_what_other_tools_have_left_out(store: DictionaryStore, content: bytes) -> None:
    put(store, Document(document_key("johndoe"), content))
    assert get(store).username == "johndoe"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json, but " + CANARY.encode(),
        document("johndoe")[:-1],
        document("johndoe") + b"}",
        b"\xff\xfe" + document("johndoe"),
        document("johndoe", full_name="x").replace(b'"x"', b'"\xff"'),
        document("johndoe").replace(b"{", b'{"email": "\\ud800", ', 1),
        b"[" + document("johndoe") + b"]",
        b"null",
        b'"' + CANARY.encode() + b'"',
        b'{"hashed_password": "' + CANARY.encode() + b'"}',
        document("johndoe", username=None),
        document("johndoe", username=7),
        document("alice"),
        document("johndoe", type="order"),
        document("johndoe", type=7),
        document("johndoe", email=7),
        document("johndoe", full_name=[CANARY]),
        document("johndoe", disabled="yes"),
        document("johndoe", disabled=1),
    ],
    ids=[
        "empty", "text", "cut off", "trailing brace", "byte order mark", "not utf-8", "lone surrogate", "array",
        "null", "string", "no username", "null username", "numeric username", "another username", "another type",
        "numeric type", "numeric email", "list as name", "text as bool", "number as bool",
    ],
)  # fmt: skip
def test_says_that_a_document_is_corrupt_without_a_word_out_of_it(store: DictionaryStore, content: bytes) -> None:
    put(store, Document(document_key("johndoe"), content), user_document("alice"))
    with raises(CorruptDocumentError) as caught:
        get(store)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    corrupt, alice = get_users(store, ["johndoe", "alice"], timeout=5)
    assert isinstance(corrupt, CorruptDocumentError)
    assert (corrupt.__cause__, corrupt.__context__, corrupt.__traceback__) == (None, None, None)
    look("an outcome", corrupt)
    assert public(alice) == ("alice", None, None, None)


def test_each_name_of_several_gets_an_outcome_in_order(store: DictionaryStore) -> None:
    put(store, user_document("johndoe", email="j@example.com"), user_document("jürgen 🦊"))
    found = get_users(store, ["nobody", "jürgen 🦊", "johndoe", "nobody"], timeout=5)
    expected = [UserNotFoundError, User, User, UserNotFoundError]
    assert all(isinstance(outcome, kind) for outcome, kind in zip(found, expected, strict=True))
    assert public(found[1]) == ("jürgen 🦊", None, None, None)
    assert public(found[2]) == ("johndoe", "j@example.com", None, None)
