"""Usernames that people can't tell apart, among those of one import."""

import unicodedata

_MAX_NAMES = 500_000
"""How many names are remembered: some 60 MB."""

# Invisible, though not of the category Cf: fillers, joiners, variation selectors.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


class Lookalikes:
    """Remembers names, as hashes, and tells which look like an earlier one and yet differ."""

    def __init__(self) -> None:
        """Knows no name yet."""
        self.full = False
        """Whether there were more names than are remembered."""
        self._seen: dict[int, int] = {}

    def line_of_lookalike(self, username: str, line: int) -> int | None:
        """Returns the line of an earlier name that differs but looks the same; remembers this one."""
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
    """Returns the same for names that look the same: NFKC, no case, nothing invisible, spaces only between words."""
    if username.isascii():
        return " ".join(username.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    visible = (letter for letter in folded if letter not in _INVISIBLE and unicodedata.category(letter) != "Cf")
    return " ".join("".join(visible).split())
