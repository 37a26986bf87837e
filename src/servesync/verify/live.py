"""Judges a version that the server has just loaded by its replies to trial requests (`live_requests.py`).

AVAILABLE says that the server has loaded a version, not that the version answers. A version that carries
golden requests must give their answers. Of a request made from a signature nobody knows the right answer. So
only what real clients would meet, too, counts against the version; the version that it replaces gets the same
request, to tell.

Source: the texts of errors are those of TensorFlow's kernels (lookup tables, resource variables), of its
operation registry, and of classifier.cc and regressor.cc in TensorFlow Serving.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from servesync.verify.compare import decoded, worst
from servesync.verify.golden import FLOATS, Request
from servesync.verify.live_replies import MAX_COMPARED_BYTES, Answer, Reply, read_reply
from servesync.verify.live_requests import TrialRequest, as_numbers

Json: TypeAlias = Any

_BROKEN: Final = re.compile(
    r"Op type not registered|No OpKernel was registered|[Nn]ot initialized|uninitialized|"
    r"Could not find variable|does not exist|No such file|Failed to find|Missing kernel",
)
"""What a reply says when a part of the version is missing, whatever it was asked."""

_UNFIT: Final = re.compile(
    r"Expected (classes|scores) Tensor of DT_|Expected output Tensor of DT_|Expected output Tensor shape|"
    r"Expected Tensor shape: \[batch_size num_classes\]"
)
"""What a reply says when outputs are of a type or rank that the method of their signature does not give."""

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


def judge(request: TrialRequest, new: Reply, old: Reply | None) -> Judgement:
    """Return what a reply says of a version. `old`: the reply of the version that it replaces, if any."""
    if new.is_late:
        return _judge_late(request, new, old)
    if new.status == HTTPStatus.OK and len(new.body) > MAX_COMPARED_BYTES:
        text = f"{request.name}: a reply of more than {MAX_COMPARED_BYTES >> 20} MiB, which is not compared"
        return Judgement(Outcome.UNKNOWN if request.golden else Outcome.GOOD, text)
    answer = read_reply(new, request)
    if not answer.is_servers or new.status in _BUSY or _NOT_THERE.search(answer.error):
        return Judgement(Outcome.UNKNOWN, f"{request.name}: HTTP {new.status} {answer.error}".rstrip())
    if request.golden is not None:
        return _judge_golden(request, request.golden, new, answer)
    before = None if old is None or old.is_late else read_reply(old, request)
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


def _judge_golden(request: TrialRequest, golden: Request, reply: Reply, answer: Answer) -> Judgement:
    if answer.error:
        return Judgement(Outcome.BAD, f"{request.name}: HTTP {reply.status}: {answer.error}")
    for name, wanted in sorted(golden.outputs.items()):
        dtype = request.signature.outputs[name].dtype
        if name not in answer.outputs:
            return Judgement(Outcome.BAD, f"{request.name}: no output {name[:100]!a}")
        try:
            found = decoded(answer.outputs[name], text=dtype == "string")
            found = as_numbers(found) if dtype in FLOATS else found  # JSON may leave out the `.0`
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
    request: TrialRequest, new: Reply, answer: Answer, before: tuple[Reply | None, Answer | None]
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
    if answers_now and (request.is_typical or _UNFIT.search(answer.error)):
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
