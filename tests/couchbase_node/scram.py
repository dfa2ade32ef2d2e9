"""The server's side of SCRAM (RFC 5802) and of PLAIN (RFC 4616)."""

import base64
import hashlib
import hmac
import secrets

MECHANISMS = {"SCRAM-SHA512": "sha512", "SCRAM-SHA256": "sha256", "SCRAM-SHA1": "sha1"}
_ITERATIONS = 64  # real clusters ask for thousands, which cost both sides milliseconds for each connection


class AuthenticationError(Exception):
    """Raised when the user isn't known or the proof isn't right."""


class Scram:
    """One exchange: `first` responds to the client's first message, `final` checks its proof."""

    def __init__(self, mechanism: str, passwords: dict[str, str]) -> None:
        self._hash = MECHANISMS[mechanism]
        self._passwords = passwords
        self._salt = secrets.token_bytes(16)
        self._messages: list[str] = []
        self._nonce = ""
        self.username = ""

    def first(self, message: bytes) -> bytes:
        bare = message.decode().removeprefix("n,,")
        fields = _fields(bare)
        self.username = fields["n"].replace("=2C", ",").replace("=3D", "=")
        self._nonce = fields["r"] + secrets.token_hex(12)
        challenge = f"r={self._nonce},s={_b64(self._salt)},i={_ITERATIONS}"
        self._messages = [bare, challenge]
        return challenge.encode()

    def final(self, message: bytes) -> bytes:
        without_proof, _, proof = message.decode().rpartition(",p=")
        if _fields(without_proof).get("r") != self._nonce or self.username not in self._passwords:
            raise AuthenticationError
        password = self._passwords[self.username].encode()
        salted = hashlib.pbkdf2_hmac(self._hash, password, self._salt, _ITERATIONS)
        client_key = self._hmac(salted, b"Client Key")
        exchange = ",".join([*self._messages, without_proof]).encode()
        signature = self._hmac(hashlib.new(self._hash, client_key).digest(), exchange)
        expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if not hmac.compare_digest(expected, base64.b64decode(proof)):
            raise AuthenticationError
        return b"v=" + _b64(self._hmac(self._hmac(salted, b"Server Key"), exchange)).encode()

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.new(key, message, self._hash).digest()


def check_plain(message: bytes, passwords: dict[str, str]) -> str:
    """Returns the username of `\\0username\\0password`, if the password is right."""
    _, username, password = message.decode().split("\0")
    if username not in passwords or not hmac.compare_digest(passwords[username].encode(), password.encode()):
        raise AuthenticationError
    return username


def _fields(message: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.split(",") if "=" in part)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
