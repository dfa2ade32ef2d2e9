"""The one check of TLS files: authorities to trust, a certificate and its key. Python's `ssl` alone does it.

TLS libraries are no help with bad files: gRPC takes an empty file of authorities for "the default ones", asks the
terminal for the password of an encrypted key, passes over what it can't read, and blames the server for the rest.
"""

import base64
import math
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, NoReturn

_MAX_BYTES = 16 * 1024 * 1024
"""Far above any bundle: that of Mozilla, with all authorities that browsers trust, has 0.2 MB."""

_CLOCK_SKEW = timedelta(minutes=5)
"""A certificate that was made just now, by a machine whose clock is a bit ahead, is no mistake."""

# RFC 7468. OpenSSL sees a line like this only at the beginning of a line.
_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(
    rb"^-----BEGIN ([^\r\n]*?)-----[ \t]*\r?\n(.*?)^-----END \1-----[ \t]*\r?$", re.MULTILINE | re.DOTALL
)
_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_KEYS = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"})

_MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""What OpenSSL says of a key that belongs to another certificate, the last of one of another algorithm."""

_AUTHORITIES = "certificate authorities"
_CERTIFICATE = "a certificate"
_KEY = "a private key"


class CertificateError(ValueError):
    """Raised when a file can't be used for TLS. The text names it and says why; nothing out of a key is in it."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates of a file of authorities, at least one of which is valid."""

    pem: bytes = field(repr=False)
    count: int
    """How many authorities are valid now."""
    expired: int
    """How many are not any more."""
    not_after: datetime
    """When the first of the valid ones expires."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate that is valid, with those between it and its authority, and the private key that belongs to it."""

    certificate: bytes = field(repr=False)
    """PEM."""
    key: bytes = field(repr=False)
    """PEM, not encrypted."""
    not_after: datetime
    """When the certificate expires."""


def read_authorities(path: Path | str) -> Authorities:
    """Reads the PEM file of the authorities to trust.

    Expired ones among others do no harm, as in every bundle that lives for long.

    Raises:
        CertificateError: it isn't such a file, or nobody could be trusted by it.
        OSError: it can't be read.
    """
    content = _read(path, _AUTHORITIES)
    certificates = _certificates(path, content, _AUTHORITIES)
    # One that has signed itself may be trusted as it is, whether it calls itself an authority or not.
    roots = [certificate for certificate in certificates if certificate.is_authority or certificate.is_self_signed]
    if not roots:
        _refuse(
            path,
            _AUTHORITIES,
            "it holds a certificate that an authority has issued, not that of the authority;"
            " is it the server's own, or the client's?",
        )
    now = datetime.now(UTC)
    valid = [certificate for certificate in roots if certificate.problem(now) is None]
    if not valid:
        _refuse(path, _AUTHORITIES, str(max(roots, key=lambda root: root.not_after).problem(now)))
    expired = sum(certificate.not_after < now for certificate in roots)
    return Authorities(content, len(valid), expired, min(certificate.not_after for certificate in valid))


def read_identity(certificate: Path | str, key: Path | str) -> Identity:
    """Reads the PEM files of a certificate (or a chain, the certificate itself first) and of its private key.

    Both may be the same file.

    Raises:
        CertificateError: they aren't such files, don't belong together, or the certificate isn't valid now.
        OSError: one of them can't be read.
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
            _refuse(key, _KEY, f"it is damaged, or of a kind that isn't known here ({error.reason or 'unreadable'})")
        first = " (the first in the file; it has to be the one that the key belongs to)" if others else ""
        _refuse(key, _KEY, f"it doesn't belong to the certificate in {certificate}{first}")
    problem = own.problem(datetime.now(UTC))
    if problem is not None:
        _refuse(certificate, _CERTIFICATE, problem)
    return Identity(chain, key_content, own.not_after)


def time_left(not_after: datetime) -> str:
    """Says how long something is still valid, in whole days: `89 days left (until 2027-02-22)`."""
    days = math.floor((not_after - datetime.now(UTC)) / timedelta(days=1))
    return f"{days} {'day' if days == 1 else 'days'} left (until {not_after:%Y-%m-%d})"


class _Certificate(NamedTuple):
    is_authority: bool
    is_self_signed: bool
    not_before: datetime
    not_after: datetime

    def problem(self, now: datetime) -> str | None:
        """Why it can't be used now, or None."""
        if self.not_after < now:
            return f"it expired at {self.not_after:%Y-%m-%d %H:%M:%S} UTC"
        if self.not_before > now + _CLOCK_SKEW:
            return (
                f"it isn't valid before {self.not_before:%Y-%m-%d %H:%M:%S} UTC, and the clock of this machine says"
                f" {now:%Y-%m-%d %H:%M:%S}"
            )
        return None


