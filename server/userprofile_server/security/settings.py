"""The settings of authentication and authorization."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from userprofile_server.settings_base import Group

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The asymmetric algorithms of RFC 7518 and RFC 8037. With a symmetric one, every verifier could forge tokens."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class CallerSettings(Group):
    """Who may call, and what each may call and see."""

    tokens: Path | None = Field(
        default=None,
        description="A file of the callers' names and the hashes of their tokens; `token new` adds one.",
    )
    policy: Path | None = Field(
        default=None,
        description="A file that says who may call which methods and see which fields; see docs/security.md.",
    )


class JwtSettings(Group):
    """Which JSON Web Tokens are accepted."""

    keys: str | None = Field(
        default=None,
        description="The issuer's public keys (JWKS): a file, or an https:// URL. Needs issuer and audience.",
    )
    issuer: str | None = Field(default=None, description="The `iss` that a token must have.")
    audience: str | None = Field(
        default=None, description="What must be the `aud` of a token, or among it: it says that the token is for us."
    )
    algorithms: str = Field(
        default="RS256 ES256 EdDSA", description=f"The signatures that are accepted, of {', '.join(ALGORITHMS)}."
    )
    leeway: float = Field(
        default=30.0, ge=0, le=300, description="Seconds by which the issuer's clock may differ from ours."
    )
    ca: Path | None = Field(
        default=None,
        description="The certificate authorities to trust (PEM) for the URL; by default those of the system.",
    )

    @property
    def url(self) -> str | None:
        """The URL of the keys; None if they are in a file."""
        return self.keys if self.keys is not None and "://" in self.keys else None

    @property
    def allowed(self) -> frozenset[str]:
        """The allowed algorithms."""
        return frozenset(self.algorithms.replace(",", " ").split())

    @field_validator("algorithms")
    @classmethod
    def _are_asymmetric(cls, algorithms: str) -> str:
        names = algorithms.replace(",", " ").split()
        if not names:
            raise ValueError("names no algorithm")
        if any(name not in ALGORITHMS for name in names):
            raise ValueError(f"may name {', '.join(ALGORITHMS)}, with spaces between them")
        return algorithms

    @field_validator("keys")
    @classmethod
    def _is_safe(cls, keys: str | None) -> str | None:
        if keys is None or "://" not in keys:
            return keys
        try:
            url = urlsplit(keys)
            host, _ = url.hostname, url.port
        except ValueError:
            raise ValueError("isn't a valid URL") from None
        if not keys.isascii() or not keys.isprintable() or " " in keys:
            raise ValueError("isn't a valid URL")
        if url.scheme not in ("https", "http") or not host:
            raise ValueError("has to be a file or an https:// URL")
        if url.scheme == "http" and host not in _LOOPBACK:
            raise ValueError("has to be https://: over http:// anyone on the network could give us keys")
        if url.username is not None or url.password is not None:
            raise ValueError("may not have a user or password in the URL")
        return keys

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.keys is None:
            for given, flag in ((self.issuer, "issuer"), (self.audience, "audience"), (self.ca, "ca")):
                if given is not None:
                    raise ValueError(f"--jwt-{flag} has no effect without --jwt-keys")
        elif self.issuer is None or self.audience is None:
            raise ValueError(
                "--jwt-keys needs --jwt-issuer and --jwt-audience: without them tokens for others would be accepted"
            )
        elif self.ca is not None and not self.keys.startswith("https://"):
            raise ValueError("--jwt-ca is about an https:// URL as --jwt-keys")
        return self


class TlsSettings(Group):
    """The files of `tls://` and `mtls://` listeners. Changed files are read again while the server runs."""

    certificate: Path | None = Field(
        default=None,
        description="The server's certificate, with those between it and its authority, in a PEM file.",
    )
    key: Path | None = Field(default=None, description="The private key of that certificate, in a PEM file.")
    client_ca: Path | None = Field(
        default=None,
        description="The authorities that issue the certificates of clients, in a PEM file. For mtls:// listeners.",
    )

    @model_validator(mode="after")
    def _are_a_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls:// and mtls:// need --tls-certificate and --tls-key, both of them")
        return self
