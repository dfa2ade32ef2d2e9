"""A token from a file that is renewed, like Kubernetes' service account tokens."""

from pathlib import Path
from typing import TypeVar

from userprofile.calls import check_token
from userprofile.changing_files import ChangingFiles, NowAndThen
from userprofile.environment import read_secret

T = TypeVar("T")


class TokenFile:
    """Returns the token in a file, or the last valid one while the file is missing or invalid."""

    def __init__(self, path: Path | str) -> None:
        """Reads the file. Raises ValueError if it has no valid token. The text has no content of the file."""
        path = Path(path)

        def read() -> str:
            token = read_secret(path)
            try:
                check_token(token)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            return token

        self._token = ChangingFiles([path], read)
        self._look = NowAndThen()

    def __call__(self) -> str:
        """Returns the token."""
        if self._look.is_due():
            self._token.update()
        return self._token.current


def token_or_file(token: T, path: Path | str | None) -> T | TokenFile:
    """Returns the client's source of tokens. Raises ValueError if both are given, or the file is invalid."""
    if path is None:
        return token
    if token is not None:
        raise ValueError("pass `token` or `token_file`, not both")
    return TokenFile(path)
