"""Checks TLS files: CAs to trust, a certificate and its key. Uses only Python's `ssl`.

TLS libraries report bad files poorly: for an empty file of CAs gRPC uses its default roots; it prompts on the terminal
for the password of an encrypted key, skips unreadable content, and reports other problems as the server's.
"""

import base64
import math
import os
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from userprofile.printable import is_content

_MAX_BYTES = 16 * 1024 * 1024
"""Far more than any bundle: Mozilla's, with all CAs that browsers trust, has 0.2 MB."""

_CLOCK_SKEW = timedelta(minutes=5)
"""Tolerance for certificates that are new and come from a machine whose clock is slightly ahead."""

# RFC 7468. OpenSSL recognizes it only at the beginning of a line.
_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(
    rb"^-----BEGIN ([^\r\n]*?)-----[ \t]*\r?\n(.*?)^-----END \1-----[ \t]*\r?$", re.MULTILINE | re.DOTALL
)
_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_KEYS = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"})

_MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's errors for a key of another certificate; the last one is for a key of another algorithm."""

_KEYS_OF_GRPC = (
    bytes.fromhex("06092a864886f70d010101"),
    bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107"),
    bytes.fromhex("06072a8648ce3d020106052b81040022"),
)
"""RSA, P-256 and P-384 (RFC 3279, 2.3; RFC 5480, 2.1.1). Of others gRPC's BoringSSL verifies no signature in a
handshake, or can't read them at all: with a certificate for such a key every handshake would fail."""

_V1, _V2, _V3 = b"", bytes.fromhex("020101"), bytes.fromhex("020102")
"""A certificate's version (RFC 5280, 4.1.2.1), as DER has it. The first isn't written."""

Role = Literal["server", "client"]

_KEY_USAGE, _EXTENDED_KEY_USAGE = bytes.fromhex("551d0f"), bytes.fromhex("551d25")
_DIGITAL_SIGNATURE = 0x80
_ANY_PURPOSE = bytes.fromhex("551d2500")
_PURPOSES: dict[Role, bytes] = {
    "server": bytes.fromhex("2b06010505070301"),
    "client": bytes.fromhex("2b06010505070302"),
}
"""What certificates are for (RFC 5280, 4.2.1.12): serverAuth and clientAuth."""

_AUTHORITIES = "certificate authorities"
_CERTIFICATE = "a certificate"
_KEY = "a private key"


class CertificateError(ValueError):
    """Raised when a file can't be used for TLS. The text names the file and the reason, and has nothing of a key."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates of a CA file, at least one of which is valid."""

    pem: bytes = field(repr=False)
    count: int
    """How many CAs are valid now."""
    expired: int
    """How many CAs have expired."""
    not_after: datetime
    """When the first of the valid CAs expires."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A valid certificate with its intermediates, and its private key."""

    certificate: bytes = field(repr=False)
    """PEM."""
    key: bytes = field(repr=False)
    """PEM, not encrypted."""
    not_after: datetime
    """When the certificate expires."""


def read_authorities(path: Path | str) -> Authorities:
    """Reads the PEM file of the CAs to trust.

    Some of the CAs may have expired, as in every long-lived bundle.

    Raises:
        CertificateError: the file isn't one of CAs, or none of them is valid.
        OSError: the file can't be read.
    """
    content = _read(path, _AUTHORITIES)
    certificates = _certificates(path, content, _AUTHORITIES)
    # A self-signed certificate can be trusted as it is, even if it isn't marked as a CA.
    roots = [certificate for certificate in certificates if certificate.is_authority or certificate.is_self_signed]
    if not roots:
        _refuse(
            path,
            _AUTHORITIES,
            "it holds a certificate issued by an authority, not the authority's own;"
            " is it the server's own, or the client's?",
        )
    now = datetime.now(UTC)
    valid = [certificate for certificate in roots if certificate.problem(now) is None]
    if not valid:
        _refuse(path, _AUTHORITIES, str(max(roots, key=lambda root: root.not_after).problem(now)))
    expired = sum(certificate.not_after < now for certificate in roots)
    return Authorities(content, len(valid), expired, min(certificate.not_after for certificate in valid))


