"""Reads a serialized GraphDef: its nodes by name, its functions, and what a node refers to.

No function here calls itself, so an input that is nested deep cannot exhaust the stack. All reading goes
through one `Reader`, which stops at its bounds.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from servesync.verify.attributes import Attribute, read_entry, references, text_of
from servesync.verify.parse_budget import Reader, TooMuch
from servesync.verify.proto import (
    ArgDef,
    FunctionDef,
    FunctionDefLibrary,
    GradientDef,
    GraphDef,
    NodeDef,
    OpDef,
)
from servesync.wire import Malformed

MAX_DEPTH: Final = 16
MAX_PARTS: Final = 500_000
SMALLEST_GRAPH_BYTES: Final = 8
LIST_FIELDS: Final = frozenset({ArgDef.NUMBER_ATTR, ArgDef.TYPE_LIST_ATTR})
"""The fields of an ArgDef whose argument is a list."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One NodeDef; `attributes` are its AttrValues by name, serialized."""

    name: bytes
    operation: bytes
    inputs: tuple[bytes, ...]
    attributes: tuple[Attribute, ...]

    @property
    def data_inputs(self) -> list[bytes]:
        """The inputs that are tensors, in order."""
        return [name for name in self.inputs if not name.startswith(b"^")]


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A function's declaration without its body; `arguments` is empty if one of them is a list."""

    name: bytes
    arguments: tuple[bytes, ...]
    implements: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """One GraphDef: the graph of the model, or a graph that another one holds as a string."""

    number: int
    place: str
    parent: "Scope | None"
    depth: int
    nodes: dict[bytes, memoryview] = dataclasses.field(default_factory=dict)
    functions: dict[bytes, list[memoryview]] = dataclasses.field(default_factory=dict)
    gradients: dict[bytes, list[bytes]] = dataclasses.field(default_factory=dict)
    alternatives: dict[bytes, list[bytes]] = dataclasses.field(default_factory=dict)
    """Functions by their `api_implements`: the optimizer may replace a function by one with the same."""

    def owner(self, function: bytes) -> "Scope | None":
        """Return the nearest scope that defines a function; None if there is none."""
        scope: Scope | None = self
        while scope is not None and function not in scope.functions:
            scope = scope.parent
        return scope


def read_scope(
    reader: Reader,
    messages: Iterable[memoryview],
    number: int = 0,
    place: str = "",
    parent: Scope | None = None,
) -> Scope:
    """Return one GraphDef, given in one or more pieces as Protocol Buffers allow.

    Raises:
        Malformed: the bytes are no GraphDef, or TensorFlow refuses it: a node has no name, or two have one.
        TooMuch: the graph is too large, or nested too deep.
    """
    depth = parent.depth + 1 if parent else 0
    if depth > MAX_DEPTH:
        raise TooMuch(f"graphs inside of graphs, more than {MAX_DEPTH} deep")
    scope = Scope(number, place, parent, depth)
    for message in messages:
        for field in reader.fields(message):
            match field.number:
                case GraphDef.NODE:
                    _add_node(reader, scope, field.message())
                case GraphDef.LIBRARY:
                    _add_library(reader, scope, field.message())
                case _:
                    pass
    return scope


def nested_scope(reader: Reader, data: memoryview, number: int, place: str, parent: Scope) -> Scope | None:
    """Return `data` as a GraphDef; None if not all of it, down to each attribute, can be read as one.

    Raises:
        TooMuch: the graph is too large, or nested too deep.
    """
    if len(data) < SMALLEST_GRAPH_BYTES:
        return None
    try:
        scope = read_scope(reader, [data], number, place, parent)
        bodies = [body for bodies in scope.functions.values() for body in bodies]
        for body in bodies:
            read_header(reader, body)
        inner = (node for body in bodies for node in body_nodes(reader, body))
        for node in chain(scope.nodes.values(), inner):
            for _ in references(reader, read_node(reader, node).attributes):
                pass
    except TooMuch:
        raise
    except Malformed:
        return None
    return scope if scope.nodes else None


