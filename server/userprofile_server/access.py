"""Builds authentication and authorization from the settings: certificates, tokens, JWTs and the policy."""

import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userprofile_server.errors import SecurityError
from userprofile_server.rpc.callers import Callers, Kind
from userprofile_server.rpc.decided import METHODS
from userprofile_server.rpc.stages import Stage
from userprofile_server.rpc.stages.authorization import authorization
from userprofile_server.security.certificates import Certificates
from userprofile_server.security.policy import Policy, read_policy
from userprofile_server.security.tokens import read_tokens
from userprofile_server.security.watched import Watcher
from userprofile_server.settings import Settings

if TYPE_CHECKING:  # imported at run time only if needed: it takes time and memory
    from userprofile_server.security.json_web_tokens import JsonWebTokens
_log = logging.getLogger(__name__)


class Access:
    """Call `start` to watch the files and to fetch an issuer's keys."""

    def __init__(
        self, settings: Settings, *, on_read: Callable[[Path, bool], None] = lambda _file, _valid: None
    ) -> None:
        """Reads all files; for `on_read` see `Watcher`.

        Raises:
            SecurityError: a file can't be used.
        """
        self._settings = settings
        self._watcher = Watcher(on_read=on_read)
        self._jwts: JsonWebTokens | None = None
        self.certificates: Certificates | None = None
        """The certificates of listeners with TLS; None without TLS."""
        self.authorize: Stage | None = None
        """The stage that checks the policy; None without a policy: then every caller may do everything."""
        self.share_of: Callable[[Any], Hashable] | None = None
        """See `Callers.share_of`; None without a policy: then each connection counts as a caller."""
        try:
            if settings.tls.certificate is not None:
                self.certificates = Certificates(settings.tls, self._watcher)
            if (path := settings.callers.policy) is not None:
                policy = self._watcher.watch(
                    f"the policy {path}", [path], lambda: read_policy(path), lambda new: _warn_of_doubts(path, new)
                )
                _warn_of_doubts(path, policy.current)
                callers = self._callers()
                self.authorize = authorization(callers.principal_of, lambda: policy.current)
                self.share_of = callers.share_of
        except ValueError as error:
            raise SecurityError(str(error)) from None

    def start(self) -> None:
        """Starts the threads, if any are needed."""
        self._watcher.start()
        if self._jwts is not None:
            self._jwts.start()

    def files(self) -> list[tuple[Path, bool]]:
        """Returns the files that are watched, and whether each is valid."""
        return self._watcher.valid()

    def has_keys(self) -> bool:
        """Returns whether JWTs can be verified, if they are to be: the issuer's keys are here."""
        return self._jwts is None or self._jwts.has_keys()

    def stop(self) -> None:
        """Stops the threads."""
        self._watcher.stop()
        if self._jwts is not None:
            self._jwts.stop()

    def _callers(self) -> Callers:
        kinds: dict[str, Kind] = {}
        if (path := self._settings.callers.tokens) is not None:
            tokens = self._watcher.watch(f"the tokens {path}", [path], lambda: read_tokens(path))
            kinds["tokens"] = Kind(
                lambda token: tokens.current.principal_of(token), lambda token: tokens.current.known(token)
            )
        if self._settings.jwt.keys is not None:
            from userprofile_server.security.json_web_tokens import JsonWebTokens

            self._jwts = JsonWebTokens(self._settings.jwt, self._watcher)
            kinds["jwts"] = Kind(self._jwts.verify, self._jwts.known)
        mutual = any(listener.security == "mtls" for listener in self._settings.server.listeners)
        return Callers(**kinds, certificates=mutual)


def _warn_of_doubts(path: Path, policy: Policy) -> None:
    """Logs probable mistakes in the policy: a deny rule with a typo denies nothing."""
    for doubt in policy.doubts(METHODS):
        _log.warning("%s: %s", path, doubt)