def read_identity(
    certificate: Path | str, key: Path | str, *, role: Role | None = None, for_grpc: bool = True
) -> Identity:
    """Reads the PEM files of a certificate (or a chain, the certificate itself first) and of its private key.

    Both may be the same file. With `role`, the certificate has to be for this end of a connection; with `for_grpc`, of
    a kind that gRPC can use.

    Raises:
        CertificateError: a file isn't what it should be, the key doesn't match the certificate, can't be used, or the
            certificate isn't valid now.
        OSError: a file can't be read.
    """
    chain = _read(certificate, _CERTIFICATE)
    own, *others = _certificates(certificate, chain, _CERTIFICATE)
    key_content = _read(key, _KEY)
    _check_key(key, key_content)
    context = _context()
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedError:
        _refuse_encrypted(key)
    except ssl.SSLError as error:
        if error.reason not in _MISMATCHES:
            _refuse(key, _KEY, f"it is damaged, or of an unknown kind ({error.reason or 'unreadable'})")
        first = " (the first in the file; it has to be the one that the key belongs to)" if others else ""
        _refuse(key, _KEY, f"it doesn't belong to the certificate in {certificate}{first}")
    # OpenSSL has read the files anew.
    if (_read(certificate, _CERTIFICATE), _read(key, _KEY)) != (chain, key_content):
        _refuse(certificate, _CERTIFICATE, "it or its key was replaced while they were read; try again")
    problem = own.problem(datetime.now(UTC))
    if problem is not None:
        _refuse(certificate, _CERTIFICATE, problem)
    if role is not None and not own.is_for(role):
        _refuse(certificate, _CERTIFICATE, f"its extended key usage lacks {role}Auth, so it isn't one for a {role}")
    if for_grpc and not own.key.startswith(_KEYS_OF_GRPC):
        _refuse(certificate, _CERTIFICATE, "gRPC can't use a key of its kind; use RSA, or EC with P-256 or P-384")
    if for_grpc and not own.may_sign:
        _refuse(certificate, _CERTIFICATE, "its key usage lacks digitalSignature, without which gRPC can't use it")
    return Identity(chain, key_content, own.not_after)


def expiry(certificate: bytes) -> datetime:
    """Returns when a certificate in PEM expires.

    Raises:
        ValueError: it isn't a certificate of the form of RFC 5280.
    """
    try:
        return _parse(ssl.PEM_cert_to_DER_cert(certificate.decode("ascii")), is_authority=False).not_after
    except (IndexError, StopIteration):
        raise ValueError("it isn't a certificate") from None


def time_left(not_after: datetime) -> str:
    """Returns the remaining validity in whole days: `89 days left (until 2027-02-22)`."""
    days = math.floor((not_after - datetime.now(UTC)) / timedelta(days=1))
    return f"{days} {'day' if days == 1 else 'days'} left (until {not_after:%Y-%m-%d})"


class _Certificate(NamedTuple):
    is_authority: bool
    is_self_signed: bool
    not_before: datetime
    not_after: datetime
    key: bytes
    """The kind of its key, as DER has it: the beginning of an AlgorithmIdentifier."""
    extensions: bytes

    @property
    def may_sign(self) -> bool:
        """Whether the key may be used for signatures, those of handshakes too (RFC 5280, 4.2.1.3)."""
        usage = self._extension(_KEY_USAGE)
        if usage is None:
            return True
        bits = usage[3:]  # of a BIT STRING: tag, length, number of unused bits, the bits
        return bits != b"" and bool(bits[0] & _DIGITAL_SIGNATURE)

    def is_for(self, role: Role) -> bool:
        """Whether the certificate may be used at this end of a connection."""
        usage = self._extension(_EXTENDED_KEY_USAGE)
        if usage is None:
            return True
        purposes = [purpose for _, purposes in _elements(usage) for _, purpose in _elements(purposes)]
        return _PURPOSES[role] in purposes or _ANY_PURPOSE in purposes

    def _extension(self, identifier: bytes) -> bytes | None:
        for _, extensions in _elements(self.extensions):
            for _, extension in _elements(extensions):
                (_, found), *_critical, (_, value) = _elements(extension)
                if found == identifier:
                    return value
        return None

    def problem(self, now: datetime) -> str | None:
        """Returns why the certificate can't be used now, None if it can."""
        if self.not_after < now:
            return f"it expired at {self.not_after:%Y-%m-%d %H:%M:%S} UTC"
        if self.not_before > now + _CLOCK_SKEW:
            return (
                f"it isn't valid before {self.not_before:%Y-%m-%d %H:%M:%S} UTC; this machine's clock is at"
                f" {now:%Y-%m-%d %H:%M:%S}"
            )
        return None


