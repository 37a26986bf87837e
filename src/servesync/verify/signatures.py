"""What a version's signatures take and give, read without TensorFlow, and whether clients can use them.

Source: SignatureDef and TensorInfo of tensorflow/core/protobuf/meta_graph.proto, TensorShapeProto of
tensorflow/core/framework/tensor_shape.proto. An input with a default value counts as any other.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Dtype, Signature, TensorSpec
from servesync.verify.proto import Dim, MapEntry, SignatureDef, TensorInfo, TensorShapeProto
from servesync.verify.structure import AGAIN, serving_graph
from servesync.wire import Malformed, fields

NOT_FOR_CLIENTS: Final = frozenset({"__saved_model_init_op", "__saved_model_train_op"})
MAX_DIMENSIONS: Final = 254
SHOWN: Final = 10
DTYPES: Final[tuple[Dtype, ...]] = get_args(Dtype)
_REFERENCE: Final = 100
"""Types of references: DT_FLOAT_REF is DT_FLOAT + 100, and so on."""

Signatures = Mapping[str, Signature]


@dataclasses.dataclass(frozen=True, slots=True)
class Expectations:
    """What clients rely on: signatures that the settings name, and those of the version now served."""

    signatures: Signatures = dataclasses.field(default_factory=dict)
    same_as_served: Signatures | None = None


def read_signatures(root: Path) -> Signatures:
    """Return the signatures of the SavedModel in `root` that clients can ask for, by name.

    Raises:
        ReleaseRefused: there is no graph to serve, or it is damaged.
        OSError: the file cannot be read.
    """
    entries = serving_graph(root).signature_entries
    try:
        named = dict(map_entry(memoryview(item)) for item in entries)
        return {
            name: _signature(definition)
            for name, definition in sorted(named.items())
            if name not in NOT_FOR_CLIENTS
        }
    except Malformed as error:
        text = f"saved_model.pb is damaged: in a signature: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error


def check_signatures(found: Signatures, expected: Expectations) -> None:
    """Make sure that clients which rely on `expected` can use `found`.

    A dimension of an input that may have any size must keep that freedom. Further signatures and outputs are
    fine. A further input is not: the server refuses requests without it.

    Raises:
        ReleaseRefused: `SIGNATURE_DIFFERS`, with every difference.
    """
    wrong = [f"{text} (models[].signatures)" for text in differences(found, expected.signatures)]
    wrong += [f"{text} (as served now)" for text in differences(found, expected.same_as_served or {})]
    if wrong:
        raise refusal("the signatures are not those that clients rely on", wrong)


def refusal(what: str, wrong: list[str]) -> ReleaseRefused:
    """Return the refusal for these differences: all of them as facts, the first ones as text."""
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    text = f"{what}: {'; '.join(wrong[:SHOWN])}{more}; {AGAIN}, or change models[].signatures"
    return ReleaseRefused(Reason.SIGNATURE_DIFFERS, text, differences=wrong[:100])


def differences(found: Signatures, expected: Signatures, *, loosely: bool = False) -> list[str]:
    """Return in words what `found` lacks of `expected`.

    Args:
        found: What a version has.
        expected: What it should have.
        loosely: Let two shapes pass if any tensor fits both.
    """
    wrong = []
    for name, wanted in sorted(expected.items()):
        if name not in found:
            wrong.append(f"no signature {_quoted(name)}, there is {_listed(found)}")
            continue
        place = f"signature {_quoted(name)}"
        have = found[name]
        wrong += [
            f"{place} has the further input {_quoted(more)}"
            for more in sorted(have.inputs.keys() - wanted.inputs.keys())
        ]
        wrong += _tensor_differences(
            f"{place}, input", have.inputs, wanted.inputs, may_narrow=loosely
        ) + _tensor_differences(f"{place}, output", have.outputs, wanted.outputs, may_narrow=True)
    return wrong


def _tensor_differences(
    place: str, found: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec], *, may_narrow: bool
) -> list[str]:
    wrong = [
        f"{place} {_quoted(name)} is missing, there is {_listed(found)}"
        for name in sorted(expected.keys() - found.keys())
    ]
    for name in sorted(expected.keys() & found.keys()):
        have, wanted = found[name], expected[name]
        if (have.dtype, have.encoding) != (wanted.dtype, wanted.encoding):
            kinds = [f"{spec.encoding} {spec.dtype}".removeprefix("dense ") for spec in (have, wanted)]
            wrong.append(f"{place} {_quoted(name)} is {kinds[0]}, not {kinds[1]}")
        elif not fits(have.shape, wanted.shape, may_narrow=may_narrow):
            wrong.append(
                f"{place} {_quoted(name)} has the shape {shown(have.shape)}, not {shown(wanted.shape)}"
            )
    return wrong


def fits(found: list[int | None] | None, expected: list[int | None] | None, *, may_narrow: bool) -> bool:
    """Whether two shapes agree; unless it `may_narrow`, a dimension of any size must stay so."""
    if found is None or expected is None:
        return True
    return len(found) == len(expected) and all(
        have is None or have == wanted or (wanted is None and may_narrow)
        for have, wanted in zip(found, expected, strict=True)
    )


def shown(shape: list[int | None] | None) -> str:
    """Return a shape for people: `[?, 50]`."""
    if shape is None:
        return "of any rank"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _quoted(name: str) -> str:
    return ascii(name[:100])


def _listed(names: Mapping[str, object]) -> str:
    listed = ", ".join(_quoted(name) for name in sorted(names)[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed or "none"  # noqa: PLR2004


def map_entry(data: memoryview) -> tuple[str, memoryview]:
    """Return name and message of one entry of a map.

    Raises:
        Malformed: the bytes are no such entry.
    """
    name, value = "", memoryview(b"")
    for field in fields(data):
        if field.number == MapEntry.KEY:
            name = field.text()
        elif field.number == MapEntry.VALUE:
            value = field.message()
    return name, value


def _signature(definition: memoryview) -> Signature:
    sides: dict[int, dict[str, TensorSpec]] = {SignatureDef.INPUTS: {}, SignatureDef.OUTPUTS: {}}
    for field in fields(definition):
        if field.number in sides:
            name, info = map_entry(field.message())
            sides[field.number][name] = _tensor(info)
    return Signature(inputs=sides[SignatureDef.INPUTS], outputs=sides[SignatureDef.OUTPUTS])


def _tensor(info: memoryview) -> TensorSpec:
    number = 0
    spec = TensorSpec(dtype="unknown")
    for field in fields(info):
        match field.number:
            case TensorInfo.DTYPE:
                number = field.value
            case TensorInfo.TENSOR_SHAPE:
                spec = spec.model_copy(update={"shape": read_shape(field.message())})
            case TensorInfo.COO_SPARSE:
                spec = spec.model_copy(update={"encoding": "sparse"})
            case TensorInfo.COMPOSITE_TENSOR:
                spec = spec.model_copy(update={"encoding": "composite"})
            case _:
                pass
    number -= _REFERENCE if number > _REFERENCE else 0
    known = 1 <= number < len(DTYPES)
    return spec.model_copy(update={"dtype": DTYPES[number - 1]}) if known else spec


def read_shape(data: memoryview) -> list[int | None] | None:
    """Return the sizes of a TensorShapeProto; None if not even their number is known.

    Raises:
        Malformed: the bytes are no such message.
    """
    sizes: list[int | None] = []
    for field in fields(data):
        if field.number == TensorShapeProto.UNKNOWN_RANK and field.value:
            return None
        if field.number == TensorShapeProto.DIM:
            parts = fields(field.message())
            size = next((part.signed for part in parts if part.number == Dim.SIZE), 0)
            sizes.append(size if size >= 0 else None)
        if len(sizes) > MAX_DIMENSIONS:
            raise Malformed(f"a shape of more than {MAX_DIMENSIONS} dimensions")
    return sizes
