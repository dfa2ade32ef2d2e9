"""What every store has to do. A new store joins with a line in the table of `stores.py`.

A store may be full of others' documents (`make test-couchbase`): every key here is this run's own, see `own`.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.canary import CANARY, raises
from tests.store_contract.stores import EMBEDDED, STORES, StoreUnderTest
from tests.support import WAIT, GetUser, document, eventually, health_stub, user_document
from userprofile_server import stores
from userprofile_server.errors import CorruptDocumentError, StoreError, StoreUnavailableError, UserNotFoundError
from userprofile_server.server import UserProfileServer
from userprofile_server.stores.base import MAX_DOCUMENT_BYTES, MAX_KEY_BYTES, Document, DocumentStore
from userprofile_server.users.documents import document_key, username_of
from userprofile_server.users.lookup import get_user, get_users
from userprofile_server.users.models import User

SERVING = health_pb2.HealthCheckResponse.SERVING
_RUN = f"contract {secrets.token_hex(8)}"


def own(name: str) -> str:
    """Returns a username that nobody had before this run."""
    return f"{_RUN} {name}"


JOHN, ALICE, NOBODY = own("johndoe"), own("alice"), own("nobody")
KEY, OTHER, ABSENT = map(document_key, (JOHN, ALICE, NOBODY))


@pytest.fixture(params=[pytest.param(name, marks=[] if name in EMBEDDED else pytest.mark.slow) for name in STORES])
def tested(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    tested = STORES[request.param](tmp_path)
    yield tested
    tested.close()


@pytest.fixture
def store(tested: StoreUnderTest) -> Iterator[DocumentStore]:
    store = tested.open()
    yield store
    store.close()


def get(store: DocumentStore, key: str) -> bytes | None:
    return store.get(key, timeout=WAIT)


def get_many(store: DocumentStore, *keys: str) -> dict[str, bytes | StoreError | None]:
    return store.get_many(keys, lambda _key, content: content, timeout=WAIT)


def put(store: DocumentStore, *documents: Document) -> int:
    return store.put(documents, timeout=WAIT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json, but " + CANARY.encode(),
        document(JOHN)[:-1],
        b"\xff\xfe" + document(JOHN),
        b"[1, 2]",
        b'{ "type":"userprofile",\r\n"username" : "j\xc3\xbcrgen \xf0\x9f\xa6\x8a", "n": 1.10, "x": 1e2 }',
    ],
    ids=["empty", "text", "cut off", "not utf-8", "array", "spaces, numbers and letters"],
)
def test_hands_on_whatever_stands_under_a_key_to_the_byte(
    tested: StoreUnderTest, store: DocumentStore, content: bytes
) -> None:
    tested.plant(KEY, content)
    assert get(store, KEY) == content
    assert get_many(store, KEY, ABSENT) == {KEY: content, ABSENT: None}


def test_keeps_documents_to_the_byte(tested: StoreUnderTest, store: DocumentStore) -> None:
    content = b'{ "type":"userprofile","username" : "x",\n "hashed_password":"h", "n": 1.10, "f": "\xf0\x9f\xa6\x8a" }'
    put(store, Document(KEY, content))
    assert tested.stored(KEY) == content
    assert get(store, KEY) == content


@pytest.mark.parametrize("name", ["jürgen 🦊", "a/b:c::d%20'\"\\", "x" * MAX_KEY_BYTES, "é" * MAX_KEY_BYTES, " "])
def test_any_key_is_taken_and_is_another_one_than_its_like(store: DocumentStore, name: str) -> None:
    key = document_key(own(name)).encode()[:MAX_KEY_BYTES].decode(errors="ignore")
    put(store, Document(key, b"{}"))
    like = [key.swapcase(), key[:-1], key[:-1] + "y"]
    assert get(store, key) == b"{}"
    assert [get(store, other) for other in like] == [None] * 3
    assert get_many(store, key, *like) == {key: b"{}"} | dict.fromkeys(like)


def test_a_document_of_the_largest_size_is_kept(store: DocumentStore) -> None:
    frame = b'{"x": ""}'
    content = frame[:-2] + b"x" * (MAX_DOCUMENT_BYTES - len(frame)) + frame[-2:]
    put(store, Document(KEY, content))
    assert get(store, KEY) == content


def test_says_that_nothing_stands_under_a_key(store: DocumentStore) -> None:
    put(store, Document(KEY, b"{}"))
    assert get(store, ABSENT) is None
    assert get_many(store, ABSENT) == {ABSENT: None}


def test_get_many_returns_what_was_made_of_each_document(store: DocumentStore) -> None:
    put(store, Document(KEY, b'{"of": "john"}'), Document(OTHER, b'{"of": "alice"}'))
    parsed: list[tuple[str, bytes]] = []

    def parse(key: str, content: bytes) -> int:
        parsed.append((key, content))
        return len(content)

    assert store.get_many([OTHER, ABSENT, KEY], parse, timeout=WAIT) == {OTHER: 15, ABSENT: None, KEY: 14}
    assert sorted(parsed) == sorted([(KEY, b'{"of": "john"}'), (OTHER, b'{"of": "alice"}')])


def test_get_many_takes_a_hundred_keys(store: DocumentStore) -> None:
    keys = [document_key(own(f"{n:03} ")).ljust(MAX_KEY_BYTES, "x") for n in range(100)]
    put(store, *(Document(key, b'{"n": %d}' % n) for n, key in enumerate(keys[:99])))
    expected: dict[str, bytes | None] = {key: b'{"n": %d}' % n for n, key in enumerate(keys[:99])}
    assert get_many(store, *keys) == expected | {keys[99]: None}


def test_put_says_how_many_it_replaced(store: DocumentStore) -> None:
    assert put(store, Document(KEY, b"{}"), Document(OTHER, b"{}")) == 0
    assert put(store, Document(KEY, b'{"new": 1}'), Document(document_key(own("bob")), b"{}")) == 1
    assert get(store, KEY) == b'{"new": 1}'


def test_put_keeps_the_last_of_two_documents_under_one_key(store: DocumentStore) -> None:
    assert put(store, Document(KEY, b'{"n": 1}'), Document(KEY, b'{"n": 2}')) == 1
    assert get(store, KEY) == b'{"n": 2}'


def test_put_of_nothing_does_nothing(store: DocumentStore) -> None:
    assert put(store) == 0


def test_put_takes_many_documents_at_once(store: DocumentStore) -> None:
    keys = [document_key(own(f"user{n}")) for n in range(2500)]
    assert put(store, *(Document(key, key.encode()) for key in keys)) == 0
    assert [get(store, key) for key in keys] == [key.encode() for key in keys]


def test_what_one_connection_has_put_another_reads(tested: StoreUnderTest, store: DocumentStore) -> None:
    other = tested.open()
    try:
        put(store, Document(KEY, b'{"n": 1}'))
        assert get(other, KEY) == b'{"n": 1}'
        put(other, Document(KEY, b'{"n": 2}'))
        assert get(store, KEY) == b'{"n": 2}'
    finally:
        other.close()


def test_connections_of_several_threads_read_and_write_at_once(tested: StoreUnderTest, store: DocumentStore) -> None:
    put(store, Document(KEY, b"{}"))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        connection = tested.open()
        try:
            for round_ in range(50):
                key = document_key(own(f"user{number}-{round_}"))
                connection.put([Document(key, key.encode())], timeout=WAIT)
                assert get(connection, key) == key.encode()
                assert get(connection, KEY) == b"{}"
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_connection_may_be_probed_and_closed_while_another_thread_reads(
    tested: StoreUnderTest, store: DocumentStore
) -> None:
    put(store, Document(KEY, b"{}"))
    for _ in range(20):
        shared = tested.open()
        found: list[bytes | None] = []

        def read(shared: DocumentStore = shared, found: list[bytes | None] = found) -> None:
            try:
                while True:
                    found.append(get(shared, KEY))
            except StoreUnavailableError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        shared.probe(timeout=WAIT)
        while not found:
            time.sleep(0.001)
        shared.close()
        reader.join()
        assert set(found) == {b"{}"}


def test_probe_returns_once_the_store_has_responded(store: DocumentStore) -> None:
    store.probe(timeout=WAIT)


def test_a_closed_connection_says_that_it_is_unavailable(tested: StoreUnderTest) -> None:
    store = tested.open()
    store.close()
    store.close()
    with raises(StoreUnavailableError):
        get(store, KEY)
    with raises(StoreUnavailableError):
        get_many(store, KEY, OTHER)
    with raises(StoreUnavailableError):
        put(store, Document(KEY, b"{}"))
    with raises(StoreUnavailableError):
        store.probe(timeout=WAIT)


def test_users_are_found_in_it_and_never_their_hash(tested: StoreUnderTest, store: DocumentStore) -> None:
    broken = own("broken")
    tested.plant(document_key(broken), b"{" + CANARY.encode())
    put(store, user_document(JOHN, email="j@example.com", admin_roles=["superuser"]), user_document(ALICE))
    assert get_user(store, JOHN, timeout=WAIT).email == "j@example.com"
    found = get_users(store, [ALICE, NOBODY, broken, JOHN], timeout=WAIT)
    expected = [User, UserNotFoundError, CorruptDocumentError, User]
    assert all(isinstance(outcome, kind) for outcome, kind in zip(found, expected, strict=True))
    assert CANARY not in repr(found) + str([vars(outcome) for outcome in found])


def test_the_server_serves_it(tested: StoreUnderTest, store: DocumentStore) -> None:
    put(store, user_document(JOHN, full_name="John Doe"))
    stores.check_url(tested.settings.store.url)
    with UserProfileServer(tested.settings) as address, grpc.insecure_channel(address) as channel:
        get_user = GetUser(channel)
        check = health_stub(channel).Check
        eventually(lambda: check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == SERVING, "SERVING")
        assert get_user(JOHN).full_name == "John Doe"
        assert get_user.error(NOBODY).reason == "USER_NOT_FOUND"
        assert username_of(KEY) == JOHN
