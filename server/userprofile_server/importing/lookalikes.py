"""Finds usernames within one import that look the same to people."""

import unicodedata

_MAX_NAMES = 500_000
"""The maximum number of usernames that are remembered, in about 60 MB."""

# Invisible, but not in the category Cf: fillers, joiners, variation selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


class Lookalikes:
    """Remembers hashes of usernames, and finds those that look like an earlier one but differ."""

    def __init__(self) -> None:
        """Starts without usernames."""
        self.full = False
        """Whether there were more usernames than can be remembered."""
        self._seen: dict[int, int] = {}

    def line_of_lookalike(self, username: str, line: int) -> int | None:
        """Returns the line of an earlier username that looks the same but differs. Remembers this one."""
        looks = hash(_skeleton(username))
        itself = hash(username) & 0xFFFFFFFF
        earlier = self._seen.get(looks)
        if earlier is None:
            if len(self._seen) < _MAX_NAMES:
                self._seen[looks] = line << 32 | itself
            else:
                self.full = True
            return None
        return earlier >> 32 if earlier & 0xFFFFFFFF != itself else None


def _skeleton(username: str) -> str:
    """Returns the same string for usernames that look the same: NFKC, casefolded, stripped, nothing invisible."""
    if username.isascii():
        return " ".join(username.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    visible = (letter for letter in folded if letter not in _INVISIBLE and unicodedata.category(letter) != "Cf")
    return " ".join("".join(visible).split())
