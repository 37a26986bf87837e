"""What features a `tf.Example` needs, told from the operation of the graph that parses it.

Source: the operations ParseExample and ParseExampleV2 in tensorflow/core/ops/parsing_ops.cc. They stand in
the main graph of an export of TensorFlow 1. Functions are not looked into: the exports of TensorFlow 2 know
no other method than predict. Features of variable length may be left out of an example, and are.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from servesync.settings import TensorSpec
from servesync.verify.assets import full_name
from servesync.verify.attributes import references
from servesync.verify.graph_def import Node, Scope, read_node, read_scope
from servesync.verify.meta_graph import read_entrances
from servesync.verify.parse_budget import Reader
from servesync.verify.proto import AttrValue, ListValue
from servesync.verify.saved_model import opened
from servesync.verify.signatures import DTYPES, read_shape
from servesync.verify.structure import GRAPH
from servesync.wire import BYTES, Malformed, varint

Features = Mapping[str, TensorSpec]
"""Features of fixed length, by name."""

MAX_FIELDS: Final = 3_000_000
"""A larger graph is not read to its end for this: its examples stay without features."""

PARSERS: Final = frozenset({b"ParseExample", b"ParseExampleV2"})
KINDS: Final = frozenset({"float32", "int64", "string"})
"""The types that a feature may have."""
_FIRST_KEY: Final = 2
"""Before it stand the serialized examples, and their names."""
_DENSE_KEYS_V2: Final = 3
"""In the second form each kind of keys is one tensor."""


def read_features(root: Path, tensors: Collection[bytes]) -> Mapping[bytes, Features]:
    """Return the features of the examples that each of these tensors of the graph in `root` takes.

    A tensor is left out if nothing that can be understood parses it, or if the graph is damaged or too large.

    Raises:
        OSError: the file cannot be read.
    """
    reader = Reader(max_fields=MAX_FIELDS)
    wanted = {full_name(name): name for name in tensors}
    try:
        with opened(root / GRAPH) as data:
            entrances = read_entrances(reader, data)
            scope = read_scope(reader, entrances.graphs) if entrances is not None else None
            return dict(_found(reader, scope, wanted)) if scope is not None else {}
    except (Malformed, UnicodeDecodeError):
        return {}


def _found(
    reader: Reader, scope: Scope, wanted: Mapping[bytes, bytes]
) -> Iterator[tuple[bytes, dict[str, TensorSpec]]]:
    for data in scope.nodes.values():
        node = read_node(reader, data)
        if node.operation in PARSERS and node.data_inputs:
            taken = full_name(node.data_inputs[0])
            if taken in wanted:
                yield wanted[taken], _features(reader, scope, node)


def _features(reader: Reader, scope: Scope, node: Node) -> dict[str, TensorSpec]:
    """Return the dense features of an operation that parses examples; none if they cannot be told."""
    attributes = dict(node.attributes)
    types = list(_types(reader, attributes.get(b"Tdense", memoryview(b""))))
    shapes = [read_shape(item) for item in _listed(reader, attributes, b"dense_shapes", ListValue.SHAPE)]
    if node.operation == b"ParseExampleV2":
        places = [_DENSE_KEYS_V2]
    else:
        sparse = next(_numbers(reader, attributes.get(b"Nsparse", memoryview(b""))), 0)
        places = [_FIRST_KEY + sparse + index for index in range(len(types))]
    inputs = node.data_inputs
    keys = [key for place in places if place < len(inputs) for key in _strings(reader, scope, inputs[place])]
    if not len(keys) == len(types) == len(shapes):
        return {}
    return {
        key.decode(): TensorSpec(dtype=DTYPES[number - 1], shape=shape)
        for key, number, shape in zip(keys, types, shapes, strict=True)
        if 0 < number <= len(DTYPES) and DTYPES[number - 1] in KINDS
    }


def _strings(reader: Reader, scope: Scope, tensor: bytes) -> list[bytes]:
    """Return the strings of a constant; nothing if the tensor is something else."""
    data = scope.nodes.get(tensor.partition(b":")[0])
    node = read_node(reader, data) if data is not None else None
    if node is None or node.operation != b"Const":
        return []
    return [bytes(found.data) for found in references(reader, node.attributes) if not found.is_function]


def _listed(
    reader: Reader, attributes: Mapping[bytes, memoryview], name: bytes, number: int
) -> Iterator[memoryview]:
    """Yield the messages of a list attribute."""
    for part in reader.fields(attributes.get(name, memoryview(b""))):
        if part.number == AttrValue.LIST:
            yield from (item.message() for item in reader.fields(part.message()) if item.number == number)


def _types(reader: Reader, attribute: memoryview) -> Iterator[int]:
    """Yield the numbers of a list of types, which may be packed into one field."""
    for part in reader.fields(attribute):
        if part.number != AttrValue.LIST:
            continue
        for item in reader.fields(part.message()):
            if item.number == ListValue.TYPE and item.kind != BYTES:
                yield item.value
            elif item.number == ListValue.TYPE:
                position = 0
                while position < len(item.data):
                    value, position = varint(item.data, position)
                    yield value


def _numbers(reader: Reader, attribute: memoryview) -> Iterator[int]:
    return (part.value for part in reader.fields(attribute) if part.number == AttrValue.I)