class _EncryptedError(Exception):
    """Raised where a library would prompt for a password."""


def _no_password() -> NoReturn:
    raise _EncryptedError


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Accept weak keys here: the TLS libraries that use them decide, and their rules differ.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _refuse(path: Path | str, purpose: str, problem: str) -> NoReturn:
    raise CertificateError(f"{path} can't be used as {purpose}: {problem}")


def _refuse_encrypted(path: Path | str) -> NoReturn:
    _refuse(path, _KEY, f"it is encrypted; decrypt it first (openssl pkey -in {path} -out FILE)")


def _read(path: Path | str, purpose: str) -> bytes:
    if is_content(path):  # perhaps of a key: nothing may show it
        raise CertificateError(f"the path of a file is needed as {purpose}, not the content of the file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening a pipe could take forever
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            _refuse(path, purpose, "it is a folder")
        if not stat.S_ISREG(mode):  # the file is read more than once
            _refuse(path, purpose, "it is a pipe or a device, not a file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if not content.strip():
        _refuse(path, purpose, "it is empty")
    if len(content) > _MAX_BYTES:
        _refuse(path, purpose, f"it is larger than {_MAX_BYTES // 1024 // 1024} MiB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0-\0-\0-\0-\0-" in content:
        _refuse(path, purpose, "it is UTF-16 text; save it as ASCII or UTF-8")
    if b"\xef\xbb\xbf-----BEGIN" in content:
        _refuse(path, purpose, "it has a byte order mark before a certificate or key; save it as UTF-8 without one")
    return content


def _blocks(path: Path | str, content: bytes, purpose: str) -> list[tuple[str, bytes, bytes]]:
    """Returns the label, the body and the full text of each PEM block."""
    # Blocks aren't nested, so each one ends before the next begins. Searching the whole rest of the file for each end
    # would take hours for a file with many beginnings.
    beginnings = [match.start() for match in re.finditer(_BEGIN, content)]
    found = [_BLOCK.match(content, start, end) for start, end in pairwise([*beginnings, len(content)])]
    blocks = [(match[1].decode(errors="replace"), match[2], match[0]) for match in found if match is not None]
    if len(blocks) != len(found):
        _refuse(
            path,
            purpose,
            "it is damaged: each -----BEGIN …----- needs an -----END …----- of its own, both on lines of their own",
        )
    if blocks:
        return blocks
    if content.startswith(b"0"):  # the tag of a SEQUENCE, with which DER certificates and keys begin
        kind, command = "key", f"openssl pkey -inform der -in {path} -out FILE"
        if purpose is not _KEY:
            kind, command = "certificate", f"openssl x509 -inform der -in {path} -out FILE"
        _refuse(
            path,
            purpose,
            f"it is DER or PKCS#12, but must be PEM; for a {kind} in DER: {command};"
            f" for PKCS#12: openssl pkcs12 -nodes -in {path} -out FILE",
        )
    _refuse(path, purpose, "it isn't PEM: there is no -----BEGIN …----- in it")


def _certificates(path: Path | str, content: bytes, purpose: str) -> list[_Certificate]:
    blocks = _blocks(path, content, purpose)
    found = [(body, block) for label, body, block in blocks if label in _CERTIFICATES]
    if not found:
        _refuse(path, purpose, f"it holds {_named(blocks[0][0])}, not a certificate")
    context = _context()
    for number, (_, block) in enumerate(found, 1):
        try:
            context.load_verify_locations(cadata=block.decode("ascii") + "\n")
        except (ssl.SSLError, ValueError):
            which = f"certificate {number} of {len(found)} in it" if len(found) > 1 else "the certificate in it"
            _refuse(path, purpose, f"{which} is damaged")
    authorities = set(context.get_ca_certs(binary_form=True))
    try:
        contents = dict.fromkeys(base64.b64decode(body) for body, _ in found)  # bundles have duplicates
        return [_parse(content, is_authority=content in authorities) for content in contents]
    except (ValueError, IndexError):
        _refuse(path, purpose, "a certificate in it has dates or a version in a form that isn't that of RFC 5280")


def _check_key(path: Path | str, content: bytes) -> None:
    blocks = _blocks(path, content, _KEY)
    keys = [(label, body) for label, body, _ in blocks if label in _KEYS]
    if not keys:
        _refuse(path, _KEY, f"it holds {_named(blocks[0][0])}, not a private key")
    label, body = keys[0]
    if label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type:" in body:  # the header of traditional PEM encryption
        _refuse_encrypted(path)


def _named(label: str) -> str:
    """Describes a block by its label. Unknown labels aren't quoted, because they could be any text."""
    if label in _CERTIFICATES:
        return "a certificate"
    if label in _KEYS:
        return "a private key"
    known = {
        "CERTIFICATE REQUEST": "a request for a certificate (CSR)",
        "NEW CERTIFICATE REQUEST": "a request for a certificate (CSR)",
        "EC PARAMETERS": "the parameters of a key",
        "OPENSSH PRIVATE KEY": "a key of SSH, which TLS can't use",
        "PKCS7": "PKCS#7 (openssl pkcs7 -print_certs makes certificates of it)",
        "PUBLIC KEY": "a public key",
        "TRUSTED CERTIFICATE": "a certificate in a form of OpenSSL's own (openssl x509 makes a common one of it)",
        "X509 CRL": "a list of revoked certificates",
    }
    return known.get(label, "something else")


def _parse(der: bytes, *, is_authority: bool) -> _Certificate:
    """Parses certificate fields (RFC 5280, 4.1) that `ssl` doesn't expose. OpenSSL has accepted `der` before."""
    _, certificate = next(_elements(der))
    _, to_be_signed = next(_elements(certificate))
    elements = list(_elements(to_be_signed))
    version = next((content for tag, content in elements if tag == 0xA0), _V1)
    extensions = next((content for tag, content in elements if tag == 0xA3), b"")
    # OpenSSL takes others. gRPC's BoringSSL doesn't, and without a word leaves out all that follow in the file.
    if version != _V3 and (extensions or version not in (_V1, _V2)):
        raise ValueError("only version 3 has extensions, and none is higher")
    fields = [content for tag, content in elements if tag != 0xA0]
    _serial, _algorithm, issuer, validity, subject, public_key = fields[:6]
    not_before, not_after = (_time(tag, content) for tag, content in _elements(validity))
    _, key = next(_elements(public_key))
    return _Certificate(is_authority, issuer == subject, not_before, not_after, key, extensions)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the tag and the content of each element in `der` (X.690, 8.1)."""
    position = 0
    while position < len(der):
        tag, length = der[position : position + 2]
        position += 2
        if length >= 0x80:
            size = length - 0x80
            length = int.from_bytes(der[position : position + size])
            position += size
        yield tag, der[position : position + length]
        position += length


def _time(tag: int, content: bytes) -> datetime:
    # Two-digit years mean 1950 to 2049 (RFC 5280, 4.1.2.5.1); strptime's range is another.
    text = content.decode("ascii")
    if tag == 0x17:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
