"""An issuer of JSON Web Tokens, with keys of all kinds and a real HTTPS server that has them."""

import http.server
import json
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import jwt
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import AllowedPrivateKeys

from tests.canary import guard
from tests.support import WAIT

NOTHING: Mapping[str, object] = MappingProxyType({})
ISSUER, AUDIENCE = "https://issuer.example", "userprofile"


class SigningKey:
    """A private key, and what the issuer publishes of it."""

    def __init__(self, algorithm: str, key_id: str | None = "first", key: AllowedPrivateKeys | None = None) -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self.private: Any = key or _generate(algorithm)
        pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        guard(pem.decode())

    def public(self, **more: object) -> dict[str, Any]:
        """The JSON Web Key that anybody may have."""
        key = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        return {**key, **({} if self.key_id is None else {"kid": self.key_id}), **more}

    def token(
        self, headers: Mapping[str, object] = NOTHING, claims: Mapping[str, object] = NOTHING, **more_claims: object
    ) -> str:
        """A token that is valid but for what is given. A claim that is None is left out."""
        valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "web", "exp": time.time() + 3600}
        all_claims = {**valid, **claims, **more_claims}
        present = {name: value for name, value in all_claims.items() if value is not None}
        key_id = {} if self.key_id is None else {"kid": self.key_id}
        return guard(jwt.encode(present, self.private, self.algorithm, {**key_id, **headers}))


def _generate(algorithm: str) -> AllowedPrivateKeys:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm])
    return rsa.generate_private_key(65537, 2048)


def key_set(*keys: dict[str, Any]) -> bytes:
    """The document that has these keys (RFC 7517, 5)."""
    return json.dumps({"keys": keys}).encode()


def _issued() -> tuple[bytes, bytes, bytes]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    return authority.cert_pem.bytes(), issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


class IssuerServer:
    """Serves `content`, on a free port of this machine, with a certificate of an authority of its own."""

    def __init__(
        self,
        folder: Path,
        content: bytes = b"",
        *,
        tls: bool = True,
        issued: tuple[bytes, bytes, bytes] | None = None,
    ) -> None:
        """`issued` are authority, certificate and key, if they aren't to be the usual ones."""
        self.content = content
        self.status = 200
        self.headers: dict[str, str] = {}
        self.drips = False
        """Whether responses come byte by byte, for as long as the client waits."""
        self.fetches = 0
        self.open = threading.Event()
        """Responses wait for it."""
        self.open.set()
        self.authorities = folder / "authorities.pem"
        authority, certificate, key = issued or _issued()
        self.authorities.write_bytes(authority)
        (folder / "issuer.pem").write_bytes(guard(key.decode()).encode() + certificate)
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.open.wait(WAIT)
                headers = {"Content-Length": str(len(issuer.content)), **issuer.headers}
                self.send_response(issuer.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    while issuer.drips:
                        self.wfile.write(b" ")
                        time.sleep(0.01)
                    self.wfile.write(issuer.content)
                except OSError:  # the client has had enough
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "issuer.pem")
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/keys?version=1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
