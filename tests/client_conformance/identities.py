"""A server that knows its callers, and what they need: each client has to reach it by token and by certificate."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.authority import Authority
from tests.canary import guard
from tests.client_conformance import USERS
from tests.support import ServerProcess, documents_in
from userprofile_server.security.tokens import new_token

_POLICY = {
    "name": "callers",
    "allow_rules": [
        {"name": "all of it", "source": {"principals": ["token:a-caller"]}},
        {"name": "names", "source": {"principals": ["spiffe://example.org/a-caller"]}, "fields": ["full_name"]},
    ],
}


@contextmanager
def serve(folder: Path) -> Iterator[None]:
    """Runs the server over johndoe, and fills `folder`.

    `tls` and `mtls` hold its addresses, for whose certificates `ca.pem` stands. On either, the token in `token` is that
    of a caller who sees all fields; the certificate in `caller.pem`, with its key in `caller.key`, is that of one who
    sees the full name only.
    """
    authority = Authority()
    for name, issued in {
        "server": authority.issue("localhost"),
        "caller": authority.issue("spiffe://example.org/a-caller"),
    }.items():
        guard(issued.key.decode())
        issued.write(folder, name)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "policy.json").write_text(json.dumps(_POLICY))
    (folder / "token").write_text(guard(new_token("a-caller", folder / "tokens")))
    url = f"sqlite:///{folder / 'users.db'}"
    documents_in(url, {"johndoe": USERS["johndoe"]})
    flags = [
        f"--{flag}={folder / file}"
        for flag, file in {
            "tls-certificate": "server.pem",
            "tls-key": "server.key",
            "tls-client-ca": "ca.pem",
            "tokens": "tokens",
            "policy": "policy.json",
        }.items()
    ]
    listen = ["--listen=tls://127.0.0.1:0", "--listen=mtls://127.0.0.1:0"]
    with ServerProcess("", "--store", url, *listen, *flags) as server:
        for line, name in zip(server.address.splitlines(), ("tls", "mtls"), strict=True):
            (folder / name).write_text(f"localhost:{line.rpartition(':')[2]}")
        yield
