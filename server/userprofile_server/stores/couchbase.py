"""The store for those who outgrow one machine: documents in a Couchbase bucket, through the official SDK."""

import contextlib
import functools
import logging
import os
import secrets
import stat
import time
from collections.abc import Sequence
from datetime import timedelta

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

from userprofile.environment import clean, problem_of_secret, read_secret
from userprofile_server.documents import MAX_DOCUMENT_BYTES, document_key, parse_user, user_or_error
from userprofile_server.errors import (
    DocumentsRefusedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.models import User
from userprofile_server.settings import StoreSettings
from userprofile_server.stores.base import Document, Outcome, UserStore
from userprofile_server.stores.couchbase_certificates import check_certificates
from userprofile_server.stores.couchbase_errors import refusal, translate, translate_opening, translate_write
from userprofile_server.stores.couchbase_rounds import Rounds, rounds_of
from userprofile_server.stores.couchbase_url import CouchbaseURL

_log = logging.getLogger(__name__)

_PROBE_KEYS = 16  # with one node of two lost, all of them are on it once in 65,536 times
_NODES_SECONDS = 0.5
_TOO_LARGE = f"the document is larger than {MAX_DOCUMENT_BYTES} bytes"
_SRV_SECONDS = 0.5
_MIN_TIMEOUT = 0.001  # the SDK takes 0 for "the default"


class _Bytes(Transcoder):  # type: ignore[misc]
    """Hands documents on as they are, whatever their flags say: tools of all ages have written them."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        return value, FMT_JSON

    def decode_value(self, value: bytes, flags: int) -> bytes:  # noqa: ARG002, the SDK's signature
        return value


def open_couchbase(settings: StoreSettings) -> UserStore:
    """Connects to the cluster of a `CouchbaseURL` and opens the bucket.

    Raises:
        StoreMisconfiguredError: the URL, the credentials, the bucket or a file is wrong.
        StoreUnavailableError: the cluster doesn't answer within the bootstrap timeout.
    """
    if clean(os.environ.get("PYCBC_LOG_LEVEL", "")).lower() == "trace":
        raise _mistake("PYCBC_LOG_LEVEL=trace makes the SDK print whole documents, hashes included; unset it")
    url = CouchbaseURL.parse(settings.store)
    cluster = None
    try:
        cluster = _connect(url, settings)
        bucket = cluster.bucket(url.bucket)
        collection = bucket.scope(url.scope).collection(url.collection)
        return CouchbaseUserStore(
            cluster, collection, default_timeout=settings.store_timeout, rounds=rounds_of(settings.store)
        )
    except BaseException as error:
        if cluster is not None:
            cluster.close()
        if isinstance(error, CouchbaseException):
            raise (translate(error) if cluster is None else translate_opening(error, url.bucket)) from None
        raise


def _connect(url: CouchbaseURL, settings: StoreSettings) -> Cluster:
    """Connects by the DNS SRV record of the URL's host if it may have one, and otherwise to the hosts themselves.

    The SDK gives up where the DNS doesn't answer for the record, and asks for it for hosts with a port too.
    """
    if url.may_be_service:
        began = time.monotonic()
        try:
            return Cluster(url.connection, _cluster_options(url, settings, srv=True))
        except CouchbaseException as error:
            problem = translate(error)
            took = time.monotonic() - began
            # Had the record, or the lack of one, been found, the SDK would have tried to connect until its time was up.
            if not isinstance(problem, StoreUnavailableError) or took > settings.couchbase_bootstrap_timeout * 0.9:
                raise
        _tell_of_lost_record(str(url.hosts[0]))
    return Cluster(url.connection, _cluster_options(url, settings, srv=False))


@functools.cache  # an outage would be told again with every attempt
def _tell_of_lost_record(host: str) -> None:
    _log.warning("the DNS doesn't say whether %s has SRV records: connecting to the host itself", host)


def _cluster_options(url: CouchbaseURL, settings: StoreSettings, *, srv: bool) -> ClusterOptions:
    return ClusterOptions(
        _authenticator(settings),
        timeout_options=ClusterTimeoutOptions(
            bootstrap_timeout=timedelta(seconds=settings.couchbase_bootstrap_timeout),
            connect_timeout=timedelta(seconds=settings.couchbase_connect_timeout),
            dns_srv_timeout=timedelta(seconds=min(_SRV_SECONDS, settings.couchbase_bootstrap_timeout / 2)),
            kv_timeout=timedelta(seconds=settings.store_timeout),
        ),
        transcoder=_Bytes(),
        enable_dns_srv=srv,
        network=url.network,
        enable_tracing=settings.couchbase_sdk_telemetry,
        enable_metrics=settings.couchbase_sdk_telemetry,
        enable_app_telemetry=settings.couchbase_sdk_telemetry,
    )


class CouchbaseUserStore:
    """One connection to the cluster, and one collection of one bucket of it."""

    def __init__(self, cluster: Cluster, collection: Collection, *, default_timeout: float, rounds: Rounds) -> None:
        """Takes over `cluster`: `close` closes it. `default_timeout` is the cluster's own for reads, in seconds."""
        self._cluster = cluster
        self._collection = collection
        self._default_timeout = default_timeout
        self._rounds = rounds
        self._pid = os.getpid()

    def get(self, username: str, *, timeout: float) -> User:
        """See `UserReader.get`."""
        self._check_process()
        # The SDK takes as long for looking at one option as for half of what else it does in this thread.
        options = {} if timeout == self._default_timeout else {"timeout": timedelta(seconds=max(timeout, _MIN_TIMEOUT))}
        try:
            document: bytes = self._collection.get(document_key(username), **options).value
        except DocumentNotFoundException:
            raise UserNotFoundError from None
        except CouchbaseException as error:
            raise translate(error) from None
        except RuntimeError:
            raise _closed() from None
        return parse_user(username, document)

    def get_many(self, usernames: Sequence[str], *, timeout: float) -> dict[str, Outcome]:
        """See `UserReader.get_many`."""
        read = self._read_round if len(usernames) <= self._rounds.names else self._read_in_rounds
        outcomes = read(usernames, timeout)
        if all(isinstance(outcome, StoreError) for outcome in outcomes.values()):
            raise next(error for error in outcomes.values() if isinstance(error, StoreError))
        return outcomes

    def _read_in_rounds(self, usernames: Sequence[str], timeout: float) -> dict[str, Outcome]:
        """Reads so few documents at once that they fit into memory: the SDK holds all of a round, whatever their size.

        Where large documents have been seen, only one such round is under way in the whole process.
        """
        deadline = time.monotonic() + timeout
        outcomes: dict[str, Outcome] = {}
        while len(outcomes) < len(usernames):
            names = usernames[len(outcomes) : len(outcomes) + self._rounds.names]
            began = time.monotonic()
            left = deadline - began
            if len(outcomes) + len(names) < len(usernames):
                left /= 2  # so that a node that doesn't answer leaves time for the rounds that follow
            if left <= _MIN_TIMEOUT:
                outcomes |= {name: StoreTimeoutError("no time was left to ask for it") for name in names}
            elif not self._rounds.are_large:
                outcomes |= self._read_round(names, left)
            elif self._rounds.turn.acquire(timeout=left):
                try:
                    outcomes |= self._read_round(names, began + left - time.monotonic())
                finally:
                    self._rounds.turn.release()
            else:
                outcomes |= {name: StoreTimeoutError("other large documents were being read") for name in names}
        return outcomes

    def _read_round(self, usernames: Sequence[str], timeout: float) -> dict[str, Outcome]:
        keys = [document_key(username) for username in usernames]
        found, failed = self._get_multi(keys, timeout)
        self._rounds.learn(found.values())
        return {
            username: translate(failed[key]) if key in failed else user_or_error(username, found.get(key))
            for username, key in zip(usernames, keys, strict=True)
        }

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """See `UserStore.put`. Documents are sent all at once; after an error some may be stored."""
        self._check_process()
        latest = dict(documents)  # of two documents of one user the last one counts
        # One far too large isn't sent: the node would reset the connection, and with it all that is under way.
        refused = {name: _TOO_LARGE for name, content in latest.items() if len(content) > MAX_DOCUMENT_BYTES}
        sent = {document_key(name): content for name, content in latest.items() if name not in refused}
        existing: dict[str, bytes] = {}
        if sent:
            failures, existing = self._insert_or_upsert(sent, timedelta(seconds=max(timeout, _MIN_TIMEOUT)))
            refused |= {name: failures[document_key(name)] for name in latest if document_key(name) in failures}
        # Two documents of one user: the second one took the other's place.
        stored = [name for name, _ in documents if name not in refused]
        replaced = len(stored) - len(set(stored)) + sum(document_key(name) in existing for name in set(stored))
        if refused:
            raise DocumentsRefusedError(refused, replaced=replaced)
        return replaced

    def _insert_or_upsert(
        self, contents: dict[str, bytes], timeout: timedelta
    ) -> tuple[dict[str, str], dict[str, bytes]]:
        """Stores documents by key. Returns why some were refused, by key, and those that were there already."""
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
        """See `UserStore.probe`. Several keys are asked for, so that one lost node of many doesn't decide."""
        keys = [f"probe::{secrets.token_hex(8)}" for _ in range(_PROBE_KEYS)]
        _, failed = self._get_multi(keys, timeout)
        if len(failed) == len(keys):
            raise translate(next(iter(failed.values())))

    def close(self) -> None:
        """See `UserStore.close`. In a child process it does nothing: the connection is the parent's."""
        if os.getpid() == self._pid:
            self._cluster.close()

    def _get_multi(self, keys: Sequence[str], timeout: float) -> tuple[dict[str, bytes], dict[str, Exception]]:
        """Returns the documents that are there, and the errors of the keys that nobody answered for."""
        self._check_process()
        options = GetMultiOptions(timeout=timedelta(seconds=max(timeout, _MIN_TIMEOUT)))
        try:
            answer = self._collection.get_multi(keys, options)
        except CouchbaseException as error:
            raise translate(error) from None
        except RuntimeError:
            raise _closed() from None
        found = {key: result.value for key, result in answer.results.items()}
        missing = DocumentNotFoundException
        return found, {key: error for key, error in answer.exceptions.items() if not isinstance(error, missing)}

    def _wait_for_nodes(self, seconds: float) -> None:
        """Gives the connections to all nodes time to be made; a node that is lost isn't waited for any longer.

        An operation that the SDK keeps for a node whose connection is just being completed can be left behind,
        and times out without having been sent. With thousands sent right after `open_couchbase` one now and then was.
        """
        with contextlib.suppress(UnAmbiguousTimeoutException):
            options = WaitUntilReadyOptions(service_types=[ServiceType.KeyValue])
            self._cluster.wait_until_ready(timedelta(seconds=max(seconds, _MIN_TIMEOUT)), options)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:  # the SDK's threads didn't come along: a call would hang, past its timeout
            raise StoreMisconfiguredError("this connection belongs to another process; open one after the fork")


def _authenticator(settings: StoreSettings) -> Authenticator:
    if settings.couchbase_certificate is not None and not settings.store.startswith("couchbases://"):
        raise _mistake("a client certificate needs couchbases://")
    check_certificates(settings)
    ca = None if settings.couchbase_ca is None else str(settings.couchbase_ca)
    if settings.couchbase_certificate is not None:
        certificate, key = str(settings.couchbase_certificate), str(settings.couchbase_key)
        return CertificateAuthenticator(certificate, key, trust_store_path=ca)
    username = clean(settings.couchbase_username or "")
    password = _password(settings)
    if not username or not password:
        raise _mistake(
            "a Couchbase store needs USERPROFILE_COUCHBASE_USERNAME, and USERPROFILE_COUCHBASE_PASSWORD or"
            " USERPROFILE_COUCHBASE_PASSWORD_FILE (or a client certificate)"
        )
    if problem := problem_of_secret(username):
        raise _mistake(f"the Couchbase username {problem}")
    # Without TLS the SDK prepares the name for SCRAM, which ends the process by an exception that nobody catches
    # ("Multibyte UTF-8 is not implemented yet").
    if not settings.store.startswith("couchbases://") and not username.isascii():
        raise _mistake("the Couchbase username has letters that are not ASCII, for which the SDK needs couchbases://")
    return PasswordAuthenticator(username, password, cert_path=ca)


def _password(settings: StoreSettings) -> str | None:
    path = settings.couchbase_password_file
    if path is not None:
        # Each connection reads it again: a pipe would have it for the first one, and keep the others waiting.
        with contextlib.suppress(OSError):  # which reading it tells
            if stat.S_ISFIFO(path.stat().st_mode):
                raise _mistake(f"{path} is a pipe, and has to be a file: it is read again for each new connection")
        try:
            return read_secret(path)
        except ValueError as error:
            raise StoreMisconfiguredError(str(error)) from None
    if settings.couchbase_password is None:
        return None
    password = clean(settings.couchbase_password.get_secret_value())
    if password and (problem := problem_of_secret(password)):
        raise _mistake(f"USERPROFILE_COUCHBASE_PASSWORD {problem}")
    return password


def _refusals(failures: dict[str, Exception]) -> dict[str, str]:
    """Returns by key why documents were refused; raises what failed for any other reason than the document's own."""
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
