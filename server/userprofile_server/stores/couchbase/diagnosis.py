"""What `check` reports about a cluster beyond the SDK's errors. The SDK reports only a timeout if a host doesn't exist,
refuses connections, or has an untrusted certificate.
"""

import ssl
import time
from collections.abc import Iterator

from userprofile_server.errors import StoreError, StoreUnavailableError
from userprofile_server.stores.couchbase.certificates import check_certificates
from userprofile_server.stores.couchbase.hello import NotANodeError, look_at
from userprofile_server.stores.couchbase.url import CouchbaseURL, Host
from userprofile_server.stores.settings import StorageSettings

_LOG_SECONDS = 0.3  # the SDK may log a moment after it raises


def diagnose(settings: StorageSettings, attempt: Iterator[str]) -> Iterator[str]:
    """See `Backend.diagnose`: checks the certificates, the hosts, and the nodes at their advertised addresses."""
    if settings.store.url.startswith("couchbases://"):
        yield from check_certificates(settings.couchbase)
    greet_hosts(settings)
    try:
        from userprofile_server.stores.couchbase.nodes import troubled_nodes  # imports the SDK
    except ImportError:
        yield from attempt  # which reports the missing SDK
        return
    connected = False
    with troubled_nodes() as troubled:
        try:
            for line in attempt:
                connected = True
                yield line
        except StoreError as error:
            if connected:
                _reach_advertised(settings, troubled)
            elif isinstance(error, StoreUnavailableError):
                yield from _reach_hosts(settings)
                _reach_advertised(settings, troubled)
                raise StoreUnavailableError(f"the hosts can be reached, but the store can't be used: {error}") from None
            raise
        url = CouchbaseURL.parse(settings.store.url)
        if not url.may_be_service:  # the SDK may not have tried every host before one responded
            troubled |= dict.fromkeys((host.name, host.port or url.default_port) for host in url.hosts)
        if troubled:
            _reach_advertised(settings, troubled)


def greet_hosts(settings: StorageSettings) -> None:
    """Checks the hosts of the URL before the SDK connects, because some responses would make the SDK abort the process.

    Skips a host that may name a DNS SRV record. A host that can't be reached or doesn't respond is left to the SDK.

    Raises:
        StoreMisconfiguredError: a certificate or key in the settings can't be used.
        StoreUnavailableError: a host isn't a Couchbase node; the text says what it is instead.
    """
    url = CouchbaseURL.parse(settings.store.url)
    if url.may_be_service:
        return
    context = _tls_context(settings) if url.scheme == "couchbases" else None
    for host in url.hosts:
        try:
            _look_at((host.name, host.port or url.default_port), settings, context)
        except NotANodeError as error:
            raise StoreUnavailableError(f"{host}: {error}") from None
        except OSError:  # the SDK retries for longer, and may have other hosts
            continue


def _reach_advertised(settings: StorageSettings, troubled: dict[tuple[str, int], None]) -> None:
    """Raises if a host of the URL can't be reached, or a node at its address in the cluster map."""
    deadline = time.monotonic() + _LOG_SECONDS
    while not troubled and time.monotonic() < deadline:
        time.sleep(0.01)
    url = CouchbaseURL.parse(settings.store.url)
    known = {(host.name, host.port or url.default_port) for host in url.hosts}
    context = _tls_context(settings) if url.scheme == "couchbases" else None
    problems = []
    advertised = False
    for address in list(troubled):
        if problem := _problem_at(address, settings, context):
            advertised |= address not in known
            whose = "the URL's host" if address in known else "the cluster's node"
            problems.append(f"{whose} {Host(*address)} can't be reached from here: {problem}")
    if advertised:
        problems.append(
            "the cluster itself advertises this address; if it is behind NAT or in containers, give its nodes external"
            " addresses that can be reached, and add network=external to the URL's options"
        )
    if problems:
        raise StoreUnavailableError("; ".join(problems))


def _reach_hosts(settings: StorageSettings) -> Iterator[str]:
    """Yields a line for each host of the URL that can be reached; raises if none can."""
    url = CouchbaseURL.parse(settings.store.url)
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


def _problem_at(address: tuple[str, int], settings: StorageSettings, context: ssl.SSLContext | None) -> str | None:
    try:
        return _look_at(address, settings, context)
    except NotANodeError as error:
        return str(error)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate isn't trusted: {error.verify_message}"
    except TimeoutError:
        return "no response"
    except OSError as error:
        return error.strerror or str(error)


def _look_at(address: tuple[str, int], settings: StorageSettings, context: ssl.SSLContext | None) -> str | None:
    certificate = settings.couchbase.certificate is not None
    return look_at(address, timeout=settings.couchbase.connect_timeout, tls=context, certificate=certificate)


def _tls_context(settings: StorageSettings) -> ssl.SSLContext:
    check_certificates(settings.couchbase)
    context = ssl.create_default_context(cafile=settings.couchbase.ca)
    if settings.couchbase.certificate is not None:
        context.load_cert_chain(settings.couchbase.certificate, settings.couchbase.key)
    return context
