"""Protocol Buffers' wire format without a schema compiler; read lazily, and with every bound checked.

Source: the encoding documentation of Protocol Buffers. Only the fields that a caller asks for are decoded;
skipping a field costs nothing, whatever its size.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_VARINT_BYTES: Final = 10
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
CONTINUED: Final = 0x80
"""The bit of a byte of a number that says that there are more."""


class Malformed(ValueError):
    """The bytes are no valid message; the caller knows, and adds, which file they are of."""


class Field(NamedTuple):
    """One field: `value` for numbers, `data` for strings, bytes and messages.

    A tuple, since a graph has millions of them, and a dataclass takes twice as long to make.
    """

    number: int
    kind: int
    value: int
    data: memoryview

    @property
    def signed(self) -> int:
        """The value of an int32 or int64 field."""
        return self.value - (1 << 64) if self.value >= 1 << 63 else self.value

    def text(self) -> str:
        """Return a string field.

        Raises:
            Malformed: the field is not UTF-8.
        """
        try:
            return bytes(self.message()).decode()
        except UnicodeDecodeError:
            raise Malformed("a string that is not UTF-8") from None

    def message(self) -> memoryview:
        """Return the bytes of a field that must be a string or a message.

        Raises:
            Malformed: the field is a number.
        """
        if self.kind != BYTES:
            raise Malformed(f"field {self.number} is a number where a message belongs")
        return self.data


_NOTHING: Final = memoryview(b"")
_LENGTHS: Final = {VARINT: 0, FIXED64: 8, BYTES: 0, FIXED32: 4}
"""The kinds that there are, and how many bytes each value has, where that is fixed."""


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a varint at `position` and the position behind it.

    Raises:
        Malformed: the varint does not end, or has more than 64 bits.
    """
    value = shift = 0
    for index in range(position, min(position + MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < CONTINUED:
            if value >= 1 << 64:
                break
            return value, index + 1
        shift += 7
    raise Malformed(f"no number at byte {position}")


def fields(data: memoryview) -> Iterator[Field]:
    """Yield the fields of one message.

    Raises:
        Malformed: the message does not end where its fields do.
    """
    position = 0
    end = len(data)
    while position < end:
        if (key := data[position]) < CONTINUED:  # as nearly all are: a call would cost more than the rest
            position += 1
        else:
            key, position = varint(data, position)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in _LENGTHS:
            raise Malformed(f"{f'wire type {kind}' if number else 'field number 0'} before byte {position}")
        if kind == VARINT:
            value, position = varint(data, position)
            yield Field(number, kind, value, _NOTHING)
            continue
        if kind != BYTES:
            length = _LENGTHS[kind]
        elif position < end and (length := data[position]) < CONTINUED:
            position += 1
        else:
            length, position = varint(data, position)
        if length > end - position:
            raise Malformed(
                f"field {number} at byte {position} has {length} bytes, {end - position} are left"
            )
        piece = data[position : position + length]
        position += length
        number_value = 0 if kind == BYTES else int.from_bytes(piece, "little")
        yield Field(number, kind, number_value, piece)


def encoded(number: int, value: int | bytes) -> bytes:
    """Return a field: a number, or the bytes of a string or message."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 (the continuation bit)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