class _EncryptedError(Exception):
    """Raised where a library would ask for a password."""


def _no_password() -> NoReturn:
    raise _EncryptedError


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # How strong keys have to be is for those to say who speak TLS with them, and they don't agree.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _refuse(path: Path | str, purpose: str, problem: str) -> NoReturn:
    raise CertificateError(f"{path} can't be used as {purpose}: {problem}")


def _refuse_encrypted(path: Path | str) -> NoReturn:
    _refuse(path, _KEY, f"it is encrypted; give one that isn't (openssl pkey -in {path} -out FILE)")


def _read(path: Path | str, purpose: str) -> bytes:
    path = Path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        _refuse(path, purpose, "it is a folder")
    if not stat.S_ISREG(mode):  # it is read more than once
        _refuse(path, purpose, "it is a pipe or a device, not a file")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
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
    """Returns the label, the body and the whole of each PEM block."""
    blocks = [(match[1].decode(errors="replace"), match[2], match[0]) for match in _BLOCK.finditer(content)]
    if content.count(_BEGIN) != len(blocks):
        _refuse(
            path,
            purpose,
            "it is damaged: each -----BEGIN …----- needs an -----END …----- of its own, both on lines of their own",
        )
    if blocks:
        return blocks
    if content.startswith(b"0"):  # the tag of a SEQUENCE, which everything in DER is that could be meant
        kind, command = "key", f"openssl pkey -inform der -in {path} -out FILE"
        if purpose is not _KEY:
            kind, command = "certificate", f"openssl x509 -inform der -in {path} -out FILE"
        _refuse(
            path,
            purpose,
            f"it is DER or PKCS#12, and has to be PEM; for a {kind} in DER: {command};"
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
        contents = dict.fromkeys(base64.b64decode(body) for body, _ in found)  # bundles repeat some
        return [_parse(content, is_authority=content in authorities) for content in contents]
    except (ValueError, IndexError):
        _refuse(path, purpose, "a certificate in it has dates in a form that isn't that of RFC 5280")


def _check_key(path: Path | str, content: bytes) -> None:
    blocks = _blocks(path, content, _KEY)
    keys = [(label, body) for label, body, _ in blocks if label in _KEYS]
    if not keys:
        _refuse(path, _KEY, f"it holds {_named(blocks[0][0])}, not a private key")
    label, body = keys[0]
    if label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type:" in body:  # the header of the older form of encryption
        _refuse_encrypted(path)


def _named(label: str) -> str:
    """Says what a block with this label is. Only of labels that are known: else the text could be anything."""
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
    """Takes out of a certificate (RFC 5280, 4.1), which OpenSSL has read before, what `ssl` tells of no file."""
    _, certificate = next(_elements(der))
    _, to_be_signed = next(_elements(certificate))
    fields = [content for tag, content in _elements(to_be_signed) if tag != 0xA0]  # a version stands in v2 and v3 only
    _serial, _algorithm, issuer, validity, subject = fields[:5]
    not_before, not_after = (_time(tag, content) for tag, content in _elements(validity))
    return _Certificate(is_authority, issuer == subject, not_before, not_after)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the tag and the content of each element that stands in `der` (X.690, 8.1)."""
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
    # A year of two digits is one of 1950 to 2049 (RFC 5280, 4.1.2.5.1), and strptime's are others.
    text = content.decode("ascii")
    if tag == 0x17:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
