"""`userprofile-server check`: reads the files and the store like the server, and explains what is wrong."""

import time
from collections.abc import Iterator
from pathlib import Path

from userprofile.certificates import read_authorities, read_identity, time_left
from userprofile_server.errors import SecurityError
from userprofile_server.security.settings import CallerSettings, JwtSettings, TlsSettings
from userprofile_server.security.tokens import read_tokens
from userprofile_server.stores import backend_of, open_store
from userprofile_server.stores.base import Examinable
from userprofile_server.stores.settings import StorageSettings

_PROBE_TIMEOUT = 2.0
_EXAMINE_SECONDS = 5.0


class CheckSettings(StorageSettings):
    """The settings of `check`: those of `serve` that name files and stores."""

    tls: TlsSettings = TlsSettings()
    callers: CallerSettings = CallerSettings()
    jwt: JwtSettings = JwtSettings()


def check(settings: CheckSettings, *, full: bool = False) -> Iterator[str]:
    """Yields a line for each thing that works. Changes and creates nothing.

    If the store can check itself for damage, it does so for a few seconds, or with `full` for as long as it takes.

    Raises:
        SecurityError: a file of certificates, tokens or rules can't be used; the text says why.
        StoreError: the store doesn't work; the text says why.
    """
    try:
        yield from _look_at_files(settings)
    except ValueError as error:
        raise SecurityError(str(error)) from None
    except OSError as error:
        raise SecurityError(f"{error.filename} can't be read: {error.strerror or error}") from None
    yield from backend_of(settings.store.url).diagnose(settings, _connect_and_read(settings, full))


def _look_at_files(settings: CheckSettings) -> Iterator[str]:
    tls, callers, jwt = settings.tls, settings.callers, settings.jwt
    if tls.certificate is not None and tls.key is not None:
        yield f"{tls.certificate}: {time_left(read_identity(tls.certificate, tls.key, role='server').not_after)}"
    if tls.client_ca is not None:
        yield f"{tls.client_ca}: {time_left(read_authorities(tls.client_ca).not_after)}"
    if callers.tokens is not None:
        names = read_tokens(callers.tokens).by_hash.values()
        yield f"{callers.tokens}: {_count(len(names), 'token')} of {_count(len(set(names)), 'caller')}"
    if callers.policy is not None:
        from userprofile_server.rpc.decided import METHODS  # gRPC takes a third of a second
        from userprofile_server.security.policy import read_policy  # protobuf, which the supervisor must not import

        policy = read_policy(callers.policy)
        yield f"{callers.policy}: {_count(len(policy.allow_rules) + len(policy.deny_rules), 'rule')}"
        for doubt in policy.doubts(METHODS):
            yield f"warning: {callers.policy}: {doubt}"
    if jwt.keys is not None:
        yield f"{jwt.keys}: {_count(_number_of_keys(jwt), 'key')}"


def _number_of_keys(settings: JwtSettings) -> int:
    from userprofile_server.security.json_web_keys import parse_keys, read_keys  # slow to import
    from userprofile_server.security.key_fetcher import fetch

    assert settings.keys is not None
    if settings.url is None:
        return len(read_keys(Path(settings.keys), settings.allowed))
    try:
        return len(parse_keys(fetch(settings.url, settings.ca), settings.allowed))
    except ValueError as error:
        raise ValueError(f"the JWT keys at {settings.url} can't be used: {error}") from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _connect_and_read(settings: StorageSettings, full: bool) -> Iterator[str]:
    began = time.monotonic()
    store = open_store(settings)
    try:
        yield f"connected in {time.monotonic() - began:.3f} s"
        began = time.monotonic()
        store.probe(timeout=_PROBE_TIMEOUT)
        yield f"read in {time.monotonic() - began:.3f} s"
        if isinstance(store, Examinable):
            yield from store.examine(seconds=None if full else _EXAMINE_SECONDS)
    finally:
        store.close()
