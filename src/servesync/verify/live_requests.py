"""Trial requests: what a version that the server has just loaded is asked.

Golden requests are sent as they stand, by `:predict`, which the server takes for every signature. Any other
request is made from a signature, in the smallest shapes, and sent by the signature's own method: clients ask
by it, and it has rules of its own for what the version answers.

Source: TensorFlow Serving's documentation, "RESTful API": Predict API in columnar format, Classify and
Regress API.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from servesync.domain.methods import Method
from servesync.settings import Signature, TensorSpec
from servesync.verify.golden import FLOATS, INTEGERS, Request
from servesync.verify.methods import Asking
from servesync.verify.signatures import Signatures

Json: TypeAlias = Any

MAX_REQUESTS: Final = 5
"""How many requests a trial has at most."""

MAX_ELEMENTS: Final = 1 << 20
"""Elements of all inputs of one made request; a signature that needs more is not asked."""

DEFAULT_SIGNATURE: Final = "serving_default"


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """One request of a trial.

    `name`: what it is, for people. `body`: JSON for `method`. `golden`: with its answers; None for a made
    request. `is_typical`: clients send such requests, so that a sound version answers it.
    """

    name: str
    body: bytes
    signature: Signature
    golden: Request | None = None
    is_typical: bool = True
    instead: bytes = b""
    """The body of the same request with ones. Zeros may be what a sound model fails on (a division)."""
    method: Method = Method.PREDICT


def golden_requests(requests: list[Request], signatures: Signatures) -> list[TrialRequest]:
    """Return the first MAX_REQUESTS golden requests of a version, in the form that the server takes."""
    return [
        TrialRequest(
            f"golden request {number}",
            _inputs_body(item.signature, _to_send(item, signatures[item.signature])),
            signatures[item.signature],
            item,
        )
        for number, item in enumerate(requests[:MAX_REQUESTS], 1)
    ]


def made_requests(
    signatures: Signatures, required: Signatures, askings: Mapping[str, Asking]
) -> Iterator[TrialRequest]:
    """Yield a request for each signature that clients need: those `required`, else the default or first one.

    A signature for which no request can be made (other tensors than dense ones of numbers, truth values or
    strings, or very large ones) is left out. `askings`: those that are not asked by `:predict`.
    """
    first = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures), "")
    names = [name for name in sorted(required) if name in signatures] or [first]
    for name in names[:MAX_REQUESTS]:
        signature = signatures.get(name)
        if signature is None or not _can_be_made(signature):
            continue
        asking = askings.get(name, Asking())
        make = _of_tensors if asking.method is Method.PREDICT else _of_examples
        zeros, ones = (make(name, signature, asking, number) for number in (0, 1))
        yield TrialRequest(
            f"the request made from signature {name[:100]!a}",
            zeros,
            signature,
            is_typical=_is_typical(list(signature.inputs.values())),
            instead=ones if zeros != ones else b"",
            method=asking.method,
        )


# -- bodies ---------------------------------------------------------------------------------------------


def _of_tensors(name: str, signature: Signature, _: Asking, number: int) -> bytes:
    return _inputs_body(name, {key: _filled(spec, number) for key, spec in signature.inputs.items()})


def _of_examples(name: str, _: Signature, asking: Asking, number: int) -> bytes:
    """Return a request with one example. Its features are flat lists; the model gives them their shapes."""
    example: dict[str, Json] = {}
    if _size(asking.features) <= MAX_ELEMENTS:
        for key, spec in asking.features.items():
            flat = TensorSpec(dtype=spec.dtype, shape=[math.prod(_shape(spec))])
            example[key] = _filled(flat, number)
    return json.dumps({"signature_name": name, "examples": [example]}).encode()


def _inputs_body(name: str, inputs: Mapping[str, Json]) -> bytes:
    return json.dumps({"signature_name": name, "inputs": inputs}).encode()


def _to_send(request: Request, signature: Signature) -> dict[str, Json]:
    """Return the inputs of a golden request as the server reads them: NaN is a bare word there."""
    return {
        name: as_numbers(value) if signature.inputs[name].dtype in FLOATS else value
        for name, value in request.inputs.items()
    }


def as_numbers(value: Json) -> Json:
    """Return nested lists with floats in place of their forms in JSON.

    Raises:
        ValueError, TypeError: something is no number.
    """
    return [as_numbers(item) for item in value] if isinstance(value, list) else float(value)


def _can_be_made(signature: Signature) -> bool:
    known = FLOATS | INTEGERS.keys() | {"bool", "string"}
    specs = signature.inputs.values()
    is_known = all(spec.encoding == "dense" and spec.dtype in known for spec in specs)
    return is_known and _size(signature.inputs) <= MAX_ELEMENTS


def _size(specs: Mapping[str, TensorSpec]) -> int:
    return sum(math.prod(_shape(spec)) for spec in specs.values())


def _shape(spec: TensorSpec) -> list[int]:
    return [1] if spec.shape is None else [1 if size is None else size for size in spec.shape]


def _filled(spec: TensorSpec, number: int) -> Json:
    """Return a tensor of the smallest shape, full of one number, or of empty strings."""
    value: Json = number
    if spec.dtype == "string":
        value = {"b64": ""}
    elif spec.dtype == "bool":
        value = bool(number)
    elif spec.dtype in FLOATS:
        value = float(number)
    for size in reversed(_shape(spec)):
        value = [value] * size
    return value


def _is_typical(specs: list[TensorSpec]) -> bool:
    """Whether clients send such requests: no strings, and no free size that is not surely the batch's.

    Of several inputs with one free size each, such as the values and row splits of a ragged tensor, the sizes
    may have to fit each other.
    """
    return all(_is_fixed_but_for_the_batch(spec, alone=len(specs) == 1) for spec in specs)


def _is_fixed_but_for_the_batch(spec: TensorSpec, *, alone: bool) -> bool:
    if spec.dtype == "string" or spec.shape is None or None in spec.shape[1:]:
        return False
    return alone or len(spec.shape) != 1 or spec.shape[0] is not None
