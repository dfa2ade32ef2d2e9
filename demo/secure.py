"""Makes what `make run-secure` serves with: an authority, certificates for the server and two callers, and a policy.

For trying it on one machine. In earnest, certificates come from an authority that keeps its key elsewhere.
"""

import ipaddress
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAYS = 30
SERVER = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
BILLING, GREETER = "spiffe://example.org/billing", "spiffe://example.org/greeter"
POLICY = {
    "name": "demo",
    "allow_rules": [
        {"name": "billing sees everything", "source": {"principals": [BILLING]}},
        {
            "name": "the greeter sees names, and no addresses",
            "source": {"principals": [GREETER]},
            "request": {"paths": ["/userprofile.v1.UserProfileService/*"]},
            "fields": ["full_name"],
        },
    ],
}

Key = ec.EllipticCurvePrivateKey


def main(folder: Path) -> None:
    """Writes all files into `folder`, anew."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "userprofile demo CA")])
    ca = certificate(ca_name, ca_key.public_key(), ca_key, ca_name, x509.BasicConstraints(ca=True, path_length=0))
    (folder / "ca.pem").write_bytes(ca)
    for name, alternatives in {
        "server": SERVER,
        "billing": (x509.UniformResourceIdentifier(BILLING),),
        "greeter": (x509.UniformResourceIdentifier(GREETER),),
    }.items():
        key = ec.generate_private_key(ec.SECP256R1())
        own = certificate(x509.Name([]), key.public_key(), ca_key, ca_name, x509.SubjectAlternativeName(alternatives))
        (folder / f"{name}.pem").write_bytes(own)
        with os.fdopen(os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            pem, form, plain = (
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            file.write(key.private_bytes(pem, form, plain))
    (folder / "policy.json").write_text(json.dumps(POLICY, indent=2) + "\n")


def certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    ca_key: Key,
    ca_name: x509.Name,
    extension: x509.BasicConstraints | x509.SubjectAlternativeName,
) -> bytes:
    """Returns a certificate with this critical extension, in PEM."""
    now = datetime.now(UTC)
    serial, begin, end = x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(days=DAYS)
    builder = x509.CertificateBuilder(ca_name, subject, key, serial, begin, end).add_extension(extension, critical=True)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
