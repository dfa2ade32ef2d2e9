"""Checks the TLS files of a Couchbase store before the SDK gets them, because the SDK doesn't report bad ones."""

from collections.abc import Callable
from typing import TypeVar

from userprofile.certificates import CertificateError, read_authorities, read_identity, time_left
from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.stores.couchbase.settings import CouchbaseSettings

T = TypeVar("T")


def check_certificates(settings: CouchbaseSettings) -> list[str]:
    """Returns a line about each file in the settings, with how long it is still valid.

    Raises:
        StoreMisconfiguredError: a file can't be used. Not permanent, because it may be replaced while the server runs.
    """
    lines = []
    ca, certificate, key = settings.ca, settings.certificate, settings.key
    if ca is not None:
        authorities = _in_words(lambda: read_authorities(ca))
        count = "1 authority" if authorities.count == 1 else f"{authorities.count} authorities, the first of them"
        expired = f"; {authorities.expired} more expired" if authorities.expired else ""
        lines.append(f"{ca}: {count} with {time_left(authorities.not_after)}{expired}")
    if certificate is not None and key is not None:
        identity = _in_words(lambda: read_identity(certificate, key, for_grpc=False))
        lines.append(f"{certificate}: a client certificate with {time_left(identity.not_after)}")
    return lines


def _in_words(read: Callable[[], T]) -> T:
    try:
        return read()
    except FileNotFoundError as error:
        raise StoreMisconfiguredError(f"{error.filename} doesn't exist") from None
    except OSError as error:
        raise StoreMisconfiguredError(f"{error.filename} can't be read: {error.strerror}") from None
    except CertificateError as error:
        raise StoreMisconfiguredError(str(error)) from None
