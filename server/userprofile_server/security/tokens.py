"""Tokens that operators issue, one or several per caller. A file stores only their hashes.

Each line is `NAME sha256:HEX`. Blank lines, and lines that begin with `#`, are ignored. A name may have several lines,
so that a new token can be in use before the old one is deleted.

The hash is SHA-256: a token has 256 random bits and can't be guessed, so a slow password hash would protect nothing.
"""

import errno
import fcntl
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from userprofile.environment import read_text

KIND = "token:"
"""The prefix of principals from tokens."""

PREFIX = "userprofile_"
"""The prefix of tokens, by which secret scanners find published ones."""

_NAME = re.compile("[a-z0-9][a-z0-9._-]{0,62}")
_NAME_IN_WORDS = "lower-case letters, digits, '.', '_' and '-', up to 63, and begins with a letter or digit"
_HASH = re.compile("sha256:([0-9a-f]{64})")
_MOST_BYTES = 4 * 1024 * 1024
_INDEX_BYTES = 8


class TokenNameError(ValueError):
    """Raised when a name isn't valid for a caller."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of all callers."""

    by_hash: dict[bytes, str] = field(repr=False)
    """The caller's name, by the SHA-256 of each token."""
    _by_beginning: dict[bytes, tuple[bytes, str]] = field(init=False, repr=False, compare=False)
    _seen: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Principals by valid tokens seen so far: hashing a token costs a call 8 µs."""

    def __post_init__(self) -> None:
        """Builds the index."""
        index = {digest[:_INDEX_BYTES]: (digest, KIND + name) for digest, name in self.by_hash.items()}
        object.__setattr__(self, "_by_beginning", index)

    def known(self, token: str) -> str | None:
        """Returns `token:NAME` if `token` was found valid before; None for any other."""
        return self._seen.get(token)

    def principal_of(self, token: str) -> str | None:
        """Returns `token:NAME`, or None if the token is unknown."""
        if (principal := self._seen.get(token)) is not None:
            return principal
        digest = sha256(token.encode(errors="replace")).digest()
        # Looked up by a prefix of the hash, then compared in constant time: timing reveals nothing about the rest.
        found = self._by_beginning.get(digest[:_INDEX_BYTES])
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        self._seen[token] = found[1]
        return found[1]


def read_tokens(path: Path) -> Tokens:
    """Reads the file of tokens.

    Raises:
        ValueError: the file can't be read, or a line is wrong. The text is for operators, with the path and the line
            number, and contains nothing of the line, which may be a token by mistake.
    """
    text = read_text(path, "file of tokens", most=_MOST_BYTES)
    if not text.strip():  # more likely a file that is being written than an intended one
        raise ValueError(f"{path} is empty; a file without any tokens needs a comment, a line that begins with #")
    names: dict[bytes, str] = {}
    beginnings: dict[bytes, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *rest = line.split()
        if not _NAME.fullmatch(name):
            raise ValueError(f"{path}, line {number}: a name has {_NAME_IN_WORDS}")
        found = _HASH.fullmatch(rest[0]) if len(rest) == 1 else None
        if found is None:
            raise ValueError(
                f"{path}, line {number}: has to be NAME sha256:HEX, with 64 lower-case hexadecimal digits;"
                " `userprofile-server token new` writes such lines"
            )
        digest = bytes.fromhex(found[1])
        if names.setdefault(digest, name) != name:
            raise ValueError(f"{path}, line {number}: the same token is that of another name above")
        # No accident: a caller who hands in such a hash would take away another one's token.
        if beginnings.setdefault(digest[:_INDEX_BYTES], digest) != digest:
            raise ValueError(f"{path}, line {number}: the hash begins as another one above, so it is made up")
    return Tokens(names)


def new_token(name: str, path: Path, show: Callable[[str], object] = lambda _token: None) -> str:
    """Returns a new token for `name`, and appends its hash to the file at `path`. Creates the file if it is missing.

    `show` gets the token. If it raises, the hash is removed again: nobody would know whose token it is, or have it.

    Raises:
        TokenNameError: `name` isn't valid.
        ValueError: the file can't be written, or isn't a file of tokens.
    """
    if not _NAME.fullmatch(name):
        raise TokenNameError(f"a name has {_NAME_IN_WORDS}")
    token = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{sha256(token.encode()).hexdigest()}\n".encode()
    try:
        _append(path, line, lambda: show(token))
    except OSError as error:
        problem = error.strerror or type(error).__name__
    else:
        return token
    raise ValueError(f"{path} can't be written: {problem}")


def _append(path: Path, line: bytes, then: Callable[[], object]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is a pipe or a device, not a file")
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # excludes another `token new`; closing the file unlocks it
        if size := os.fstat(descriptor).st_size:
            read_tokens(path)
            if os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
        written = os.write(descriptor, line)
        if written < len(line):  # the disk is full
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
        if not os.path.samestat(path.stat(), os.fstat(descriptor)):
            raise ValueError(f"{path} was replaced meanwhile; try again")
        try:
            then()
        except BaseException:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
