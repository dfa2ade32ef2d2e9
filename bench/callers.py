"""The cost of authentication and authorization: TLS, client certificates, tokens and the policy, beside plaintext."""

import json
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench.contenders import OURS, QUIET, Contender
from bench.load import Load
from tests.authority import Authority
from userprofile_server.security.tokens import new_token

PLAINTEXT = "plaintext, no policy"

_POLICY = {
    "name": "the benchmark's",
    "allow_rules": [
        {"name": "others", "source": {"principals": [f"token:other{number}" for number in range(20)]}},
        {"name": "everybody known", "source": {"principals": ["*"]}, "fields": ["email", "full_name", "disabled"]},
    ],
}


def contenders(folder: Path, load: Load) -> dict[Contender, Load]:
    """Writes certificates, tokens and a policy into `folder`. Returns the servers, each with its load."""
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    authority.issue("localhost").write(folder, "server")
    authority.issue("spiffe://example.org/a-caller").write(folder, "caller")
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "policy.json").write_text(json.dumps(_POLICY))
    token = new_token("a-caller", folder / "tokens")
    claims = {"iss": "an issuer", "aud": "userprofile", "sub": "a-caller", "exp": time.time() + 86_400}
    signed = jwt.encode(claims, key, "ES256", {"kid": "first"})
    public = jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "first"}]}))

    policy = "--policy", folder / "policy.json"
    tokens = "--tokens", folder / "tokens"
    jwts = "--jwt-keys", folder / "keys.json", "--jwt-issuer", "an issuer", "--jwt-audience", "userprofile"
    pair = "--tls-certificate", folder / "server.pem", "--tls-key", folder / "server.key"
    plain, tls, mtls = (("--listen", f"{scheme}127.0.0.1:0") for scheme in ("", "tls://", "mtls://"))
    trust = ("--cacert", str(folder / "ca.pem"), "--cname", "localhost")
    own = ("--cert", str(folder / "caller.pem"), "--key", str(folder / "caller.key"))

    def server(name: str, *flags: str | Path) -> Contender:
        return Contender(name=name, command=(OURS, "serve", *flags, *QUIET), store="sqlite")

    def caller(*options: str, sends: str | None = None) -> Load:
        metadata = () if sends is None else ("--metadata", json.dumps({"authorization": f"Bearer {sends}"}))
        return Load(seconds=load.seconds, options=(*(options or ("--insecure",)), *metadata))

    return {
        server(PLAINTEXT, *plain): caller(),
        server("a token that nobody looks at", *plain): caller(sends=token),
        server("token, policy", *plain, *tokens, *policy): caller(sends=token),
        server("JWT, policy", *plain, *jwts, *policy): caller(sends=signed),
        server("TLS", *tls, *pair): caller(*trust),
        server("TLS, token, policy", *tls, *pair, *tokens, *policy): caller(*trust, sends=token),
        server("mTLS, policy", *mtls, *pair, "--tls-client-ca", folder / "ca.pem", *policy): caller(*trust, *own),
    }
