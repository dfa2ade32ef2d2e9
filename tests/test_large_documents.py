"""Large documents: what they take of the server's memory, and what a batch of large profiles takes of its callers'."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.canary import raises
from tests.couchbase_node import TestCluster
from tests.store_contract.stores import couchbase_settings
from tests.support import COUCHBASE_CREDENTIALS, GetUser, ServerProcess, document, eventually, open_url
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.errors import StoreError
from userprofile_server.server import UserProfileServer
from userprofile_server.stores import open_store
from userprofile_server.stores.base import Document
from userprofile_server.stores.couchbase.store import CouchbaseStore
from userprofile_server.users.documents import MAX_PUBLIC_BYTES, document_key
from userprofile_server.users.lookup import get_users
from userprofile_server.users.models import User

MIB = 1024 * 1024
NAMES = [f"user{number}" for number in range(100)]


class Store:
    """A store of either kind that a server process can reach, and `put` into it."""

    def __init__(self, url: str, put: Callable[[str, bytes], object], **env: str) -> None:
        self.url = url
        self.put = put
        self.env = env


@pytest.fixture(params=["sqlite", "couchbase"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'users.db'}"
        opened = open_url(url)
        yield Store(url, lambda name, content: opened.put([Document(document_key(name), content)], timeout=60))
        opened.close()
        return
    with TestCluster() as cluster:
        url = f"couchbase://{cluster.hosts}/default"
        yield Store(url, lambda name, content: cluster.put(f"userprofile::{name}", content), **COUCHBASE_CREDENTIALS)


def peak_memory(pid: int) -> int:
    """The most that a process has had in memory, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def batch(channel: grpc.Channel) -> list[pb.BatchGetUsersResponse.Result]:
    request = pb.BatchGetUsersRequest(usernames=NAMES)
    return list(pb_grpc.UserProfileServiceStub(channel).BatchGetUsers(request, timeout=120).results)


def test_memory_does_not_grow_with_what_a_batch_reads(store: Store) -> None:
    """Two batches at once, of 200 MiB each; a server that held them all would take more than 400."""
    large = document("user", notes="x" * 2 * MIB)
    for name in NAMES:
        store.put(name, large.replace(b'"user"', f'"{name}"'.encode()))
    with ServerProcess(store.url, "--workers", "2", "--store-timeout", "120", **store.env) as server:
        before = peak_memory(server.pid)
        with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(2) as callers:
            for results in callers.map(lambda _: batch(channel), range(2)):
                assert [result.user.username for result in results] == NAMES
        assert peak_memory(server.pid) - before < 180 * MIB


def test_a_batch_of_the_largest_profiles_fits_into_what_every_client_takes(store: Store) -> None:
    for name in NAMES:
        store.put(name, document(name, full_name="x" * (MAX_PUBLIC_BYTES - len(name))))
    with ServerProcess(store.url, "--store-timeout", "60", **store.env) as server:
        with grpc.insecure_channel(server.address) as channel:  # with gRPC's own limit
            assert all(result.user.full_name for result in batch(channel))


@pytest.mark.parametrize("share", [False, True])
def test_a_document_that_takes_its_time_to_arrive_is_waited_for_and_keeps_nobody_else_waiting(share: bool) -> None:
    patient = 60.0
    with TestCluster() as cluster:
        cluster.put("userprofile::large", document("large", notes="x" * 8 * MIB))
        cluster.put("userprofile::small", document("small"))
        url = f"couchbase://{cluster.hosts}/default"
        settings = couchbase_settings(url, store_timeout=patient, workers=1, shared_connection=share)
        with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
            get_user = GetUser(channel)
            assert get_user("small").username == "small"
            before = cluster.connections
            cluster.fault(bytes_per_second=2 * MIB)  # four seconds
            large = get_user.future("large", timeout=patient)
            while not large.done():
                assert get_user("small", timeout=patient).username == "small"
            assert large.result().user.username == "large"
            cluster.fault()
            eventually(lambda: cluster.connections <= before, "no more connections than before")


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the rounds in which a Couchbase store reads."""
    sizes: list[int] = []
    get_multi = CouchbaseStore._get_multi

    def counting(self: Any, keys: Any, timeout: float) -> Any:
        sizes.append(len(keys))
        return get_multi(self, keys, timeout)

    monkeypatch.setattr(CouchbaseStore, "_get_multi", counting)
    return sizes


def test_a_batch_of_small_documents_is_one_round_as_soon_as_they_are_known_to_be_small(rounds: list[int]) -> None:
    with TestCluster() as cluster:
        for name in NAMES:
            cluster.put(f"userprofile::{name}", document(name))
        opened = open_store(couchbase_settings(f"couchbase://{cluster.hosts}/default"))
        for _ in range(3):
            assert [user.username for user in get_users(opened, NAMES, timeout=20) if isinstance(user, User)] == NAMES
        assert rounds == [4, 8, 16, 32, 40, 80, 20, 100]

        large, small = NAMES[:10], NAMES[10:]
        for name in large:
            cluster.put(f"userprofile::{name}", document(name, notes="x" * 6 * MIB))
        del rounds[:]
        for _ in range(2):
            assert all(isinstance(user, User) for user in get_users(opened, large, timeout=60))
        assert rounds == [10, 2, 2, 2, 2, 2]  # once it is known, no more than 16 MiB at once
        for _ in range(3):
            get_users(opened, small, timeout=20)
        assert rounds[-1] == len(small)
        opened.close()


@pytest.mark.slow
def test_if_no_round_gets_a_response_the_batch_fails_as_a_whole() -> None:
    with TestCluster() as cluster:
        opened = open_store(couchbase_settings(f"couchbase://{cluster.hosts}/default"))
        cluster.stop(0)
        with raises(StoreError):
            get_users(opened, NAMES, timeout=1)
        opened.close()
