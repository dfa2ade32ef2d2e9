"""The store for several machines: documents in a Couchbase bucket, through the official SDK."""

import contextlib
import functools
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from couchbase.auth import Authenticator, CertificateAuthenticator, PasswordAuthenticator
from couchbase.cluster import Cluster
from couchbase.collection import Collection
from couchbase.constants import FMT_JSON
from couchbase.diagnostics import ServiceType
from couchbase.exceptions import (
    CouchbaseException,
    DocumentExistsException,
    DocumentNotFoundException,
    UnAmbiguousTimeoutException,
)
from couchbase.options import (
    ClusterOptions,
    ClusterTimeoutOptions,
    GetMultiOptions,
    InsertMultiOptions,
    UpsertMultiOptions,
    WaitUntilReadyOptions,
)
from couchbase.transcoder import Transcoder

from userprofile.environment import clean, problem_of_text, read_secret
from userprofile_server.errors import (
    DocumentsRefusedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from userprofile_server.stores.base import MAX_DOCUMENT_BYTES, Document, DocumentStore
from userprofile_server.stores.couchbase.certificates import check_certificates
from userprofile_server.stores.couchbase.errors import refusal, translate, translate_opening, translate_write
from userprofile_server.stores.couchbase.rounds import Rounds, rounds_of
from userprofile_server.stores.couchbase.settings import CouchbaseSettings
from userprofile_server.stores.couchbase.url import CouchbaseURL
from userprofile_server.stores.settings import StorageSettings

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PROBE_KEYS = 16  # with one node of two lost, all of them are on it once in 65,536 times
_NODES_SECONDS = 0.5
_TOO_LARGE = f"the document is larger than {MAX_DOCUMENT_BYTES} bytes"
_SRV_SECONDS = 0.5
_MIN_TIMEOUT = 0.001  # the SDK takes 0 for "the default"


class _Bytes(Transcoder):  # type: ignore[misc]
    """Passes documents on unchanged and ignores their flags, which differ between SDKs and tools."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        return value, FMT_JSON

    def decode_value(self, value: bytes, flags: int) -> bytes:  # noqa: ARG002, the SDK's signature
        return value


def open_couchbase(settings: StorageSettings) -> DocumentStore:
    """Connects to the cluster of a `CouchbaseURL` and opens the bucket.

    Raises:
        StoreMisconfiguredError: the URL, the credentials, the bucket or a file is wrong.
        StoreUnavailableError: the cluster doesn't respond within the bootstrap timeout.
    """
    if clean(os.environ.get("PYCBC_LOG_LEVEL", "")).lower() == "trace":
        raise _mistake("PYCBC_LOG_LEVEL=trace makes the SDK print whole documents, hashes included; unset it")
    url = CouchbaseURL.parse(settings.store.url)
    cluster = None
    try:
        cluster = _connect(url, settings)
        bucket = cluster.bucket(url.bucket)
        collection = bucket.scope(url.scope).collection(url.collection)
        return CouchbaseStore(
            cluster, collection, default_timeout=settings.store.timeout, rounds=rounds_of(settings.store.url)
        )
    except BaseException as error:
        if cluster is not None:
            cluster.close()
        if isinstance(error, CouchbaseException):
            raise (translate(error) if cluster is None else translate_opening(error, url.bucket)) from None
        raise


def _connect(url: CouchbaseURL, settings: StorageSettings) -> Cluster:
    """Connects by the DNS SRV record of the URL's host if it may name one, otherwise to the hosts themselves.

    The SDK gives up if the DNS lookup of the record fails, and looks it up for hosts with a port too.
    """
    if url.may_be_service:
        began = time.monotonic()
        try:
            return Cluster(url.connection, _cluster_options(url, settings, srv=True))
        except CouchbaseException as error:
            problem = translate(error)
            took = time.monotonic() - began
            # If the lookup had succeeded, the SDK would have tried to connect until its timeout.
            if not isinstance(problem, StoreUnavailableError) or took > settings.couchbase.bootstrap_timeout * 0.9:
                raise
        _warn_of_failed_lookup(str(url.hosts[0]))
    return Cluster(url.connection, _cluster_options(url, settings, srv=False))


@functools.cache  # otherwise every attempt in an outage would log it
def _warn_of_failed_lookup(host: str) -> None:
    _log.warning("the DNS lookup of SRV records for %s failed: connecting to the host itself", host)


def _cluster_options(url: CouchbaseURL, settings: StorageSettings, *, srv: bool) -> ClusterOptions:
    return ClusterOptions(
        _authenticator(settings),
        timeout_options=ClusterTimeoutOptions(
            bootstrap_timeout=timedelta(seconds=settings.couchbase.bootstrap_timeout),
            connect_timeout=timedelta(seconds=settings.couchbase.connect_timeout),
            dns_srv_timeout=timedelta(seconds=min(_SRV_SECONDS, settings.couchbase.bootstrap_timeout / 2)),
            kv_timeout=timedelta(seconds=settings.store.timeout),
        ),
        transcoder=_Bytes(),
        enable_dns_srv=srv,
        network=url.network,
        enable_tracing=settings.couchbase.sdk_telemetry,
        enable_metrics=settings.couchbase.sdk_telemetry,
        enable_app_telemetry=settings.couchbase.sdk_telemetry,
    )


class CouchbaseStore:
    """One connection to the cluster, and one collection of one bucket of it."""

    def __init__(self, cluster: Cluster, collection: Collection, *, default_timeout: float, rounds: Rounds) -> None:
        """Takes over `cluster`: `close` closes it. `default_timeout` is the cluster's own for reads, in seconds."""
        self._cluster = cluster
        self._collection = collection
        self._default_timeout = default_timeout
        self._rounds = rounds
        self._pid = os.getpid()

    def get(self, key: str, *, timeout: float) -> bytes | None:
        """See `DocumentReader.get`."""
        self._check_process()
        # Parsing one option costs half as much as everything else that the SDK does in this thread.
        options = {} if timeout == self._default_timeout else {"timeout": timedelta(seconds=max(timeout, _MIN_TIMEOUT))}
        try:
            document: bytes = self._collection.get(key, **options).value
        except DocumentNotFoundException:
            return None
        except CouchbaseException as error:
            raise translate(error) from None
        except RuntimeError:
            raise _closed() from None
        return document

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], *, timeout: float
    ) -> dict[str, T | StoreError | None]:
        """See `DocumentReader.get_many`. Documents are released round by round: the SDK holds all of a round."""
        read = self._read_round if len(keys) <= self._rounds.keys else self._read_in_rounds
        found = read(keys, parse, timeout)
        if all(isinstance(outcome, StoreError) for outcome in found.values()):
            raise next(error for error in found.values() if isinstance(error, StoreError))
        return found

    def _read_in_rounds(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], timeout: float
    ) -> dict[str, T | StoreError | None]:
        """Limits the documents that are read at once, so that they fit into memory, whatever their sizes.

        If documents are large, only one such round is in progress in the whole process.
        """
        deadline = time.monotonic() + timeout
        found: dict[str, T | StoreError | None] = {}
        while len(found) < len(keys):
            batch = keys[len(found) : len(found) + self._rounds.keys]
            began = time.monotonic()
            left = deadline - began
            if len(found) + len(batch) < len(keys):
                left /= 2  # so that a node that doesn't respond leaves time for the rounds that follow
            if left <= _MIN_TIMEOUT:
                found |= {key: StoreTimeoutError("no time was left to read it") for key in batch}
            elif not self._rounds.are_large:
                found |= self._read_round(batch, parse, left)
            elif self._rounds.turn.acquire(timeout=left):
                try:
                    found |= self._read_round(batch, parse, began + left - time.monotonic())
                finally:
                    self._rounds.turn.release()
            else:
                found |= {key: StoreTimeoutError("other large documents were being read") for key in batch}
        return found

    def _read_round(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], timeout: float
    ) -> dict[str, T | StoreError | None]:
        documents, failed = self._get_multi(keys, timeout)
        self._rounds.learn(documents.values())
        found: dict[str, T | StoreError | None] = dict.fromkeys(keys)
        found |= {key: parse(key, document) for key, document in documents.items()}
        found |= {key: translate(error) for key, error in failed.items()}
        return found

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """See `DocumentStore.put`. Documents are sent all at once; after an error some may be stored."""
        self._check_process()
        latest = dict(documents)  # the last document under a key wins
        # Documents that are too large aren't sent: for one far too large the node would reset the connection, and all
        # calls in flight would fail.
        refused = {key: _TOO_LARGE for key, content in latest.items() if len(content) > MAX_DOCUMENT_BYTES}
        sent = {key: content for key, content in latest.items() if key not in refused}
        existing: dict[str, bytes] = {}
        if sent:
            failures, existing = self._insert_or_upsert(sent, timedelta(seconds=max(timeout, _MIN_TIMEOUT)))
            refused |= failures
        # Of two documents under one key, the second one counts as replacing the first.
        stored = [key for key, _ in documents if key not in refused]
        replaced = len(stored) - len(set(stored)) + sum(key in existing for key in set(stored))
        if refused:
            raise DocumentsRefusedError(refused, replaced=replaced)
        return replaced

    def _insert_or_upsert(
        self, contents: dict[str, bytes], timeout: timedelta
    ) -> tuple[dict[str, str], dict[str, bytes]]:
        """Stores documents by key. Returns the reasons of those refused, by key, and those that existed already."""
        try:
            self._wait_for_nodes(min(timeout.total_seconds(), _NODES_SECONDS))
            failed = self._collection.insert_multi(contents, InsertMultiOptions(timeout=timeout)).exceptions
            existing = {
                key: contents[key] for key, error in failed.items() if isinstance(error, DocumentExistsException)
            }
            refused = _refusals({key: error for key, error in failed.items() if key not in existing})
            if existing:
                upserted = self._collection.upsert_multi(existing, UpsertMultiOptions(timeout=timeout))
                refused |= _refusals(upserted.exceptions)
        except CouchbaseException as error:
            raise translate_write(error) from None
        except RuntimeError:
            raise _closed() from None
        return refused, existing

    def probe(self, *, timeout: float) -> None:
        """See `DocumentStore.probe`. Reads several keys, so that one lost node of many doesn't fail the probe."""
        keys = [f"probe::{secrets.token_hex(8)}" for _ in range(_PROBE_KEYS)]
        _, failed = self._get_multi(keys, timeout)
        if len(failed) == len(keys):
            raise translate(next(iter(failed.values())))

    def close(self) -> None:
        """See `DocumentStore.close`. In a child process it does nothing: the connection is the parent's."""
        if os.getpid() == self._pid:
            self._cluster.close()

    def _get_multi(self, keys: Sequence[str], timeout: float) -> tuple[dict[str, bytes], dict[str, Exception]]:
        """Returns the documents that are there, and the errors of the keys without a response."""
        self._check_process()
        options = GetMultiOptions(timeout=timedelta(seconds=max(timeout, _MIN_TIMEOUT)))
        try:
            response = self._collection.get_multi(list(keys), options)
        except CouchbaseException as error:
            raise translate(error) from None
        except RuntimeError:
            raise _closed() from None
        found = {key: result.value for key, result in response.results.items()}
        missing = DocumentNotFoundException
        return found, {key: error for key, error in response.exceptions.items() if not isinstance(error, missing)}

    def _wait_for_nodes(self, seconds: float) -> None:
        """Waits for the connections to all nodes, for at most `seconds`, because a node may be lost.

        An operation that the SDK queues while a node's connection is being completed may never be sent, and time out.
        It happened occasionally among thousands of operations right after `open_couchbase`.
        """
        with contextlib.suppress(UnAmbiguousTimeoutException):
            options = WaitUntilReadyOptions(service_types=[ServiceType.KeyValue])
            self._cluster.wait_until_ready(timedelta(seconds=max(seconds, _MIN_TIMEOUT)), options)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # fork doesn't copy the SDK's threads: a call would hang beyond its timeout
            raise StoreMisconfiguredError("this connection belongs to another process; open one after the fork")


