"""`userprofile-server check`: connects and reads like the server would, and says in plain words what is wrong."""

import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from userprofile_server.errors import StoreError, StoreUnavailableError
from userprofile_server.settings import StoreSettings
from userprofile_server.stores import Examinable, is_cluster, open_store
from userprofile_server.stores.couchbase_certificates import check_certificates
from userprofile_server.stores.couchbase_hello import look_at
from userprofile_server.stores.couchbase_url import CouchbaseURL, Host

_PROBE_TIMEOUT = 2.0
_EXAMINE_SECONDS = 5.0
_LOG_SECONDS = 0.3  # what the SDK has to say may come a moment after its error


def check(settings: StoreSettings, *, full: bool = False) -> Iterator[str]:
    """Yields lines of what works. Changes nothing, and creates nothing.

    Where a store can look for damage, it does so for a few seconds, or with `full` for as long as it takes.

    Raises:
        StoreError: it doesn't; the text says why.
    """
    if settings.store.startswith("couchbases://"):
        yield from check_certificates(settings)
    with _troubled_nodes(settings) as troubled:
        began = time.monotonic()
        try:
            store = open_store(settings)
        except StoreUnavailableError as error:
            if not is_cluster(settings.store):
                raise
            yield from _reach_hosts(settings)
            _reach_advertised(settings, troubled)
            raise StoreUnavailableError(f"the hosts can be reached, but the store doesn't answer: {error}") from None
        yield f"connected in {time.monotonic() - began:.3f} s"
        try:
            began = time.monotonic()
            store.probe(timeout=_PROBE_TIMEOUT)
            yield f"read in {time.monotonic() - began:.3f} s"
            if isinstance(store, Examinable):
                yield from store.examine(seconds=None if full else _EXAMINE_SECONDS)
        except StoreError:
            _reach_advertised(settings, troubled)
            raise
        finally:
            store.close()
        if troubled:
            _reach_advertised(settings, troubled)


def _troubled_nodes(settings: StoreSettings) -> AbstractContextManager[dict[tuple[str, int], None]]:
    if not is_cluster(settings.store):
        return nullcontext({})
    from userprofile_server.stores.couchbase_nodes import troubled_nodes  # imports the SDK

    return troubled_nodes()


def _reach_advertised(settings: StoreSettings, troubled: dict[tuple[str, int], None]) -> None:
    """Raises if a node can't be reached at the address that the cluster's map has for it."""
    if not is_cluster(settings.store):
        return
    deadline = time.monotonic() + _LOG_SECONDS
    while not troubled and time.monotonic() < deadline:
        time.sleep(0.01)
    url = CouchbaseURL.parse(settings.store)
    known = {(host.name, host.port or url.default_port) for host in url.hosts}
    context = _tls_context(settings) if url.scheme == "couchbases" else None
    problems = []
    advertised = False
    for address in list(troubled):
        if problem := _problem_at(address, settings, context):
            advertised |= address not in known
            problems.append(f"the cluster's node {Host(*address)} can't be reached from here: {problem}")
    if advertised:
        problems.append(
            "the cluster itself gives its clients this address; where it is behind NAT or in containers, give its nodes"
            " external addresses that can be reached, and add network=external to the URL's options"
        )
    if problems:
        raise StoreUnavailableError("; ".join(problems))


def _reach_hosts(settings: StoreSettings) -> Iterator[str]:
    """Yields a line for each host of a Couchbase URL that can be reached; raises if none can.

    The SDK says no more than "timeout" of a host that doesn't exist, that refuses, or that has a
    certificate which nobody trusts.
    """
    url = CouchbaseURL.parse(settings.store)
    context = _tls_context(settings) if url.scheme == "couchbases" else None
    problems = []
    for host in url.hosts:
        address = host.name, host.port or url.default_port
        if (problem := _problem_at(address, settings, context)) is None:
            yield f"{host} can be reached"
        else:
            problems.append(f"{host}: {problem}")
    if len(problems) == len(url.hosts):
        raise StoreUnavailableError("; ".join(problems))
    yield from problems


def _problem_at(address: tuple[str, int], settings: StoreSettings, context: ssl.SSLContext | None) -> str | None:
    try:
        return look_at(
            address,
            timeout=settings.couchbase_connect_timeout,
            tls=context,
            certificate=settings.couchbase_certificate is not None,
        )
    except ssl.SSLCertVerificationError as error:
        return f"its certificate isn't trusted: {error.verify_message}"
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)


def _tls_context(settings: StoreSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.couchbase_ca)
    if settings.couchbase_certificate is not None:
        context.load_cert_chain(settings.couchbase_certificate, settings.couchbase_key)
    return context
