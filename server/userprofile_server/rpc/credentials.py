"""Converts the server's certificate and its clients' CAs to gRPC's server credentials."""

import time

import grpc

from userprofile_server.security.certificates import Certificates, Material

_RENEW_SECONDS = 3600.0
"""A client that resumes a TLS session doesn't present its certificates again, although an authority of them may have
expired (its own certificate's expiry is checked at each call, in callers.py). A new configuration has new session
ticket keys, so every client presents them again after this long at most."""

_NAPS, _NAP_SECONDS = 20, 0.01


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
        _let_handshakes_begin()
        shown, renewed_at = certificates.current, now  # another file may have changed meanwhile
        return _configuration(shown, mutual)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown, mutual),
        latest,  # type: ignore[arg-type]  # returns None if nothing has changed
        require_client_authentication=mutual,
    )


def _let_handshakes_begin() -> None:
    """Waits until no handshake that has asked for the configuration before is about to use it.

    gRPC frees the replaced configuration even if another thread, which has just been told to keep it, is creating a
    handshaker with it, and the process crashes (https://github.com/grpc/grpc/issues/36693). That takes a few dozen
    microseconds, and no handshake begins meanwhile, since gRPC asks for the configuration under a lock. Several naps,
    because a thread that waits for a core gets one in the course of them, however busy the machine is.
    """
    for _ in range(_NAPS):
        time.sleep(_NAP_SECONDS)


def _configuration(material: Material, mutual: bool) -> grpc.ServerCertificateConfiguration:
    pair = (material.identity.key, material.identity.certificate)
    # Without an authority gRPC would start and refuse every client; the settings require one.
    authorities = material.authorities.pem if mutual and material.authorities is not None else None
    return grpc.ssl_server_certificate_configuration([pair], authorities)
