"""Makes untrusted text safe for a terminal, a log line or an error."""

from pathlib import Path


def printable(text: str) -> str:
    r"""Returns `text` with escapes (`\n`, `\x1b`, `\u202e`) for characters that could control a terminal or mislead.

    These are control characters, line ends, changes of the writing direction, and invisible characters.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shortened(text: str, limit: int) -> str:
    """Returns at most `limit` characters of `text`, and says how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def is_content(path: Path | str) -> bool:
    """Returns whether `path` is rather the content of a file: it has line ends. Nothing may show it then."""
    return "\n" in str(path) or "\r" in str(path)
