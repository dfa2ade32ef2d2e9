"""Errors of a row. An error of the whole file is a `userprofile.text_input.TextInputError`."""


class RowError(Exception):
    """Raised when a row can't be imported. The text says why, and contains no value of the row."""

    def __init__(self, kind: str, detail: str = "") -> None:
        """Rejected rows are counted by `kind`; `detail` is the part that differs from row to row."""
        super().__init__(kind + detail)
        self.kind = kind


def printable(name: str) -> str:
    """Returns a field's name, escaped and shortened for a message."""
    return repr(name[:64])[1:-1]