def _add_node(reader: Reader, scope: Scope, data: memoryview) -> None:
    name = operation = b""
    for field in reader.fields(data):
        if field.number == NodeDef.NAME:
            name = bytes(field.message())
        elif field.number == NodeDef.OP:
            operation = bytes(field.message())
    if not name or not operation:
        raise Malformed("a node without a name or an operation")
    if name in scope.nodes:
        raise Malformed(f"two nodes are called {name[:200].decode(errors='backslashreplace')!a}")
    reader.keep()
    scope.nodes[name] = data


def _add_library(reader: Reader, scope: Scope, library: memoryview) -> None:
    for field in reader.fields(library):
        if field.number == FunctionDefLibrary.FUNCTION:
            header = read_header(reader, field.message())
            reader.keep()
            scope.functions.setdefault(header.name, []).append(field.data)
            if header.implements:
                scope.alternatives.setdefault(header.implements, []).append(header.name)
        elif field.number == FunctionDefLibrary.GRADIENT:
            names = {part.number: bytes(part.message()) for part in reader.fields(field.message())}
            reader.keep()
            function = names.get(GradientDef.FUNCTION_NAME, b"")
            scope.gradients.setdefault(function, []).append(names.get(GradientDef.GRADIENT_FUNC, b""))


def read_header(reader: Reader, function: memoryview) -> Header:
    """Return the declaration of a FunctionDef.

    Raises:
        Malformed: the bytes are no FunctionDef.
    """
    name = implements = b""
    arguments: list[bytes] = []
    for field in reader.fields(function):
        if field.number == FunctionDef.SIGNATURE:
            more, new = _signature(reader, field.message())
            arguments += more
            name = new or name
        elif field.number == FunctionDef.ATTR:
            for key, value in read_entry(reader, field.message()):
                if key == b"api_implements":
                    implements = text_of(reader, value)
    return Header(name, () if b"" in arguments else tuple(arguments), implements)


def _signature(reader: Reader, definition: memoryview) -> tuple[list[bytes], bytes]:
    """Return the names of an OpDef's arguments (empty for each that is a list), and its own name."""
    name = b""
    arguments = []
    for field in reader.fields(definition):
        if field.number == OpDef.NAME:
            name = bytes(field.message())
        elif field.number == OpDef.INPUT_ARG:
            parts = {part.number: part for part in reader.fields(field.message())}
            is_one = ArgDef.NAME in parts and LIST_FIELDS.isdisjoint(parts)
            arguments.append(bytes(parts[ArgDef.NAME].message()) if is_one else b"")
    return arguments, name


def body_nodes(reader: Reader, function: memoryview) -> Iterator[memoryview]:
    """Yield the nodes of a function, serialized.

    Raises:
        Malformed: the bytes are no FunctionDef.
    """
    for field in reader.fields(function):
        if field.number == FunctionDef.NODE_DEF:
            yield field.message()


def read_node(reader: Reader, data: memoryview) -> Node:
    """Return one NodeDef.

    Raises:
        Malformed: the bytes are no NodeDef.
        TooMuch: the node has too many inputs and attributes.
    """
    name = operation = b""
    inputs = []
    attributes: list[Attribute] = []
    for field in reader.fields(data):
        match field.number:
            case NodeDef.NAME:
                name = bytes(field.message())
            case NodeDef.OP:
                operation = bytes(field.message())
            case NodeDef.INPUT:
                inputs.append(bytes(field.message()))
            case NodeDef.ATTR:
                attributes += read_entry(reader, field.message())
            case _:
                pass
        if len(inputs) + len(attributes) > MAX_PARTS:
            raise TooMuch(f"a node with more than {MAX_PARTS} inputs and attributes")
    return Node(name, operation, tuple(inputs), tuple(attributes))