def _authenticator(settings: StorageSettings) -> Authenticator:
    if settings.couchbase.certificate is not None and not settings.store.url.startswith("couchbases://"):
        raise _mistake("a client certificate needs couchbases://")
    check_certificates(settings.couchbase)
    ca = None if settings.couchbase.ca is None else str(settings.couchbase.ca)
    if settings.couchbase.certificate is not None:
        certificate, key = str(settings.couchbase.certificate), str(settings.couchbase.key)
        return CertificateAuthenticator(certificate, key, trust_store_path=ca)
    username = clean(settings.couchbase.username or "")
    password = _password(settings.couchbase)
    if not username or not password:
        raise _mistake(
            "a Couchbase store needs USERPROFILE_SERVER_COUCHBASE_USERNAME, and USERPROFILE_SERVER_COUCHBASE_PASSWORD"
            " or USERPROFILE_SERVER_COUCHBASE_PASSWORD_FILE (or a client certificate)"
        )
    if problem := problem_of_text(username):
        raise _mistake(f"the Couchbase username {problem}")
    # Without TLS the SDK prepares the name for SCRAM, and an uncaught C++ exception ends the process ("Multibyte UTF-8
    # is not implemented yet").
    if not settings.store.url.startswith("couchbases://") and not username.isascii():
        raise _mistake(
            "the Couchbase username has letters that are not ASCII; the SDK takes them with couchbases:// only"
        )
    return PasswordAuthenticator(username, password, cert_path=ca)


def _password(settings: CouchbaseSettings) -> str | None:
    path = settings.password_file
    if path is not None:
        # Each connection rereads the file: a pipe would serve the first one, and block the others.
        with contextlib.suppress(OSError):  # reported by the read below
            if stat.S_ISFIFO(path.stat().st_mode):
                raise _mistake(f"{path} is a pipe, but must be a file: it is read again for each new connection")
        try:
            return read_secret(path)
        except ValueError as error:
            raise StoreMisconfiguredError(str(error)) from None
    if settings.password is None:
        return None
    password = clean(settings.password.get_secret_value())
    if password and (problem := problem_of_text(password)):
        raise _mistake(f"USERPROFILE_SERVER_COUCHBASE_PASSWORD {problem}")
    return password


def _refusals(failures: dict[str, Exception]) -> dict[str, str]:
    """Returns why documents were refused, by key; raises an error that isn't due to the document itself."""
    refused = {}
    for key, error in failures.items():
        reason = refusal(error)
        if reason is None:
            raise error
        refused[key] = reason
    return refused


def _mistake(message: str) -> StoreMisconfiguredError:
    return StoreMisconfiguredError(message, permanent=True)


def _closed() -> StoreUnavailableError:
    return StoreUnavailableError("this connection is closed")
