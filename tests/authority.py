"""A certificate authority for tests: it issues certificates for servers and callers, valid for as long as one likes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


class Issued(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> None:
        """Writes `name`.pem and `name`.key."""
        (folder / f"{name}.pem").write_bytes(self.certificate)
        (folder / f"{name}.key").write_bytes(self.key)


class Authority:
    """Made with a key of its own."""

    def __init__(self, name: str = "an authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key, -DAY, 365 * DAY)
        certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = certificate.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def issue(
        self,
        *names: str,
        not_before: timedelta = -DAY,
        not_after: timedelta = 90 * DAY,
        common_name: str | None = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        more: Sequence[x509.ExtensionType] = (),
    ) -> Issued:
        """Issues a certificate for DNS names and URIs, valid from now + `not_before` to now + `not_after`."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = self._builder(subject, key, not_before, not_after)
        if names:
            alternatives = [
                x509.UniformResourceIdentifier(name) if ":" in name else x509.DNSName(name) for name in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not common_name)
        for extension in more:
            builder = builder.add_extension(extension, critical=True)
        return Issued(
            builder.sign(self._key, hashes.SHA256()).public_bytes(PEM),
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )

    def channel(
        self, address: str, shown: Issued | None = None, options: Sequence[tuple[str, object]] = ()
    ) -> grpc.Channel:
        """Returns a channel that trusts this authority's servers, whatever the address, and shows a certificate."""
        pair = (None, None) if shown is None else (shown.key, shown.certificate)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1), *options]
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.pem, *pair), options)

    def _builder(
        self, subject: x509.Name, key: CertificateIssuerPrivateKeyTypes, not_before: timedelta, not_after: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), now + not_before, now + not_after
        )
