"""Features of examples, told from graphs that no TensorFlow has written."""

from pathlib import Path

import pytest

import graph_bytes as gb
from servesync.settings import TensorSpec
from servesync.verify.example_features import Features, read_features

TENSOR = b"examples:0"
FLOAT, HALF, INT64 = 1, 19, 9


def listed(content: bytes) -> bytes:
    """Return an AttrValue that is a list."""
    return gb.data(1, content)


def shape(*sizes: int) -> bytes:
    """Return a list's entry that is a shape; -1 stands for any size."""
    return gb.data(7, b"".join(gb.data(2, gb.number(1, size % (1 << 64))) for size in sizes))


def parser(types: bytes, shapes: bytes, keys: str = "keys") -> bytes:
    """Return the operation that parses examples."""
    attributes = {"Tdense": listed(types), "dense_shapes": listed(shapes)}
    return gb.node("parse", "ParseExampleV2", ["examples", "names", "sparse", keys], attributes)


def keys(*names: bytes) -> bytes:
    """Return the constant with the keys."""
    return gb.node("keys", "Const", (), {"value": gb.string_tensor(*names)})


def told(tmp_path: Path, *nodes: bytes) -> Features | None:
    """Return the features of a graph's examples; None if nothing is told."""
    graph = gb.graph([gb.node("examples", "Placeholder"), *nodes])
    (tmp_path / "saved_model.pb").write_bytes(gb.saved_model(graph))
    return read_features(tmp_path, {TENSOR}).get(TENSOR)


def types(*numbers: int) -> bytes:
    """Return a list of types, packed into one field as TensorFlow writes it."""
    return gb.data(6, bytes(numbers))


def test_features_are_told(tmp_path: Path) -> None:
    """The types of a list may be packed or not; a type that no example has is left out."""
    shapes = shape(2, 3) + shape() + shape(-1)
    expected = {
        "a": TensorSpec(dtype="float32", shape=[2, 3]),
        "b": TensorSpec(dtype="int64", shape=[]),
    }

    assert told(tmp_path, parser(types(FLOAT, INT64, HALF), shapes), keys(b"a", b"b", b"c")) == expected
    single = gb.number(6, FLOAT) + gb.number(6, INT64)
    assert told(tmp_path, parser(single, shape(2, 3) + shape()), keys(b"a", b"b")) == expected


@pytest.mark.parametrize(
    "nodes",
    [
        [parser(types(FLOAT), shape(), "no_such"), keys(b"a")],
        [parser(types(FLOAT), shape(), "keys:1"), gb.node("keys", "Split", ["x"])],
        [parser(types(FLOAT, FLOAT), shape() + shape()), keys(b"a")],
        [parser(types(FLOAT), b""), keys(b"a")],
        [parser(types(0), shape()), keys(b"a")],
        [parser(types(120), shape()), keys(b"a")],
        [gb.node("parse", "ParseExampleV2", ["examples"])],
        [gb.node("parse", "ParseExample", ["examples"], {"Tdense": listed(types(FLOAT))})],
    ],
)
def test_what_does_not_fit_tells_nothing(nodes: list[bytes], tmp_path: Path) -> None:
    """The example stays empty then."""
    assert told(tmp_path, *nodes) == {}


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [gb.node("parse", "ParseExampleV2")],
        [gb.node("parse", "DecodeRaw", ["examples"])],
        [parser(types(FLOAT), shape()), keys(b"\xff")],
        [parser(types(FLOAT), shape(*[1] * 300)), keys(b"a")],
        [parser(types(0xFF), shape()), keys(b"a")],
        [gb.node("parse", "ParseExampleV2", ["examples"], {"Tdense": b"\xff"})],
        [keys(b"a"), keys(b"a")],
    ],
)
def test_a_graph_without_a_parser_or_a_damaged_one_tells_nothing(nodes: list[bytes], tmp_path: Path) -> None:
    """It is no error: other checks look after that."""
    assert told(tmp_path, *nodes) is None
