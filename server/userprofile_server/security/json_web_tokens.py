"""Authenticates callers by an issuer's JSON Web Tokens (RFC 7519).

Imports PyJWT and cryptography, which take time and memory: import it only if the settings name keys.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import InvalidSubjectError

from userprofile_server.errors import CallerNotVerifiedError, CallerUnknownError
from userprofile_server.security.json_web_keys import Key, KeySet, parse_keys, read_keys
from userprofile_server.security.key_fetcher import ASK_SECONDS, REFRESH_SECONDS, KeyFetcher
from userprofile_server.security.settings import JwtSettings
from userprofile_server.security.watched import Watcher

_log = logging.getLogger(__name__)

KIND = "jwt:"
"""The prefix of principals from JSON Web Tokens."""

_MOST_CHARACTERS = 16 * 1024
"""The default limit of a call's whole metadata (`--max-header-bytes`)."""

_MOST_CHARACTERS_OF_SUBJECT = 512
_MOST_VERIFIED = 10_000
_MOST_CHARACTERS_VERIFIED = 20 * 1024 * 1024
"""A bound for the memory of the cache. Most tokens have about 1,000 characters."""

_END_OF_TIME = 2**53
_REQUIRED = ("exp", "iss", "aud", "sub")

_PROBLEMS: dict[type[Exception], str] = {
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it isn't valid yet",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.MissingRequiredClaimError: "it lacks one of exp, iss, aud and sub",
    InvalidSubjectError: "its sub is no string",
    jwt.DecodeError: "it isn't a JSON Web Token",
}
"""Descriptions of PyJWT's errors, whose own text and attributes contain parts of the token."""


class _Verified(NamedTuple):
    principal: str
    until: float
    """Unix time."""


@dataclass
class _State:
    keys: KeySet | None
    """None before the first fetch."""
    verified: dict[str, _Verified] = field(default_factory=dict, repr=False)
    """Verified tokens, oldest first. The key is the token itself, as hashing costs 8 µs."""
    characters: int = 0
    """How many the verified tokens have together."""

    def keep(self, token: str, verified: _Verified) -> None:
        """Only one thread may call this at a time."""
        if token not in self.verified:
            self.characters += len(token)
        self.verified[token] = verified
        while len(self.verified) > _MOST_VERIFIED or self.characters > _MOST_CHARACTERS_VERIFIED:
            oldest = next(iter(self.verified))
            del self.verified[oldest]
            self.characters -= len(oldest)


class JsonWebTokens:
    """Verifies each token once, and caches the result. No call waits for the issuer."""

    def __init__(
        self,
        settings: JwtSettings,
        watcher: Watcher,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        ask_seconds: float = ASK_SECONDS,
    ) -> None:
        """Reads the keys if they are in a file. Keys at a URL are fetched after `start`.

        Args:
            settings: Must have keys.
            watcher: Rereads the file of keys when it changes.
            refresh_seconds: See `KeyFetcher`.
            ask_seconds: See `KeyFetcher`.

        Raises:
            ValueError: the file of keys or CAs can't be used. The text is for operators and names the path.
        """
        assert settings.keys is not None
        self._settings = settings
        self._state = _State(None)
        self._lock = threading.Lock()  # only taken for a new token
        self._fetcher: KeyFetcher | None = None
        if settings.url is not None:
            self._fetcher = KeyFetcher(
                settings.url,
                settings.ca,
                lambda text: self._use(parse_keys(text, settings.allowed)),
                refresh_seconds=refresh_seconds,
                ask_seconds=ask_seconds,
            )
        else:
            path = Path(settings.keys)
            what = f"the JWT keys {path}"
            self._use(watcher.watch(what, [path], lambda: read_keys(path, settings.allowed), self._use).current)

    def start(self) -> None:
        """Starts to fetch the keys, if they come from a URL."""
        if self._fetcher is not None:
            self._fetcher.start()

    def stop(self) -> None:
        """Stops fetching."""
        if self._fetcher is not None:
            self._fetcher.stop()

    def has_keys(self) -> bool:
        """Returns whether there are keys: those at a URL may not have been fetched yet."""
        return self._state.keys is not None

    def known(self, token: str) -> str | None:
        """Returns the principal of a valid token that was verified before; None for any other."""
        found = self._state.verified.get(token)
        return found.principal if found is not None and found.until > time.time() else None

    def verify(self, token: str) -> str:
        """Returns the token's principal, `jwt:SUBJECT`.

        Raises:
            CallerUnknownError: the token isn't valid. The text says why, and contains nothing of the token.
            CallerNotVerifiedError: the token's key hasn't been fetched yet.
        """
        if len(token) > _MOST_CHARACTERS or not token.isascii():
            raise CallerUnknownError("the token is not valid: it is too long, or not ASCII")
        state = self._state
        found = state.verified.get(token)
        if found is not None and found.until > time.time():
            return found.principal
        verified = self._verify(token, state.keys)
        with self._lock:
            state.keep(token, verified)
        return verified.principal

    def _use(self, keys: KeySet) -> None:
        if keys == self._state.keys:  # verified tokens stay valid
            return
        self._state = _State(keys)
        _log.info("JWT keys: %d in use, of %s", len(keys), self._settings.keys)
        for problem in keys.ignored:
            _log.warning("JWT keys: not in use, of %s: %s", self._settings.keys, problem)

    def _verify(self, token: str, keys: KeySet | None) -> _Verified:
        header = _without_error(lambda: jwt.get_unverified_header(token))
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._settings.allowed:  # a list can't be hashed
            raise CallerUnknownError("the token is not valid: its algorithm is not among those of --jwt-algorithms")
        found = self._keys(key_id, algorithm, keys)
        claims = _without_error(lambda: self._claims(token, algorithm, found))
        subject = claims["sub"]
        if not 0 < len(subject) <= _MOST_CHARACTERS_OF_SUBJECT or not subject.isprintable():
            raise CallerUnknownError("the token is not valid: its sub is empty, too long, or has control characters")
        return _Verified(KIND + subject, min(int(claims["exp"]), _END_OF_TIME) + self._settings.leeway)

    def _claims(self, token: str, algorithm: str, keys: tuple[Key, ...]) -> dict[str, Any]:
        *others, last = keys
        for key in others:
            with suppress(jwt.InvalidSignatureError):
                return self._decoded(token, algorithm, key)
        return self._decoded(token, algorithm, last)

    def _decoded(self, token: str, algorithm: str, key: Key) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.public,
            [algorithm],
            {"require": list(_REQUIRED), "verify_jti": False},
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway,
        )

    def _keys(self, key_id: str | None, algorithm: str, keys: KeySet | None) -> tuple[Key, ...]:
        if keys is None:
            raise CallerNotVerifiedError("the issuer's keys have not been fetched yet")
        if found := keys.find(key_id, algorithm):
            return found
        if key_id is None or key_id in keys.by_id:
            raise CallerUnknownError("the token is not valid: no key is for it and its algorithm")
        if self._fetcher is None or self._fetcher.is_current():
            raise CallerUnknownError("the token is not valid: the issuer has no such key")
        self._fetcher.ask()
        raise CallerNotVerifiedError("the token's key is unknown, and the issuer's keys are being fetched again")


def _without_error(decode: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Decodes a token. PyJWT's error is not kept, not even as the context of ours: it contains parts of the token."""
    try:
        return decode()
    except Exception as error:  # noqa: BLE001, untrusted input can cause any exception in PyJWT's dependencies
        problem = next((text for kind, text in _PROBLEMS.items() if isinstance(error, kind)), "it is malformed")
    raise CallerUnknownError(f"the token is not valid: {problem}")
