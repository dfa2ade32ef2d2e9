"""`userprofile-server check`: connects and reads like the server would, and says in plain words what is wrong."""

import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from userprofile_server.errors import StoreUnavailableError
from userprofile_server.settings import StoreSettings
from userprofile_server.stores import open_store
from userprofile_server.stores.couchbase_certificates import check_certificates
from userprofile_server.stores.couchbase_hello import look_at

_PROBE_TIMEOUT = 2.0
_DEFAULT_PORTS = {"couchbase": 11210, "couchbases": 11207}


def check(settings: StoreSettings) -> Iterator[str]:
    """Yields lines of what works.

    Raises:
        StoreError: it doesn't; the text says why.
    """
    if settings.store.startswith("couchbases://"):
        yield from check_certificates(settings)
    began = time.monotonic()
    try:
        store = open_store(settings)
    except StoreUnavailableError as error:
        yield from _reach_hosts(settings)
        raise StoreUnavailableError(f"the hosts can be reached, but the store doesn't answer: {error}") from None
    yield f"connected in {time.monotonic() - began:.3f} s"
    try:
        began = time.monotonic()
        store.probe(timeout=_PROBE_TIMEOUT)
        yield f"read in {time.monotonic() - began:.3f} s"
    finally:
        store.close()


def _reach_hosts(settings: StoreSettings) -> Iterator[str]:
    """Yields a line for each host of a Couchbase URL that can be reached; raises if none can.

    The SDK says no more than "timeout" of a host that doesn't exist, that refuses, or that has a
    certificate which nobody trusts.
    """
    url = urlsplit(settings.store)
    if url.scheme not in _DEFAULT_PORTS:
        return
    context = _tls_context(settings) if url.scheme == "couchbases" else None
    problems = []
    for host in url.netloc.split(","):
        parts = urlsplit(f"//{host}")
        address = parts.hostname or "", parts.port or _DEFAULT_PORTS[url.scheme]
        try:
            problem = look_at(
                address,
                timeout=settings.couchbase_connect_timeout,
                tls=context,
                certificate=settings.couchbase_certificate is not None,
            )
        except ssl.SSLCertVerificationError as error:
            problems.append(f"{host}: its certificate isn't trusted: {error.verify_message}")
        except TimeoutError:
            problems.append(f"{host}: no answer")
        except OSError as error:
            problems.append(f"{host}: {error.strerror or error}")
        else:
            if problem is None:
                yield f"{host} can be reached"
            else:
                problems.append(f"{host}: {problem}")
    if len(problems) == len(url.netloc.split(",")):
        raise StoreUnavailableError("; ".join(problems))
    yield from problems


def _tls_context(settings: StoreSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.couchbase_ca)
    if settings.couchbase_certificate is not None:
        context.load_cert_chain(settings.couchbase_certificate, settings.couchbase_key)
    return context
