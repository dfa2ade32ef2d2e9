"""What every store has to do. A new store joins with a Peer in `peers.py` and a line in the table there.

A store may be full of others' users (`make test-couchbase`): every name here is this run's own, see `own`.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import CANARY, look, raises
from tests.conformance.peers import PEERS, Peer
from tests.support import document
from userprofile_server.documents import MAX_PUBLIC_BYTES, MAX_USERNAME_BYTES
from userprofile_server.errors import (
    CorruptDocumentError,
    ProfileTooLargeError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.models import User
from userprofile_server.stores import Document, Outcome, UserStore

_RUN = f"conformance {secrets.token_hex(8)}"


def own(name: str) -> str:
    """Returns a username that nobody had before this run."""
    return f"{_RUN} {name}"


JOHN, JOHN_IN_CAPITALS = own("johndoe"), own("JohnDoe")
ALICE, BOB, BROKEN, NOBODY, FOX = map(own, ("alice", "bob", "broken", "nobody", "jürgen '\"🦊"))


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    peer = PEERS[request.param](tmp_path)
    yield peer
    peer.close()


@pytest.fixture
def store(peer: Peer) -> Iterator[UserStore]:
    store = peer.open()
    yield store
    store.close()


def key(username: str) -> str:
    return f"userprofile::{username}"  # the tutorial's


def get(store: UserStore, username: str) -> User:
    return store.get(username, timeout=5)


def get_many(store: UserStore, *usernames: str) -> dict[str, Outcome]:
    return store.get_many(usernames, timeout=5)


def put(store: UserStore, *documents: Document) -> int:
    return store.put(documents, timeout=5)


def johndoe(**fields: object) -> Document:
    return Document(JOHN, document(JOHN, **fields))


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
def test_reads_the_public_fields_and_tells_absent_from_empty(
    store: UserStore, fields: dict[str, object], expected: tuple[object, ...]
) -> None:
    put(store, johndoe(**fields))
    assert public(get(store, JOHN)) == (JOHN, *expected)


@pytest.mark.parametrize("letter", ["x", "é", "€", "🦊", '"', "\n"])
def test_the_public_part_has_a_limit_in_bytes_of_utf8(store: UserStore, letter: str) -> None:
    name = letter * ((MAX_PUBLIC_BYTES - len(JOHN) - len("j@example.com")) // len(letter.encode()))
    put(store, johndoe(email="j@example.com", full_name=name))
    assert get(store, JOHN).full_name == name
    put(store, johndoe(email="j@example.com", full_name=name + letter))
    with raises(ProfileTooLargeError):
        get(store, JOHN)
    outcomes = get_many(store, JOHN, NOBODY)
    assert [type(outcomes[username]) for username in (JOHN, NOBODY)] == [ProfileTooLargeError, UserNotFoundError]


def test_other_fields_have_none(store: UserStore) -> None:
    put(store, johndoe(full_name="John", notes="x" * 3_000_000, hashed_password=CANARY + "x" * 3_000_000))
    assert get(store, JOHN).full_name == "John"
    assert public(get_many(store, JOHN)[JOHN]) == (JOHN, None, "John", None)


def test_what_it_returns_has_no_hash(store: UserStore) -> None:
    put(store, johndoe())
    user = get(store, JOHN)
    assert CANARY not in repr(user) + str(user.model_dump()) + repr(vars(user))


def test_says_not_found(store: UserStore) -> None:
    put(store, johndoe())
    with raises(UserNotFoundError):
        get(store, NOBODY)


def test_case_counts(store: UserStore) -> None:
    put(store, johndoe())
    with raises(UserNotFoundError):
        get(store, JOHN_IN_CAPITALS)


@pytest.mark.parametrize("username", ["jürgen 🦊", "a/b:c::d%20'\"\\", "x" * 250, "é" * 250, " "])
def test_any_valid_name_can_be_stored_and_read(store: UserStore, username: str) -> None:
    username = own(username).encode()[:MAX_USERNAME_BYTES].decode(errors="ignore")
    put(store, Document(username, document(username)))
    assert get(store, username).username == username


def test_tolerates_other_fields_and_never_shows_them(store: UserStore) -> None:
    put(store, johndoe(admin_roles=["superuser"], admin_channels={"a": [1, 2.5, None]}, email="j@example.com"))
    assert public(get(store, JOHN)) == (JOHN, "j@example.com", None, None)


def test_reads_a_document_with_a_megabyte_of_other_data(store: UserStore) -> None:
    put(store, johndoe(avatar="x" * 1024 * 1024, email="j@example.com"))
    assert get(store, JOHN).email == "j@example.com"


@pytest.mark.parametrize(
    "content",
    [
        b'{"username": "%s", "hashed_password": "h"}',
        b'{"username": "%s", "hashed_password": "h", "type": null}',
        b'{"username": "%s"}',
    ],
    ids=["no type", "null type", "no hash"],
)
def test_reads_what_other_tools_have_left_out(peer: Peer, store: UserStore, content: bytes) -> None:
    peer.plant(key(JOHN), content % JOHN.encode())
    assert get(store, JOHN).username == JOHN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json, but " + CANARY.encode(),
        document(JOHN)[:-1],
        document(JOHN) + b"}",
        b"\xff\xfe" + document(JOHN),
        document(JOHN, full_name="x").replace(b'"x"', b'"\xff"'),
        document(JOHN).replace(b"{", b'{"email": "\\ud800", ', 1),
        b"[" + document(JOHN) + b"]",
        b"null",
        b'"' + CANARY.encode() + b'"',
        b'{"hashed_password": "' + CANARY.encode() + b'"}',
        document(JOHN, username=None),
        document(JOHN, username=7),
        document(ALICE),
        document(JOHN, type="order"),
        document(JOHN, type=7),
        document(JOHN, email=7),
        document(JOHN, full_name=[CANARY]),
        document(JOHN, disabled="yes"),
        document(JOHN, disabled=1),
    ],
    ids=[
        "empty", "text", "cut off", "trailing brace", "byte order mark", "not utf-8", "lone surrogate", "array",
        "null", "string", "no username", "null username", "numeric username", "another username", "another type",
        "numeric type", "numeric email", "list as name", "text as bool", "number as bool",
    ],
)  # fmt: skip
def test_says_that_a_document_is_corrupt_without_a_word_out_of_it(peer: Peer, store: UserStore, content: bytes) -> None:
    peer.plant(key(JOHN), content)
    with raises(CorruptDocumentError) as caught:
        get(store, JOHN)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_one_corrupt_document_leaves_the_others_readable(peer: Peer, store: UserStore) -> None:
    peer.plant(key(BROKEN), b"{")
    put(store, johndoe())
    with raises(CorruptDocumentError):
        get(store, BROKEN)
    assert get(store, JOHN).username == JOHN


def test_get_many_returns_what_became_of_each_name(peer: Peer, store: UserStore) -> None:
    peer.plant(key(BROKEN), b"{" + CANARY.encode())
    put(store, johndoe(email="j@example.com"), Document(FOX, document(FOX)))
    outcomes = get_many(store, JOHN, NOBODY, BROKEN, FOX, JOHN_IN_CAPITALS)
    assert public(outcomes.pop(JOHN)) == (JOHN, "j@example.com", None, None)
    assert public(outcomes.pop(FOX)) == (FOX, None, None, None)
    errors = {NOBODY: UserNotFoundError, BROKEN: CorruptDocumentError, JOHN_IN_CAPITALS: UserNotFoundError}
    assert {name: type(error) for name, error in outcomes.items()} == errors
    corrupt = outcomes[BROKEN]
    assert isinstance(corrupt, CorruptDocumentError)
    assert (corrupt.__cause__, corrupt.__context__, corrupt.__traceback__) == (None, None, None)
    look("an outcome", corrupt)


def test_get_many_takes_a_hundred_names(store: UserStore) -> None:
    names = [own(f"{n:03} ").ljust(MAX_USERNAME_BYTES, "x") for n in range(100)]
    put(store, *(Document(name, document(name)) for name in names[:99]))
    outcomes = get_many(store, *names)
    assert [outcome.username for outcome in outcomes.values() if isinstance(outcome, User)] == names[:99]
    assert isinstance(outcomes[names[99]], UserNotFoundError)


def test_get_many_of_one_name_nobody_has(store: UserStore) -> None:
    assert isinstance(get_many(store, NOBODY)[NOBODY], UserNotFoundError)


def test_keeps_documents_to_the_byte_under_the_tutorials_key(peer: Peer, store: UserStore) -> None:
    content = b'{ "type":"userprofile","username" : "%s", "hashed_password":"h", "n": 1.10, "x": 1e2 }' % JOHN.encode()
    put(store, Document(JOHN, content))
    assert peer.stored(key(JOHN)) == content


def test_put_says_how_many_it_replaced(store: UserStore) -> None:
    assert put(store, johndoe(), Document(ALICE, document(ALICE))) == 0
    assert put(store, johndoe(email="new"), Document(BOB, document(BOB))) == 1
    assert get(store, JOHN).email == "new"


def test_put_keeps_the_last_of_two_documents_of_one_user(store: UserStore) -> None:
    assert put(store, johndoe(email="first"), johndoe(email="second")) == 1
    assert get(store, JOHN).email == "second"


def test_put_of_nothing_does_nothing(store: UserStore) -> None:
    assert put(store) == 0


def test_put_takes_many_documents_at_once(store: UserStore) -> None:
    names = [own(f"user{n}") for n in range(2500)]
    assert put(store, *(Document(name, document(name)) for name in names)) == 0
    assert [get(store, name).username for name in names] == names


def test_what_one_handle_has_put_another_reads(peer: Peer, store: UserStore) -> None:
    other = peer.open()
    try:
        put(store, johndoe())
        assert get(other, JOHN).username == JOHN
        put(other, johndoe(email="new"))
        assert get(store, JOHN).email == "new"
    finally:
        other.close()


def test_handles_of_several_threads_read_and_write_at_once(peer: Peer, store: UserStore) -> None:
    put(store, johndoe())
    failures: list[BaseException] = []

    def work(number: int) -> None:
        handle = peer.open()
        try:
            for round_ in range(50):
                name = own(f"user{number}-{round_}")
                handle.put([Document(name, document(name))], timeout=10)
                assert get(handle, name).username == name
                assert get(handle, JOHN).username == JOHN
        except BaseException as error:
            failures.append(error)
        finally:
            handle.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_handle_may_be_probed_and_closed_while_another_thread_reads(peer: Peer, store: UserStore) -> None:
    put(store, johndoe())
    for _ in range(20):
        shared = peer.open()
        outcomes: list[str] = []

        def read(shared: UserStore = shared, outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    outcomes.append(get(shared, JOHN).username)
            except StoreUnavailableError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        shared.probe(timeout=5)
        while not outcomes:
            time.sleep(0.001)
        shared.close()
        reader.join()
        assert set(outcomes) == {JOHN}


def test_probe_returns_once_the_store_has_answered(store: UserStore) -> None:
    store.probe(timeout=5)


def test_a_closed_handle_says_that_it_is_unavailable(peer: Peer) -> None:
    store = peer.open()
    store.close()
    store.close()
    with raises(StoreUnavailableError):
        get(store, JOHN)
    with raises(StoreUnavailableError):
        get_many(store, JOHN, ALICE)
    with raises(StoreUnavailableError):
        put(store, johndoe())
    with raises(StoreUnavailableError):
        store.probe(timeout=5)
