"""Text input of commands: UTF-8, UTF-16 or UTF-32, gzip or not, with any line ends.

Nothing is guessed. An encoding is recognized by its byte order mark, or by the positions of zero bytes in text that
begins with ASCII; any other kind of file by its magic number. The server's `import` uses this module too.
"""

import codecs
import itertools
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

BYTE_ORDER_MARK = "\ufeff"

_PIECE_BYTES = 64 * 1024
_MAX_LINE_CHARACTERS = 1024 * 1024

# UTF-32 comes first, because its mark begins with UTF-16's.
_MARKS: list[tuple[bytes, str]] = [
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]

# Which of the first four bytes are zero, for text that begins with ASCII and has no mark (RFC 4627, section 3).
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}

_GZIP = b"\x1f\x8b"

_MAGIC_NUMBERS: list[tuple[bytes, str]] = [
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: pass the output of `zstd -dc`"),
    (b"\xfd7zXZ\0", "compressed by xz: pass the output of `xz -dc`"),
    (b"BZh", "compressed by bzip2: pass the output of `bzip2 -dc`"),
    (b"\x04\x22\x4d\x18", "compressed by lz4: pass the output of `lz4 -dc`"),
    (b"\x1f\x9d", "compressed by compress: pass the output of `gzip -dc`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook or Office file: save it as text first"),
    (b"SQLite format 3\0", "an SQLite database, not text"),
    (b"PAR1", "a Parquet file, not text"),
    (b"Obj\x01", "an Avro file, not text"),
    (b"%PDF-", "a PDF, not text"),
]


class TextInputError(Exception):
    """Raised for input that isn't text. The message completes "the file is …" and has no content of the file."""


def read_text(file: BinaryIO) -> Iterator[str]:
    """Yields the text of `file` piece by piece, as soon as it arrives, in bounded memory.

    Reads UTF-8, UTF-16 and UTF-32, with or without a byte order mark, and gzip. Bytes that aren't UTF-8 become
    surrogates (PEP 383), so that they invalidate one line, not the file. No piece ends between a CR and its LF.

    Raises:
        TextInputError: the file isn't text, is truncated, or is damaged.
        OSError: the file can't be read.
    """
    head, pieces = _peek(iter(lambda: _read(file), b""))
    if head.startswith(_GZIP):
        head, pieces = _peek(_gunzip(pieces))
        if head.startswith(_GZIP):
            raise TextInputError("compressed by gzip twice: pass the output of `gzip -dc`")
    if (kind := _kind_of(head)) is not None:
        raise TextInputError(kind)
    held = ""
    for text in _decode(pieces, _encoding_of(head)):
        text = held + text
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r")
    yield held


def read_lines(file: BinaryIO) -> Iterator[str]:
    """Yields the lines of `file`, also blank ones, without line ends (LF, CRLF, CR) and leading byte order marks.

    Raises the same errors as `read_text`. A file with a line of more than 2**20 characters counts as not text.
    """
    line = ""
    for piece in read_text(file):
        first, *others = piece.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        line += first
        for other in others:
            yield line.removeprefix(BYTE_ORDER_MARK)
            line = other
        if len(line) > _MAX_LINE_CHARACTERS:
            raise TextInputError("not a list of lines: one line has more than a million characters")
    if line:
        yield line.removeprefix(BYTE_ORDER_MARK)


def _read(file: Any) -> bytes:
    """Returns the available bytes, without waiting for a full piece: somebody may be typing into a pipe."""
    data: bytes = file.read1(_PIECE_BYTES)
    return data


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns enough leading bytes to recognize the file, and all pieces from the beginning."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= 4 or (head.endswith(b"\n") and head.isascii() and 0 not in head):
            break
    return head, itertools.chain([head], pieces)


def _kind_of(head: bytes) -> str | None:
    """Returns the kind of a file that begins with `head`, None for text."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"[Content_Types].xml" in head or b"xl/" in head:
            return "an Excel workbook or another Office file (.xlsx, .docx): save it as text first"
        return "a zip archive: unpack it first"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return next((kind for magic, kind in _MAGIC_NUMBERS if head.startswith(magic)), None)


def _encoding_of(head: bytes) -> str:
    marked = (encoding for mark, encoding in _MARKS if head.startswith(mark))
    return next(marked, _ZEROS.get(tuple(byte == 0 for byte in head[:4]), "utf-8"))


def _decode(pieces: Iterator[bytes], encoding: str) -> Iterator[str]:
    # A lone surrogate in UTF-16 is kept, so that it invalidates one line, not the file.
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for data in itertools.chain(pieces, [None]):
        try:
            text = decoder.decode(data or b"", final=data is None)
        except UnicodeDecodeError:
            break
        yield text
    else:
        return
    # Raised outside the except block, because Python's error contains the bytes.
    raise TextInputError(f"{encoding[:6].upper()}, but cut off within a character or damaged")


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpacks one or several concatenated gzip files. Ignores zeros at the end (RFC 1952; padding of tapes)."""
    unpacker = zlib.decompressobj(wbits=31)
    for piece in pieces:
        data = piece
        while data:
            if unpacker.eof:
                if not (data := data.lstrip(b"\0")):
                    break
                unpacker = zlib.decompressobj(wbits=31)
            try:
                text = unpacker.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise TextInputError("compressed by gzip, but damaged") from None
            if text:
                yield text
            data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if not unpacker.eof:
        raise TextInputError("compressed by gzip, but cut off")
