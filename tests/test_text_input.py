"""How text is read, whatever its encoding, its compression and its line ends."""

import gzip
import io
from collections.abc import Callable

import pytest

from tests.canary import CANARY, raises
from userprofile.text_input import TextInputError, read_lines, read_text

TEXT = "johndoe\r\njürgen 🦊\r\r\n\n\ufeffalice\nwith a \ufeff inside\n last"
LINES = ["johndoe", "jürgen 🦊", "", "", "alice", "with a \ufeff inside", " last"]


class Pipe(io.BytesIO):
    """Hands out a few bytes at a time, as pipes may."""

    step = 1

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(min(self.step, size or self.step))


def in_pieces(data: bytes, step: int) -> Pipe:
    pipe = Pipe(data)
    pipe.step = step
    return pipe


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("step", [1, 3, 65536])
@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]) + bytes(100)],
    ids=["plain", "gzip", "two gzips"],
)
def test_every_encoding_line_end_and_gzip_gives_the_same_lines(
    encoding: str, step: int, pack: Callable[[bytes], bytes]
) -> None:
    assert list(read_lines(in_pieces(pack(TEXT.encode(encoding)), step))) == LINES


def test_what_is_not_utf8_spoils_its_own_line_only() -> None:
    assert list(read_lines(io.BytesIO(b"a\n\xffb\nc"))) == ["a", "\udcffb", "c"]


def test_a_lone_surrogate_in_utf16_spoils_its_own_line_only() -> None:
    data = "a\n".encode("utf-16") + b"\x00\xd8b\0\n\0c\0"
    assert list(read_lines(io.BytesIO(data))) == ["a", "\ud800b", "c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("jü".encode("utf-16")[:-1], "UTF-16, but cut off"),
        ("jü".encode("utf-32")[:-1], "UTF-32, but cut off"),
        (b"PK\x03\x04" + bytes(26) + b"names.txt", "a zip archive"),
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed by zstd: pass the output of `zstd -dc`"),
        (b"\xfd7zXZ\0", "compressed by xz"),
        (b"BZh91AY", "compressed by bzip2"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"a".ljust(257, b"\0") + b"ustar", "a tar archive"),
        (gzip.compress(gzip.compress(b"a")), "compressed by gzip twice"),
        (gzip.compress(CANARY.encode())[:-9], "compressed by gzip, but cut off"),
        (gzip.compress(CANARY.encode()) + b"more", "compressed by gzip, but damaged"),
        (gzip.compress(b"x" * 10_000_000), "not a list of lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_named(data: bytes, message: str) -> None:
    with raises(TextInputError, match=message):
        list(read_lines(io.BytesIO(data)))


def test_what_came_before_the_damage_is_not_lost() -> None:
    lines = read_lines(io.BytesIO(gzip.compress(b"johndoe\nalice\n" * 100_000, mtime=0)[:-500]))
    assert next(lines) == "johndoe"


def test_text_comes_as_soon_as_it_is_there() -> None:
    def arrive() -> str:
        assert not arrived, "read more before it yielded what it had"
        arrived.append(True)
        return "johndoe\n"

    class Terminal(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return arrive().encode()

    arrived: list[bool] = []
    assert next(read_text(Terminal())) == "johndoe\n"
