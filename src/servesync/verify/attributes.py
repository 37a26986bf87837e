"""What the attributes of a node hold: names of functions, and strings wherever they may stand.

Field numbers: tensorflow/core/framework/{attr_value,tensor,tensor_shape}.proto.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from servesync.verify.parse_budget import Reader
from servesync.verify.wire import varint

STRING_TENSOR: Final = 7
TOO_MANY: Final = 1 << 40

Attribute: TypeAlias = tuple[bytes, memoryview]
"""The name of an attribute, and its AttrValue."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What an attribute points to: a function by name, or bytes that may be anything."""

    is_function: bool
    data: memoryview
    is_called: bool = False
    """The function is the attribute `f` itself, which call operations give their inputs to."""


def read_entry(reader: Reader, entry: memoryview) -> list[Attribute]:
    """Return the values of an entry of a map; more than one only if they are to be merged."""
    key = b""
    values = []
    for item in reader.fields(entry):
        if item.number == 1:
            key = bytes(item.message())
        elif item.number == 2:  # noqa: PLR2004
            values.append(item.message())
    return [(key, value) for value in values]


def text_of(reader: Reader, value: memoryview) -> bytes:
    """Return an AttrValue that is a string; the name in angle brackets of one that a caller will fill in.

    Raises:
        Malformed: it is no AttrValue.
    """
    text = b""
    for item in reader.fields(value):
        if item.number == 2:  # noqa: PLR2004
            text = bytes(item.message())
        elif item.number == 9:  # noqa: PLR2004
            text = b"<" + bytes(item.message()) + b">"
    return text


def references(reader: Reader, attributes: Iterable[Attribute]) -> Iterator[Reference]:
    """Yield every function that the attributes name, and every string in them.

    Raises:
        Malformed: an attribute is none.
    """
    pending = [(value, False, key == b"f") for key, value in attributes]
    while pending:
        value, is_list, is_called = pending.pop()
        for item in reader.fields(value):
            number = item.number
            if number == 1 and not is_list:
                pending.append((item.message(), True, False))
            elif number == 2:  # noqa: PLR2004
                yield Reference(is_function=False, data=item.message())
            elif number == 8:  # noqa: PLR2004
                for text in _strings(reader, item.message()):
                    yield Reference(is_function=False, data=text)
            elif number == (9 if is_list else 10):
                name, inner = _function(reader, item.message())
                yield Reference(is_function=True, data=name, is_called=is_called)
                pending += [(attribute, False, False) for attribute in inner]


def _function(reader: Reader, data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """Return the name of a NameAttrList and its attributes."""
    name = memoryview(b"")
    attributes: list[memoryview] = []
    for item in reader.fields(data):
        if item.number == 1:
            name = item.message()
        elif item.number == 2:  # noqa: PLR2004
            attributes += [value for _, value in read_entry(reader, item.message())]
    return name, attributes


def _strings(reader: Reader, tensor: memoryview) -> Iterator[memoryview]:
    """Yield the strings of a TensorProto, and of the tensors inside of its variants."""
    pending = [tensor]
    while pending:
        message = pending.pop()
        for part in reader.fields(message):
            if part.number == 8:  # noqa: PLR2004
                yield part.message()
            elif part.number == 15:  # noqa: PLR2004 (a variant: its metadata, and tensors)
                for item in reader.fields(part.message()):
                    if item.number == 2:  # noqa: PLR2004
                        yield item.message()
                    elif item.number == 3:  # noqa: PLR2004
                        pending.append(item.message())
        yield from _packed_strings(reader, message)


def _packed_strings(reader: Reader, tensor: memoryview) -> Iterator[memoryview]:
    """Yield the strings in the `tensor_content` of a tensor: all lengths come first, then the bytes."""
    dtype = 0
    elements = 1
    content = memoryview(b"")
    for part in reader.fields(tensor):
        if part.number == 1:
            dtype = part.value
        elif part.number == 2:  # noqa: PLR2004
            elements = _elements(reader, part.message())
        elif part.number == 4:  # noqa: PLR2004
            content = part.message()
    if dtype != STRING_TENSOR or elements > len(content):
        return
    reader.spend(2 * elements)
    start = position = 0
    for _ in range(elements):
        start = varint(content, start)[1]
    for _ in range(elements):
        length, position = varint(content, position)
        yield content[start : start + length]
        start += length


def _elements(reader: Reader, shape: memoryview) -> int:
    """Return how many elements a TensorShapeProto has; no more than can be told from too many."""
    elements = 1
    for item in reader.fields(shape):
        if item.number == 2:  # noqa: PLR2004
            size = next((part.value for part in reader.fields(item.message()) if part.number == 1), 0)
            elements = min(elements * size, TOO_MANY)
    return elements
