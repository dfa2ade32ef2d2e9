"""What can be wrong with a row. What can be wrong with a whole file is `userprofile.text_input.TextInputError`."""


class RowError(Exception):
    """Raised when a row can't be imported. The text says why and holds no value of the row."""

    def __init__(self, kind: str, detail: str = "") -> None:
        """`kind` is what such rows are counted by; `detail` is what differs from row to row."""
        super().__init__(kind + detail)
        self.kind = kind


def printable(name: str) -> str:
    """Returns a field's name as it can stand in a message."""
    return repr(name[:64])[1:-1]
