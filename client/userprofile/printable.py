"""Text that others have written, made fit for a terminal, a log line or an error."""


def printable(text: str) -> str:
    r"""Returns `text` with everything escaped (`\n`, `\x1b`, `\u202e`) that would steer or deceive who reads it.

    That are control characters, line ends, what changes the direction of writing, and what can't be seen.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shortened(text: str, limit: int) -> str:
    """Returns at most `limit` characters of `text`, and how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"
