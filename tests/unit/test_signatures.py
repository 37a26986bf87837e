"""Signatures are read without TensorFlow, and compared by whether clients can go on."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Signature, TensorSpec
from servesync.verify import Expectations, check_signatures, read_signatures

Shape = list[int | None] | None


def one(shape: Shape = None, dtype: str = "float32", output: Shape = None) -> dict[str, Signature]:
    """Return a signature with the input x and the output y."""
    tensor = TensorSpec.model_validate({"dtype": dtype, "shape": shape})
    return {"serve": Signature(inputs={"x": tensor}, outputs={"y": TensorSpec(dtype="int64", shape=output)})}


def problem(found: dict[str, Signature], expected: dict[str, Signature]) -> str:
    """Return what a client meets that relies on `expected`; empty if it meets nothing."""
    try:
        check_signatures(found, Expectations(same_as_served=expected))
    except ReleaseRefused as error:
        return f"{error.reason}: {error}"
    return ""


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([None, 4], [None, 4]),
        ([None, 4], [8, 4]),
        (None, [8, 4]),
        ([8, 4], None),
    ],
)
def test_an_input_that_takes_as_much_as_before(found: Shape, expected: Shape) -> None:
    """Any size may stand where a fixed one stood."""
    assert problem(one(found), one(expected)) == ""


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        ([8, 4], [None, 4], "input 'x' has the shape [8, 4], not [?, 4]"),
        ([None, 5], [None, 4], "[?, 5], not [?, 4]"),
        ([None], [None, 4], "[?], not [?, 4]"),
    ],
)
def test_an_input_that_takes_less(found: Shape, expected: Shape, words: str) -> None:
    """A size that was free must stay free."""
    assert words in problem(one(found), one(expected))


def test_an_output_may_be_known_better() -> None:
    """Clients that took any size take a fixed one, too; another one they do not."""
    assert problem(one(output=[3]), one(output=[None])) == ""
    assert "output 'y'" in problem(one(output=[3]), one(output=[4]))


def test_every_difference_is_named_at_once() -> None:
    """Both expectations, every signature and tensor; what is new and harmless is not."""
    more = one()["serve"].inputs | {"z": TensorSpec(dtype="bool")}
    found = {"serve": Signature(inputs=more, outputs={}), "new": one()["serve"]}
    declared = one(dtype="string") | {"gone": one()["serve"]}
    with pytest.raises(ReleaseRefused) as caught:
        check_signatures(found, Expectations(signatures=declared, same_as_served=one()))

    assert caught.value.facts["differences"] == [
        "no signature 'gone', there is 'new', 'serve' (models[].signatures)",
        "signature 'serve' has the further input 'z' (models[].signatures)",
        "signature 'serve', input 'x' is float32, not string (models[].signatures)",
        "signature 'serve', output 'y' is missing, there is none (models[].signatures)",
        "signature 'serve' has the further input 'z' (as served now)",
        "signature 'serve', output 'y' is missing, there is none (as served now)",
    ]


def message(*items: tuple[int, int | bytes]) -> bytes:
    """Return a message of Protocol Buffers."""
    data = b""
    for number, value in items:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value & (1 << 64) - 1)
        else:
            data += _varint(number << 3 | 2) + _varint(len(value)) + value
    return data


def _varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def saved_model(signatures: dict[str, bytes]) -> bytes:
    """Return a SavedModel with the tag `serve` and these signatures."""
    entries = [(5, message((1, name.encode()), (2, body))) for name, body in signatures.items()]
    return message((1, 1), (2, message((1, message((4, b"serve"))), *entries)))


def tensor(name: str, dtype: int, *rest: tuple[int, int | bytes]) -> bytes:
    """Return one entry of a signature's inputs or outputs."""
    return message((1, name.encode()), (2, message((1, b"x:0"), (2, dtype), *rest)))


def shape(*sizes: int) -> tuple[int, bytes]:
    """Return the field of a TensorInfo that holds its shape."""
    return 3, message(*((2, message((1, size))) for size in sizes))


def test_signatures_are_read_from_the_bytes(tmp_path: Path) -> None:
    """Known and unknown sizes, unknown rank, references, sparse and composite tensors, newer types."""
    inputs = [
        tensor("x", 1, shape(-1, 50)),
        tensor("scalar", 7, shape()),
        tensor("any_rank", 9, (3, message((3, 1)))),
        tensor("reference", 101),
    ]
    outputs = [
        tensor("sparse", 1, (4, b"")),
        tensor("ragged", 3, (5, b"")),
        tensor("newer", 77),
    ]
    body = message(*((1, entry) for entry in inputs), *((2, entry) for entry in outputs))
    (tmp_path / "saved_model.pb").write_bytes(
        saved_model({"serve": body, "__saved_model_init_op": message((2, tensor("op", 0)))})
    )

    assert read_signatures(tmp_path) == {
        "serve": Signature(
            inputs={
                "x": TensorSpec(dtype="float32", shape=[None, 50]),
                "scalar": TensorSpec(dtype="string", shape=[]),
                "any_rank": TensorSpec(dtype="int64"),
                "reference": TensorSpec(dtype="float32"),
            },
            outputs={
                "sparse": TensorSpec(dtype="float32", encoding="sparse"),
                "ragged": TensorSpec(dtype="int32", encoding="composite"),
                "newer": TensorSpec(dtype="unknown"),
            },
        )
    }


@given(body=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_signature_does_more_than_be_refused(
    body: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes in the place of a signature are read, or refused as damage."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "saved_model.pb").write_bytes(saved_model({"serve": body}))
    outcome: object
    try:
        outcome = list(read_signatures(folder))
    except ReleaseRefused as error:
        outcome = error.reason

    assert outcome in (["serve"], Reason.SAVED_MODEL_CORRUPT)


def test_too_many_signatures_are_refused(tmp_path: Path) -> None:
    """Nobody has a thousand."""
    (tmp_path / "saved_model.pb").write_bytes(saved_model({str(number): b"" for number in range(1001)}))

    with pytest.raises(ReleaseRefused, match="more than 1000 signatures"):
        read_signatures(tmp_path)
