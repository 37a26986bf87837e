"""Writes SavedModels by hand, byte by byte: also those that no TensorFlow would write."""

from collections.abc import Iterable, Mapping

Attributes = Mapping[str, bytes]


def number(field: int, value: int) -> bytes:
    """Return a varint field."""
    return _varint(field << 3) + _varint(value)


def data(field: int, content: bytes | str) -> bytes:
    """Return a field that is a string or a message."""
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(field: int, key: str, value: bytes) -> bytes:
    """Return one entry of a map."""
    return data(field, data(1, key) + data(2, value))


def node(
    name: str, operation: str, inputs: Iterable[str] = (), attributes: Attributes | None = None
) -> bytes:
    """Return a NodeDef."""
    content = data(1, name) + data(2, operation) + b"".join(data(3, item) for item in inputs)
    return content + b"".join(entry(5, key, value) for key, value in (attributes or {}).items())


def text(content: bytes | str) -> bytes:
    """Return an AttrValue that is a string."""
    return data(2, content)


def func(name: str, attributes: Attributes | None = None) -> bytes:
    """Return an AttrValue that is a function."""
    return data(10, _name_attr_list(name, attributes))


def func_list(*names: str) -> bytes:
    """Return an AttrValue that is a list of functions."""
    return data(1, b"".join(data(9, _name_attr_list(name, None)) for name in names))


def _name_attr_list(name: str, attributes: Attributes | None) -> bytes:
    return data(1, name) + b"".join(entry(2, key, value) for key, value in (attributes or {}).items())


def string_tensor(*strings: bytes) -> bytes:
    """Return an AttrValue that is a tensor of strings."""
    return data(8, number(1, 7) + b"".join(data(8, item) for item in strings))


def packed_tensor(*strings: bytes) -> bytes:
    """Return the same in the other form: one block of all lengths and all bytes."""
    shape = data(2, data(2, number(1, len(strings))))
    content = b"".join(_varint(len(item)) for item in strings) + b"".join(strings)
    return data(8, number(1, 7) + shape + data(4, content))


def variant_tensor(metadata: bytes, *tensors: bytes) -> bytes:
    """Return an AttrValue that is a tensor with one variant."""
    inner = data(1, "some type") + data(2, metadata) + b"".join(data(3, item) for item in tensors)
    return data(8, number(1, 21) + data(15, inner))


def function(
    name: str,
    nodes: Iterable[bytes],
    arguments: Iterable[str] = (),
    attributes: Attributes | None = None,
) -> bytes:
    """Return a FunctionDef."""
    signature = data(1, name) + b"".join(data(2, data(1, argument)) for argument in arguments)
    body = b"".join(data(3, item) for item in nodes)
    return (
        data(1, signature)
        + body
        + b"".join(entry(5, key, value) for key, value in (attributes or {}).items())
    )


def graph(
    nodes: Iterable[bytes], functions: Iterable[bytes] = (), gradients: Mapping[str, str] | None = None
) -> bytes:
    """Return a GraphDef."""
    library = b"".join(data(1, item) for item in functions)
    for name, gradient in (gradients or {}).items():
        library += data(2, data(1, name) + data(2, gradient))
    return b"".join(data(1, item) for item in nodes) + (data(2, library) if library else b"")


def signature(name: str, *tensors: str) -> bytes:
    """Return a field of a meta graph: a signature with some outputs."""
    outputs = b"".join(entry(2, f"out{index}", data(1, item)) for index, item in enumerate(tensors))
    return entry(5, name, outputs)


def init_collection(key: str, *nodes: str) -> bytes:
    """Return a field of a meta graph: a collection of nodes."""
    return entry(4, key, data(1, b"".join(data(1, item) for item in nodes)))


def saver(save: str, restore: str) -> bytes:
    """Return a field of a meta graph: its saver."""
    return data(3, data(1, "filename:0") + data(2, save) + data(3, restore))


def asset(tensor: str, path: str) -> bytes:
    """Return a field of a meta graph: an asset file."""
    return data(6, data(1, data(1, tensor)) + data(2, path))


def saved_model(graph_def: bytes, *more: bytes, tag: str = "serve") -> bytes:
    """Return a SavedModel with one meta graph."""
    return number(1, 1) + data(2, data(1, data(4, tag)) + data(2, graph_def) + b"".join(more))


def served(nodes: Iterable[bytes], functions: Iterable[bytes] = ()) -> tuple[bytes, bytes]:
    """Return a graph, and a signature whose output is the node `out`."""
    return graph(nodes, functions), signature("serving_default", "out:0")


READ = node("read", "ReadFile", ["name"])
CALL_F = node("out", "PartitionedCall", ["in"], {"f": func("f")})
"""The output of a graph: calls the function `f`."""
