"""The server's certificate and the CAs of its clients, kept up to date with their files."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from userprofile.certificates import Authorities, Identity, read_authorities, read_identity, time_left
from userprofile_server.security.settings import TlsSettings
from userprofile_server.security.watched import Watcher

_log = logging.getLogger(__name__)

_WARN_BEFORE = timedelta(days=14)
_REMIND_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Material:
    """What a TLS handshake needs."""

    identity: Identity
    """The server's certificate and key."""
    authorities: Authorities | None
    """The CAs of the clients; None if no listener asks for client certificates."""


class Certificates:
    """Rereads the files when they change, and logs how long their certificates are valid.

    If the new content can't be used, the previous one stays in use.
    """

    def __init__(self, settings: TlsSettings, watcher: Watcher) -> None:
        """Reads the files. `settings` must name `certificate` and `key`, and `client_ca` for mutual TLS.

        Raises:
            ValueError: a file can't be used. The text is for operators and names the path.
        """
        assert settings.certificate is not None
        assert settings.key is not None
        certificate, key, client_ca = settings.certificate, settings.key, settings.client_ca
        self._certificate, self._client_ca = certificate, client_ca
        self._identity = watcher.watch(
            f"the certificate {certificate}",
            [certificate, key],
            lambda: read_identity(certificate, key, role="server"),
            self._renew,
        )
        self._authorities = None
        if client_ca is not None:
            self._authorities = watcher.watch(
                f"the clients' authorities {client_ca}", [client_ca], lambda: read_authorities(client_ca), self._renew
            )
        self.current: Material
        """The current material, replaced as a whole when a file has changed."""
        self._renew()
        watcher.each_time(self._remind)

    def expiries(self) -> list[tuple[Path, datetime]]:
        """Returns each file with the time at which it expires."""
        expiries = [(self._certificate, self.current.identity.not_after)]
        if self._client_ca is not None and self.current.authorities is not None:
            expiries.append((self._client_ca, self.current.authorities.not_after))
        return expiries

    def lines(self) -> list[str]:
        """Returns a line about each file, with how long it is valid."""
        return [_line(file, not_after) for file, not_after in self.expiries()]

    def _renew(self, _changed: object = None) -> None:
        self.current = Material(
            self._identity.current, None if self._authorities is None else self._authorities.current
        )
        self._report(remind=False)

    def _remind(self) -> None:
        if time.monotonic() - self._reported_at >= _REMIND_SECONDS:
            self._report(remind=True)

    def _report(self, *, remind: bool) -> None:
        """Logs how long each file is valid, as a warning if it expires soon. With `remind`, logs only the warnings."""
        self._reported_at = time.monotonic()
        for file, not_after in self.expiries():
            if not_after - datetime.now(UTC) < _WARN_BEFORE:
                _log.warning("%s", _line(file, not_after))
            elif not remind:
                _log.info("%s", _line(file, not_after))


def _line(path: Path, not_after: datetime) -> str:
    return f"{path}: {time_left(not_after)}"
