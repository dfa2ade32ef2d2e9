"""Inflating what SDKs have compressed with Snappy.

https://github.com/google/snappy/blob/main/format_description.txt
"""


def inflated_size(data: bytes) -> int:
    """Returns the size that the data says it has. Raises ValueError if it doesn't say."""
    return _size(data)[0]


def inflate(data: bytes) -> bytes:
    """Returns the data as it was. Raises ValueError if this isn't Snappy's format."""
    size, position = _size(data)
    out = bytearray()
    try:
        while position < len(data):
            tag = data[position]
            kind, number = tag & 3, tag >> 2
            position += 1
            if kind == 0:
                if number >= 60:
                    count = number - 59
                    number = int.from_bytes(data[position : position + count], "little")
                    position += count
                out += data[position : position + number + 1]
                position += number + 1
                continue
            if kind == 1:
                length, offset = (number & 7) + 4, (number >> 3) << 8 | data[position]
                position += 1
            else:
                width = 2 if kind == 2 else 4
                length, offset = number + 1, int.from_bytes(data[position : position + width], "little")
                position += width
            if not 0 < offset <= len(out):
                raise ValueError("a copy of what isn't there")
            start = len(out) - offset
            repeated = out[start : start + length]
            while len(repeated) < length:  # it reaches into what it is about to write
                repeated += repeated[: length - len(repeated)]
            out += repeated
    except IndexError:
        raise ValueError("cut off") from None
    if position != len(data) or len(out) != size:
        raise ValueError("not the size that it says")
    return bytes(out)


def _size(data: bytes) -> tuple[int, int]:
    size = 0
    for index, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return size, index + 1
    raise ValueError("no size")
