"""Trial requests for a version that the server has just loaded, and what its replies say of it.

AVAILABLE says that the server has loaded a version, not that the version answers. A version that carries
golden requests must give their answers. Any other version is asked what its signatures name, in the smallest
shapes, with zeros and empty strings. Nobody knows the right answer then. So only what real clients would
meet, too, counts against the version; the version that it replaces gets the same requests, to tell.

Source: TensorFlow Serving's documentation, "RESTful API", Predict API in columnar format; the texts of errors
are those of TensorFlow's kernels (lookup tables, resource variables) and of its operation registry.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from servesync.settings import Signature, TensorSpec
from servesync.verify.compare import decoded, worst
from servesync.verify.golden import FLOATS, INTEGERS, Request
from servesync.verify.signatures import Signatures

Json: TypeAlias = Any

MAX_REQUESTS: Final = 5
"""How many requests a trial has at most."""

MAX_ELEMENTS: Final = 1 << 20
"""Elements of all inputs of one made request; a signature that needs more is not asked."""

MAX_COMPARED_BYTES: Final = 4 << 20
"""A longer reply is not read: it would take many times its size of memory."""

DEFAULT_SIGNATURE: Final = "serving_default"
SHOWN_CHARACTERS: Final = 500
_BROKEN: Final = re.compile(
    r"Op type not registered|No OpKernel was registered|[Nn]ot initialized|uninitialized|"
    r"Could not find variable|does not exist|No such file|Failed to find|Missing kernel",
)
"""What a reply says when a part of the version is missing, whatever it was asked."""

_NOT_THERE: Final = re.compile(r"Servable not found|Could not find any versions|Failed to get servable")
_BUSY: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.CONFLICT,
        499,
    }
)
_OF_THE_MODEL: Final = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.INTERNAL_SERVER_ERROR}
)


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """One request of a trial.

    `name`: what it is, for people. `body`: JSON for `:predict`. `golden`: with its answers; None for a made
    request. `is_typical`: clients send such requests, so that a sound version answers it.
    """

    name: str
    body: bytes
    signature: Signature
    golden: Request | None = None
    is_typical: bool = True
    instead: bytes = b""
    """The body of the same request with ones. Zeros may be what a sound model fails on (a division)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: an HTTP status and its body, or nothing in time (`status` 0).

    The server gives up a request, too (`--rest_api_timeout_in_ms`), and says so with 504.
    """

    status: int
    body: bytes = b""
    seconds: float = 0.0

    @property
    def is_late(self) -> bool:
        """Whether no whole answer came in time."""
        return self.status in {0, HTTPStatus.GATEWAY_TIMEOUT}


class Outcome(Enum):
    """What a reply says of the version that gave it."""

    GOOD = auto()
    BAD = auto()
    UNKNOWN = auto()
    """Nothing: the server was busy, or something else answered."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome, and why, in words."""

    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply that was read: its outputs by name, or its error."""

    outputs: Mapping[str, Json] = field(default_factory=dict)
    error: str = ""
    is_servers: bool = True
    """Whether the server gave it: something else answers with other forms."""


def golden_requests(requests: list[Request], signatures: Signatures) -> list[TrialRequest]:
    """Return the first MAX_REQUESTS golden requests of a version, in the form that the server takes."""
    return [
        TrialRequest(
            f"golden request {number}",
            _body(item.signature, _to_send(item, signatures[item.signature])),
            signatures[item.signature],
            item,
        )
        for number, item in enumerate(requests[:MAX_REQUESTS], 1)
    ]


def made_requests(signatures: Signatures, required: Signatures) -> Iterator[TrialRequest]:
    """Yield a request for each signature that clients need: those `required`, else the default or first one.

    A signature for which no request can be made (other tensors than dense ones of numbers, truth values or
    strings, or very large ones) is left out.
    """
    first = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures), "")
    names = [name for name in sorted(required) if name in signatures] or [first]
    for name in names[:MAX_REQUESTS]:
        signature = signatures.get(name)
        if signature is None or not _can_be_made(signature):
            continue
        zeros, ones = (
            {key: _filled(spec, number) for key, spec in signature.inputs.items()} for number in (0, 1)
        )
        yield TrialRequest(
            f"the request made from signature {name[:100]!a}",
            _body(name, zeros),
            signature,
            is_typical=_is_typical(list(signature.inputs.values())),
            instead=_body(name, ones) if zeros != ones else b"",
        )


def judge(request: TrialRequest, new: Reply, old: Reply | None) -> Judgement:
    """Return what a reply says of a version. `old`: the reply of the version that it replaces, if any."""
    if new.is_late:
        return _judge_late(request, new, old)
    if new.status == HTTPStatus.OK and len(new.body) > MAX_COMPARED_BYTES:
        text = f"{request.name}: a reply of more than {MAX_COMPARED_BYTES >> 20} MiB, which is not compared"
        return Judgement(Outcome.UNKNOWN if request.golden else Outcome.GOOD, text)
    answer = _read(new, request.signature)
    if not answer.is_servers or new.status in _BUSY or _NOT_THERE.search(answer.error):
        return Judgement(Outcome.UNKNOWN, f"{request.name}: HTTP {new.status} {answer.error}".rstrip())
    if request.golden is not None:
        return _judge_golden(request, request.golden, new, answer)
    before = None if old is None or old.is_late else _read(old, request.signature)
    if answer.error:
        return _judge_error(request, new, answer, (old, before))
    turned = _turned_to_nan(answer.outputs, before.outputs) if before is not None else ""
    if turned:
        text = f"output {turned!a} is NaN where the version that serves has numbers"
        return Judgement(Outcome.BAD, f"{request.name}: {text}")
    return Judgement(Outcome.GOOD)


def _judge_late(request: TrialRequest, new: Reply, old: Reply | None) -> Judgement:
    if old is not None and old.is_late:
        return Judgement(Outcome.UNKNOWN, f"{request.name}: the old version does not answer in time either")
    return Judgement(Outcome.BAD, f"{request.name}: no answer within {new.seconds:.0f} s")


# -- making requests ------------------------------------------------------------------------------------


def _body(signature: str, inputs: Mapping[str, Json]) -> bytes:
    return json.dumps({"signature_name": signature, "inputs": inputs}).encode()


def _to_send(request: Request, signature: Signature) -> dict[str, Json]:
    """Return the inputs of a golden request as the server reads them: NaN is a bare word there."""
    return {
        name: _as_numbers(value) if signature.inputs[name].dtype in FLOATS else value
        for name, value in request.inputs.items()
    }


def _as_numbers(value: Json) -> Json:
    return [_as_numbers(item) for item in value] if isinstance(value, list) else float(value)


def _can_be_made(signature: Signature) -> bool:
    known = FLOATS | INTEGERS.keys() | {"bool", "string"}
    specs = signature.inputs.values()
    sizes = [math.prod(_shape(spec)) for spec in specs]
    return sum(sizes) <= MAX_ELEMENTS and all(s.encoding == "dense" and s.dtype in known for s in specs)


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


# -- reading replies ------------------------------------------------------------------------------------


def _read(reply: Reply, signature: Signature) -> _Answer:
    if len(reply.body) > MAX_COMPARED_BYTES:
        return _Answer(is_servers=False)
    try:
        found = json.loads(reply.body.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return _Answer(is_servers=False)
    if isinstance(found.get("error"), str):
        return _Answer(error=found["error"][:SHOWN_CHARACTERS])
    outputs = found.get("outputs")
    if reply.status != HTTPStatus.OK or "outputs" not in found:
        return _Answer(is_servers=False)
    if len(signature.outputs) == 1:
        return _Answer({next(iter(signature.outputs)): outputs})
    return _Answer(outputs if isinstance(outputs, dict) else {})


def _judge_golden(request: TrialRequest, golden: Request, reply: Reply, answer: _Answer) -> Judgement:
    if answer.error:
        return Judgement(Outcome.BAD, f"{request.name}: HTTP {reply.status}: {answer.error}")
    for name, wanted in sorted(golden.outputs.items()):
        dtype = request.signature.outputs[name].dtype
        if name not in answer.outputs:
            return Judgement(Outcome.BAD, f"{request.name}: no output {name[:100]!a}")
        try:
            found = decoded(answer.outputs[name], text=dtype == "string")
            found = _as_numbers(found) if dtype in FLOATS else found  # JSON may leave out the `.0`
        except (ValueError, TypeError, KeyError, AttributeError):
            return Judgement(Outcome.BAD, f"{request.name}: output {name[:100]!a} is no {dtype}")
        expected = decoded(wanted, text=dtype == "string")
        off = worst(found, expected, golden.absolute_tolerance, golden.relative_tolerance)
        if off is not None:
            place = "".join(f"[{index}]" for index in off["place"])
            text = f"output {name[:100]}{place} is {off['found']}, not {off['expected']}"
            return Judgement(Outcome.BAD, f"{request.name}: {text} ({off['wrong']} values are wrong)")
    return Judgement(Outcome.GOOD)


def _judge_error(
    request: TrialRequest, new: Reply, answer: _Answer, before: tuple[Reply | None, _Answer | None]
) -> Judgement:
    """Return what an error says: an error about what was asked is none of the version's faults."""
    old, said = before
    text = f"{request.name}: HTTP {new.status}: {answer.error}"
    is_broken = bool(_BROKEN.search(answer.error))
    alike = old is not None and said is not None and old.status == new.status
    if alike and (not is_broken or (said is not None and _BROKEN.search(said.error))):
        return Judgement(Outcome.GOOD, f"{text} (and the version that serves answers alike)")
    answers_now = old is not None and old.status == HTTPStatus.OK
    if is_broken or (new.status in _OF_THE_MODEL and answers_now):
        return Judgement(Outcome.BAD, text)
    if answers_now and request.is_typical:
        return Judgement(Outcome.BAD, f"{text} (the version that serves answers it)")
    return Judgement(Outcome.GOOD, f"{text}; it may be about what was asked")


def _turned_to_nan(new: Mapping[str, Json], old: Mapping[str, Json]) -> str:
    """Return the first output that has NaN now and had none; empty if there is none."""
    both = sorted(new.keys() & old.keys())
    return next((name for name in both if _has_nan(new[name]) and not _has_nan(old[name])), "")


def _has_nan(value: Json) -> bool:
    if isinstance(value, list):
        return any(_has_nan(item) for item in value)
    return isinstance(value, float) and math.isnan(value)
