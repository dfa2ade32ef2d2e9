"""Certificates and keys for tests: good ones, and those of all kinds that people give by mistake."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.canary import guard

DAY = timedelta(days=1)
PASSWORD = b"a password"

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


class MadeFiles:
    """A folder of PEM files and of what isn't any, by the names that stand below."""

    def __init__(self, folder: Path) -> None:
        """Makes all of them."""
        self.folder = folder
        now = datetime.now(UTC)
        authority = trustme.CA()
        own = authority.issue_cert("a-client", not_before=now - DAY, not_after=now + 90 * DAY + DAY / 2)
        other = authority.issue_cert("another")
        old = authority.issue_cert("old", not_before=now - 2 * DAY, not_after=now - DAY)
        young = authority.issue_cert("young", not_before=now + DAY, not_after=now + 2 * DAY)
        fresh = authority.issue_cert("fresh", not_before=now + timedelta(minutes=1), not_after=now + DAY)
        ca, leaf, key = authority.cert_pem.bytes(), own.cert_chain_pems[0].bytes(), own.private_key_pem.bytes()
        loaded = serialization.load_pem_private_key(key, None)
        certificate = x509.load_pem_x509_certificate(leaf)
        expired_ca = self_signed(now - 2 * DAY, now - DAY, authority=True)
        private = serialization.PrivateFormat
        encrypted = serialization.BestAvailableEncryption(PASSWORD)
        damaged = ca.replace(ca.splitlines()[2], b"A" * 64)
        body = b"".join(ca.splitlines()[1:-1])
        der = x509.load_pem_x509_certificate(ca).public_bytes(DER)
        first_version = ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x00", 1))
        for name, content in {
            "ca.pem": ca,
            "own.pem": leaf,
            "own.key": key,
            "both.pem": key + leaf + ca,
            "other.pem": other.cert_chain_pems[0].bytes(),
            "other.key": other.private_key_pem.bytes(),
            "rsa.key": authority.issue_cert("rsa", key_type=trustme.KeyType.RSA).private_key_pem.bytes(),
            "chain upside down.pem": ca + leaf,
            "pkcs8.key": loaded.private_bytes(PEM, private.PKCS8, serialization.NoEncryption()),
            "crlf.pem": b"# F\xc5\x91tan\xc3\xbas\xc3\xadtv\xc3\xa1ny\r\n" + ca.replace(b"\n", b"\r\n").strip(),
            "one line.pem": b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n",
            "self-signed.pem": self_signed(now - DAY, now + DAY, authority=False),
            "some expired.pem": expired_ca + ca + ca,
            "fresh.pem": fresh.cert_chain_pems[0].bytes(),
            "fresh.key": fresh.private_key_pem.bytes(),
            "empty": b"",
            "blank": b" \r\n\n",
            "garbage": b"\x93garbage\x00" * 20,
            "text": b"see the wiki for our certificate\n",
            "ca.der": der,
            "own.key.der": loaded.private_bytes(DER, private.PKCS8, serialization.NoEncryption()),
            "utf16.pem": ca.decode().encode("utf-16"),
            "utf16le.pem": ca.decode().encode("utf-16-le"),
            "bom.pem": b"\xef\xbb\xbf" + ca,
            "bom in the middle.pem": ca + b"\xef\xbb\xbf" + ca,
            "bom.key": b"\xef\xbb\xbf" + key,
            "cut off.pem": ca[: len(ca) // 2],
            "first cut off.pem": ca[: len(ca) // 2] + b"\n" + ca,
            "cut off.key": key[: len(key) // 2],
            "lost line breaks.pem": ca.replace(b"\n", b"\\n"),
            "indented.pem": b"".join(b"  " + line for line in ca.splitlines(keepends=True)),
            "damaged.pem": damaged,
            "second damaged.pem": ca + damaged,
            "extensions in version 1.pem": first_version.encode() + ca,  # gRPC would trust neither, and say nothing
            "not base64.pem": b"-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n",
            "damaged.key": key.replace(key.splitlines()[1], b"A" * 64),
            "encrypted.key": loaded.private_bytes(PEM, private.PKCS8, encrypted),
            "encrypted traditionally.key": loaded.private_bytes(PEM, private.TraditionalOpenSSL, encrypted),
            "ssh.key": loaded.private_bytes(PEM, private.OpenSSH, serialization.NoEncryption()),
            "public.key": certificate.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "request.pem": x509.CertificateSigningRequestBuilder()
            .subject_name(certificate.subject)
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
            .public_bytes(PEM),
            "expired ca.pem": expired_ca,
            "young ca.pem": self_signed(now + DAY, now + 2 * DAY, authority=True),
            "old.pem": old.cert_chain_pems[0].bytes(),
            "old.key": old.private_key_pem.bytes(),
            "young.pem": young.cert_chain_pems[0].bytes(),
            "young.key": young.private_key_pem.bytes(),
        }.items():
            (folder / name).write_bytes(content)
        (folder / "folder").mkdir()
        self.secrets = [
            line for file in folder.glob("*.key") for line in file.read_bytes().splitlines() if len(line) > 40
        ]
        """Lines that may stand in no message."""
        for line in self.secrets:
            guard(line.decode("latin-1"))

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def self_signed(not_before: datetime, not_after: datetime, *, authority: bool) -> bytes:
    """Makes a certificate that has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "users.example")])
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(PEM)
    )


def without_identifiers() -> tuple[bytes, bytes, bytes]:
    """Makes an authority, a certificate of it for 127.0.0.1 and its key, without the key identifiers of RFC 5280.

    Authorities of clusters and companies often lack them.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "issuer")]
    now = datetime.now(UTC)
    authority, certificate = (
        x509.CertificateBuilder(names[0], name, key.public_key(), number, now - DAY, now + DAY)
        .add_extension(x509.BasicConstraints(ca=number == 1, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(keys[0], hashes.SHA256())
        .public_bytes(PEM)
        for number, (name, key) in enumerate(zip(names, keys, strict=True), 1)
    )
    private = serialization.PrivateFormat.PKCS8
    return authority, certificate, keys[1].private_bytes(PEM, private, serialization.NoEncryption())


BAD_AUTHORITIES = {
    "empty": "it is empty",
    "blank": "it is empty",
    "folder": "it is a folder",
    "garbage": "it isn't PEM",
    "text": "it isn't PEM",
    "ca.der": "it is DER or PKCS#12",
    "utf16.pem": "UTF-16",
    "utf16le.pem": "UTF-16",
    "bom.pem": "byte order mark",
    "bom in the middle.pem": "byte order mark",
    "cut off.pem": "it is damaged",
    "first cut off.pem": "it is damaged",
    "lost line breaks.pem": "it is damaged",
    "indented.pem": "it is damaged",
    "damaged.pem": "the certificate in it is damaged",
    "second damaged.pem": "certificate 2 of 2 in it is damaged",
    "extensions in version 1.pem": "a certificate in it has dates or a version in a form that isn't that of RFC 5280",
    "not base64.pem": "the certificate in it is damaged",
    "own.key": "it holds a private key, not a certificate",
    "encrypted.key": "it holds a private key, not a certificate",
    "request.pem": "it holds a request for a certificate",
    "own.pem": "issued by an authority, not the authority's own",
    "expired ca.pem": "it expired at",
    "young ca.pem": "it isn't valid before",
}
"""What is said of each file as one of authorities."""

BAD_PAIRS = {
    ("empty", "own.key"): "empty can't be used as a certificate: it is empty",
    ("own.pem", "empty"): "empty can't be used as a private key: it is empty",
    ("own.pem", "folder"): "it is a folder",
    ("own.pem", "garbage"): "garbage can't be used as a private key: it isn't PEM",
    ("garbage", "own.key"): "garbage can't be used as a certificate: it isn't PEM",
    ("ca.der", "own.key"): "it is DER or PKCS#12",
    ("own.pem", "own.key.der"): "it is DER or PKCS#12, but must be PEM; for a key in DER",
    ("own.key", "own.pem"): "own.key can't be used as a certificate: it holds a private key, not a certificate",
    ("own.pem", "own.pem"): "own.pem can't be used as a private key: it holds a certificate, not a private key",
    ("own.pem", "bom.key"): "byte order mark",
    ("own.pem", "encrypted.key"): "it is encrypted",
    ("own.pem", "encrypted traditionally.key"): "it is encrypted",
    ("own.pem", "ssh.key"): "it holds a key of SSH",
    ("own.pem", "public.key"): "it holds a public key",
    ("own.pem", "cut off.key"): "cut off.key can't be used as a private key: it is damaged",
    ("own.pem", "damaged.key"): "damaged.key can't be used as a private key: it is damaged",
    ("request.pem", "own.key"): "it holds a request for a certificate",
    ("own.pem", "other.key"): "other.key can't be used as a private key: it doesn't belong to the certificate in",
    ("own.pem", "rsa.key"): "it doesn't belong to the certificate in",
    ("chain upside down.pem", "own.key"): "the first in the file",
    ("old.pem", "old.key"): "old.pem can't be used as a certificate: it expired at",
    ("young.pem", "young.key"): "young.pem can't be used as a certificate: it isn't valid before",
}
"""What is said of each certificate and key together."""
