"""Converts the server's certificate and its clients' CAs to gRPC's server credentials."""

import time

import grpc

from userprofile_server.security.certificates import Certificates, Material

_RENEW_SECONDS = 120.0
"""A client that resumes a TLS session doesn't present its certificate again, although it may have expired. A new
configuration has new session ticket keys, so every client presents its certificate again after this long at most."""


def server_credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    """Returns the credentials of a listener. New connections use the current material of `certificates`.

    With `mutual`, clients must present a certificate issued by one of the authorities.
    """
    shown = certificates.current
    renewed_at = time.monotonic()

    def latest() -> grpc.ServerCertificateConfiguration | None:
        # Must be fast: handshakes call this one after the other, and calls on other connections wait meanwhile.
        nonlocal shown, renewed_at
        now = time.monotonic()
        if certificates.current is shown and now - renewed_at < _RENEW_SECONDS:
            return None
        shown, renewed_at = certificates.current, now
        return _configuration(shown, mutual)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown, mutual),
        latest,  # type: ignore[arg-type]  # returns None if nothing has changed
        require_client_authentication=mutual,
    )


def _configuration(material: Material, mutual: bool) -> grpc.ServerCertificateConfiguration:
    pair = (material.identity.key, material.identity.certificate)
    # Without an authority gRPC would start and refuse every client; the settings require one.
    authorities = material.authorities.pem if mutual and material.authorities is not None else None
    return grpc.ssl_server_certificate_configuration([pair], authorities)
