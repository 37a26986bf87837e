"""Golden requests: requests that a version carries with it, and the answers that it must give.

They lie in `assets.extra/servesync_golden.json`, in the form that docs/golden.md describes. Nothing here is
trusted: the file is bounded, and every value is checked against the signature before TensorFlow sees it.
The server's own warm-up requests (`warmup.py`) have no expected answers, and the server replays them itself.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from servesync.errors import Reason, ReleaseRefused
from servesync.files import NotRegular, read_regular
from servesync.settings import Section, Signature, TensorSpec
from servesync.verify.signatures import Signatures, fits, shown
from servesync.verify.structure import AGAIN

GOLDEN: Final = "assets.extra/servesync_golden.json"
MAX_BYTES: Final = 4 << 20
MAX_REQUESTS: Final = 1000
MAX_DEPTH: Final = 32
SHOWN_CHARACTERS: Final = 60
NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64"})
INTEGERS: Final = {
    f"{sign}int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) if not sign else (0, (1 << bits) - 1)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Request(Section):
    """One request and the answer to it, as nested lists; outputs that are not named are not compared."""

    signature: Name = "serving_default"
    inputs: dict[Name, JsonValue]
    outputs: Annotated[dict[Name, JsonValue], Field(min_length=1)]
    absolute_tolerance: Tolerance = 1e-4
    relative_tolerance: Tolerance = 1e-4


class GoldenFile(Section):
    """The whole file."""

    format: Annotated[Literal["servesync.golden/1"], Field(alias="schema")]
    requests: Annotated[list[Request], Field(min_length=1, max_length=MAX_REQUESTS)]


class _Wrong(ValueError):
    """A mistake in the file; the caller adds where in the file it is."""


def read_golden(root: Path, signatures: Signatures) -> list[Request]:
    """Return the golden requests of the version in `root`; none if it carries none.

    Raises:
        ReleaseRefused: `GOLDEN_INVALID`: the file is too large, does not parse, or does not fit the
            signatures; the first mistake is named.
        OSError: the file cannot be read.
    """
    path = root / GOLDEN
    if not path.exists():
        return []
    try:
        data = _read(path)
        requests = _parsed(data)
        for number, request in enumerate(requests, 1):
            with_signature = f"request {number}, signature {request.signature[:100]!a}"
            _check_request(with_signature, request, signatures.get(request.signature))
    except _Wrong as error:
        text = f"{GOLDEN}: {error}; correct the file (docs/golden.md), or {AGAIN}"
        raise ReleaseRefused(Reason.GOLDEN_INVALID, text, file=GOLDEN) from error
    return requests


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except NotRegular as error:
        raise _Wrong(error.strerror) from error


def _parsed(data: bytes) -> list[Request]:
    if len(data) > MAX_BYTES:
        raise _Wrong(f"larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_constant=_refuse_constant)
        return GoldenFile.model_validate(value).requests
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part)[:100] for part in first["loc"])
        raise _Wrong(f"{place!a}: {first['msg']}") from error
    except _Wrong:
        raise
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"not valid JSON: {ascii(str(error))[1:-1][:200]}") from error


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Wrong(f"{twice[:100]!a} stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise _Wrong(f'{name} is no JSON; write it as a string: "{name}"')


def _check_request(place: str, request: Request, signature: Signature | None) -> None:
    if signature is None:
        raise _Wrong(f"{place}: the version has no such signature")
    missing = sorted(signature.inputs.keys() - request.inputs.keys())
    extra = sorted(request.inputs.keys() - signature.inputs.keys())
    unknown = sorted(request.outputs.keys() - signature.outputs.keys())
    if missing or extra or unknown:
        raise _Wrong(
            f"{place}: inputs missing: {_names(missing)}; no such inputs: {_names(extra)}; "
            f"no such outputs: {_names(unknown)}"
        )
    _check_tensors(f"{place}, input", request.inputs, signature.inputs)
    _check_tensors(f"{place}, output", request.outputs, signature.outputs)


def _check_tensors(place: str, values: Mapping[str, JsonValue], specs: Mapping[str, TensorSpec]) -> None:
    for name, value in values.items():
        here = f"{place} {name[:100]!a}"
        spec = specs[name]
        leaf = _leaf_check(spec.dtype)
        if leaf is None or spec.encoding != "dense":
            raise _Wrong(f"{here}: {spec.encoding} tensors of {spec.dtype} are not supported here")
        try:
            shape = list(_shape(value, leaf, MAX_DEPTH))
        except (_Wrong, OverflowError) as error:
            raise _Wrong(f"{here} ({spec.dtype}): {error}") from error
        if not fits(spec.shape, list(shape), may_narrow=True):
            raise _Wrong(f"{here} has the shape {shape}, the signature says {shown(spec.shape)}")


def _shape(value: JsonValue, check_leaf: Callable[[JsonValue], bool], depth: int) -> tuple[int, ...]:
    """Return the sizes of nested lists.

    Raises:
        _Wrong: the lists are uneven or nested too deep, or a value has the wrong type.
    """
    if not isinstance(value, list):
        if not check_leaf(value):
            raise _Wrong(f"{ascii(value)[:SHOWN_CHARACTERS]} is no value of this type")
        return ()
    if depth == 0:
        raise _Wrong(f"more than {MAX_DEPTH} lists in one another")
    inner = {_shape(item, check_leaf, depth - 1) for item in value}
    if len(inner) > 1:
        raise _Wrong(f"lists of uneven length: {sorted(inner)[:3]}")
    return (len(value), *(inner.pop() if inner else ()))


def _leaf_check(dtype: str) -> Callable[[JsonValue], bool] | None:
    """Return the check whether a value can be one element; None for types that have no form in JSON."""
    if dtype in FLOATS:
        return _is_float
    if dtype in INTEGERS:
        low, high = INTEGERS[dtype]
        return lambda value: type(value) is int and low <= value <= high
    return {"bool": lambda value: isinstance(value, bool), "string": _is_string}.get(dtype)


def _is_float(value: JsonValue) -> bool:
    if isinstance(value, str):
        return value in NOT_FINITE
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value))


def _is_string(value: JsonValue) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str) and _is_text(value)
    encoded = value.get("b64")
    if value.keys() != {"b64"} or not isinstance(encoded, str):
        return False
    try:
        base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_text(value: str) -> bool:
    """Whether a string is text: a lone half of a surrogate pair has no UTF-8 form."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _names(names: Iterable[str]) -> str:
    return ", ".join(ascii(name[:100]) for name in list(names)[:5]) or "none"
