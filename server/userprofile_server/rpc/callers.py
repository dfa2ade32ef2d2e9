"""Identifies the caller: by the bearer token in the metadata, otherwise by the connection's client certificate."""

import re
import ssl
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from userprofile.certificates import expiry
from userprofile_server.errors import CallerUnknownError


class Kind(NamedTuple):
    """How tokens of one kind are verified."""

    verify: Callable[[str], str | None]
    """Returns the principal of a token, None for an unknown token; raises an error that says why it isn't valid."""
    known: Callable[[str], str | None]
    """Returns the principal of a token that was verified before. Never verifies one."""


class _Certificate(NamedTuple):
    principal: str | None
    expires: float
    """Unix time in seconds."""


_UNKNOWN = "the token is not known"
_DOTS_OF_JWT = 2
_MOST_REMEMBERED = 1000
"""A bound for the memory of the cache: a certificate has a few KB, 140 KB at most."""

_NAME = re.compile(rb"[!-~]{1,2048}")
"""The characters of URIs and DNS names in certificates (RFC 5280, 4.2.1.6), as many as a SPIFFE ID may have. They are
also safe in a log line."""


def _nobody(_token: str) -> None:
    return None


_NONE = Kind(_nobody, _nobody)


class Callers:
    """Maps each call to one principal.

    A token takes precedence over a certificate: a proxy may use its own certificate and forward its callers' tokens.
    """

    def __init__(self, *, tokens: Kind = _NONE, jwts: Kind | None = None, certificates: bool) -> None:
        """Takes the verifiers of tokens, and whether clients present certificates, which gRPC verifies."""
        self._tokens = tokens
        self._jwts = jwts
        self._certificates = certificates
        self._by_certificate: dict[bytes, _Certificate] = {}

    def principal_of(self, context: grpc.ServicerContext) -> str | None:
        """Returns the caller's principal, None if the call has no credentials.

        Raises:
            CallerUnknownError: the credentials aren't valid.
            CallerNotVerifiedError: the token can't be verified yet.
        """
        token = _token_in(context.invocation_metadata())
        if token is None:
            return self._principal_of_certificate(context) if self._certificates else None
        if (principal := self._kind_of(token).verify(token)) is None:
            raise CallerUnknownError(_UNKNOWN)
        return principal

    def _kind_of(self, token: str) -> Kind:
        return self._jwts if self._jwts is not None and token.count(".") == _DOTS_OF_JWT else self._tokens

    def share_of(self, rpc_event: Any) -> Hashable:
        """Returns the key for fair queueing of a new call.

        The key is the principal of a token that was verified before, or else the names in the client certificate, or
        else the connection. No token is verified here, because gRPC's own thread calls this, while calls wait.
        """
        with suppress(CallerUnknownError):
            token = _token_in(rpc_event.invocation_metadata)
            if token is not None and (principal := self._kind_of(token).known(token)) is not None:
                return principal
        names = cygrpc.peer_identities(rpc_event.call) if self._certificates else None
        return tuple(names) if names else str(rpc_event.call.peer())

    def _principal_of_certificate(self, context: Any) -> str | None:
        # Not `context.auth_context()`, which decodes a dozen keys: 2 of 3 µs.
        shown: Mapping[bytes, Sequence[bytes]] = cygrpc.auth_context(context._rpc_event.call) or {}
        if b"x509_pem_cert" not in shown:
            return None
        (pem,) = shown[b"x509_pem_cert"]
        try:
            certificate = self._by_certificate[pem]
        except KeyError:
            certificate = _Certificate(_principal_in(shown, pem), _expiry_of(pem))
            if len(self._by_certificate) >= _MOST_REMEMBERED:
                self._by_certificate.clear()
            self._by_certificate[pem] = certificate
        # It was valid in the handshake of the connection, or in an earlier one, whose TLS session has been resumed.
        if time.time() >= certificate.expires:
            raise CallerUnknownError("the certificate has expired")
        if certificate.principal is None:
            raise CallerUnknownError("the certificate has neither one SPIFFE ID nor one DNS name")
        return certificate.principal


def _token_in(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Returns the call's bearer token, None if it has none.

    Raises:
        CallerUnknownError: it has something else, or more than one.
    """
    found = [value for key, value in metadata if key == "authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise CallerUnknownError("the call has two tokens")
    (value,) = found
    if not isinstance(value, str) or value[:7].lower() != "bearer ":
        raise CallerUnknownError(_UNKNOWN)
    return value[7:].strip()


def _expiry_of(pem: bytes) -> float:
    """Returns when the certificate expires, as Unix time in seconds; the past, if that can't be read."""
    try:
        return expiry(pem).timestamp()
    except ValueError:
        return 0.0


def _principal_in(certificate: Mapping[bytes, Sequence[bytes]], pem: bytes) -> str | None:
    """Returns the one SPIFFE ID of a verified certificate, or else its one DNS name; None if it has neither.

    DNS names are the same in capitals (RFC 4343), and who is denied could get a certificate for them.
    By the SPIFFE X509-SVID standard (section 2) a certificate with more than one URI is no identity.
    """
    uris, names = certificate.get(b"peer_uri", ()), certificate.get(b"peer_dns", ())
    name, *others = (certificate.get(b"peer_spiffe_id") if uris else names) or (b"",)
    if others or len(uris) > 1 or not _NAME.fullmatch(name):
        return None
    # gRPC cuts names off at the first NUL, so that `web.example\0.evil` would pass for `web.example`.
    whole = rb"[\x82\x86].{1,5}" + re.escape(name) + rb"\0"  # tag, length, name (RFC 5280, 4.2.1.6)
    if re.search(whole, ssl.PEM_cert_to_DER_cert(pem.decode()), re.DOTALL):
        return None
    return name.decode() if uris else f"dns:{name.decode().lower()}"
