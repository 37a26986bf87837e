"""Reads the attributes of a node: names of functions, and strings at any depth."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from servesync.verify.parse_budget import Reader
from servesync.verify.proto import (
    AttrValue,
    Dim,
    ListValue,
    MapEntry,
    NameAttrList,
    TensorProto,
    TensorShapeProto,
    VariantTensorDataProto,
)
from servesync.wire import varint

STRING_TENSOR: Final = 7
TOO_MANY: Final = 1 << 40

Attribute: TypeAlias = tuple[bytes, memoryview]
"""The name of an attribute, and its AttrValue."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What an attribute refers to: a function by its name, or a string that may hold anything."""

    is_function: bool
    data: memoryview
    is_called: bool = False
    """The attribute is called `f`: a call operation passes its inputs to this function."""


def read_entry(reader: Reader, entry: memoryview) -> list[Attribute]:
    """Return the key and value of a map's entry; several if it repeats its value, to be merged."""
    key = b""
    values = []
    for field in reader.fields(entry):
        if field.number == MapEntry.KEY:
            key = bytes(field.message())
        elif field.number == MapEntry.VALUE:
            values.append(field.message())
    return [(key, value) for value in values]


def text_of(reader: Reader, value: memoryview) -> bytes:
    """Return the string in an AttrValue; for a placeholder that a caller fills in, its name as `<name>`.

    Raises:
        Malformed: the bytes are no AttrValue.
    """
    text = b""
    for field in reader.fields(value):
        if field.number == AttrValue.S:
            text = bytes(field.message())
        elif field.number == AttrValue.PLACEHOLDER:
            text = b"<" + bytes(field.message()) + b">"
    return text


def references(reader: Reader, attributes: Iterable[Attribute]) -> Iterator[Reference]:
    """Yield every function that the attributes name, and every string in them.

    Raises:
        Malformed: an attribute is damaged.
    """
    pending = [(value, False, key == b"f") for key, value in attributes]
    while pending:
        value, is_list, is_called = pending.pop()
        for field in reader.fields(value):
            number = field.number
            if number == AttrValue.LIST and not is_list:
                pending.append((field.message(), True, False))
            elif number == AttrValue.S:
                yield Reference(is_function=False, data=field.message())
            elif number == AttrValue.TENSOR:
                for text in _strings(reader, field.message()):
                    yield Reference(is_function=False, data=text)
            elif number == (ListValue.FUNC if is_list else AttrValue.FUNC):
                name, inner = _function(reader, field.message())
                yield Reference(is_function=True, data=name, is_called=is_called)
                pending += [(attribute, False, False) for attribute in inner]


def _function(reader: Reader, data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """Return the name of a NameAttrList and its attributes."""
    name = memoryview(b"")
    attributes: list[memoryview] = []
    for field in reader.fields(data):
        if field.number == NameAttrList.NAME:
            name = field.message()
        elif field.number == NameAttrList.ATTR:
            attributes += [value for _, value in read_entry(reader, field.message())]
    return name, attributes


def _strings(reader: Reader, tensor: memoryview) -> Iterator[memoryview]:
    """Yield the strings of a TensorProto, and of the tensors inside of its variants."""
    pending = [tensor]
    while pending:
        message = pending.pop()
        for field in reader.fields(message):
            if field.number == TensorProto.STRING_VAL:
                yield field.message()
            elif field.number == TensorProto.VARIANT_VAL:
                for part in reader.fields(field.message()):
                    if part.number == VariantTensorDataProto.METADATA:
                        yield part.message()
                    elif part.number == VariantTensorDataProto.TENSORS:
                        pending.append(part.message())
        yield from _packed_strings(reader, message)


def _packed_strings(reader: Reader, tensor: memoryview) -> Iterator[memoryview]:
    """Yield the strings in the `tensor_content` of a tensor: all lengths come first, then the bytes."""
    dtype = 0
    elements = 1
    content = memoryview(b"")
    for field in reader.fields(tensor):
        if field.number == TensorProto.DTYPE:
            dtype = field.value
        elif field.number == TensorProto.TENSOR_SHAPE:
            elements = _elements(reader, field.message())
        elif field.number == TensorProto.TENSOR_CONTENT:
            content = field.message()
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
    """Return how many elements a TensorShapeProto has, at most `TOO_MANY`."""
    elements = 1
    for field in reader.fields(shape):
        if field.number == TensorShapeProto.DIM:
            parts = reader.fields(field.message())
            size = next((part.value for part in parts if part.number == Dim.SIZE), 0)
            elements = min(elements * size, TOO_MANY)
    return elements
