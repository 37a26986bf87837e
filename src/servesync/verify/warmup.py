"""Warm-up requests: what the server runs on a version before it says AVAILABLE, proven without TensorFlow.

They lie in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog messages. One bad
record makes the server refuse the version. What is refused here is refused there: source
`tensorflow_serving/servables/tensorflow/saved_model_warmup{,_util}.cc`, `predict_util.cc` and
`multi_inference.cc`. The server looks at the signature's name; at the model's only in a multi-inference,
where it may be any; never at the version. A record without a log passes. Whether a request succeeds, only
the server can tell.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.files import NotRegular
from servesync.verify.parse_budget import Reader
from servesync.verify.proto import (
    InferenceRequest,
    MapEntry,
    ModelSpec,
    MultiInferenceRequest,
    PredictionLog,
    SignatureDef,
)
from servesync.verify.structure import AGAIN, serving_graph
from servesync.verify.tfrecord import records
from servesync.wire import BYTES, Malformed

WARMUP: Final = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS: Final = 1000
DEFAULT_SIGNATURE: Final = "serving_default"
SHOWN: Final = 5
_LOGS: Final = frozenset(range(PredictionLog.CLASSIFY_LOG, PredictionLog.PREDICT_STREAMED_LOG + 1))
_NOT_REPLAYED: Final = {
    PredictionLog.SESSION_RUN_LOG: "session_run_log",
    PredictionLog.PREDICT_STREAMED_LOG: "predict_streamed_log",
}

_Message = list[memoryview]
"""A message in one piece or, as the format allows, in several that belong together."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The names of a signature's inputs, and of those that have a default value."""

    names: frozenset[str]
    defaults: frozenset[str]


def check_warmup(root: Path, check: Callable[[], None] = lambda: None) -> int:
    """Make sure that the server takes the warm-up requests of the SavedModel in `root`; return how many.

    `check` is called for every MiB and may raise.

    Raises:
        ReleaseRefused: `WARMUP_INVALID`: the server would refuse the version; the first bad record is named.
        OSError: a file cannot be read.
    """
    if not (root / WARMUP).exists():
        return 0
    signatures, parser = _signatures(root), _Parser()
    number = 0
    with closing(records(root / WARMUP, check)) as found:
        while True:
            number += 1
            try:
                record = next(found, None)
            except NotRegular as error:
                raise _refusal(f"{error.strerror}", 0) from error
            except Malformed as error:
                raise _refusal(f"record {number}: {error}", number) from error
            if record is None:
                return number - 1
            flaw = _flaw(record, parser, signatures)
            if flaw or number > MAX_RECORDS:
                raise _refusal(
                    f"record {number}: {flaw or f'the server takes {MAX_RECORDS} at most'}", number
                )


def _refusal(what: str, number: int) -> ReleaseRefused:
    advice = (
        "the server would refuse the version; record the requests again (docs/releases.md says how), or "
        "leave the file out, and publish under a new number"
    )
    return ReleaseRefused(Reason.WARMUP_INVALID, f"{WARMUP}: {what}", advice, file=WARMUP, record=number)


class _Parser:
    """Reads messages that may come in several pieces; a field of another kind than it should be is none."""

    def __init__(self) -> None:
        self._reader = Reader()

    def messages(self, message: Iterable[memoryview], number: int) -> _Message:
        return [
            item.data
            for piece in message
            for item in self._reader.fields(piece)
            if item.number == number and item.kind == BYTES
        ]

    def text(self, message: Iterable[memoryview], number: int) -> str:
        """Return a string field, of which the last one counts."""
        found = self.messages(message, number)
        try:
            return bytes(found[-1]).decode() if found else ""
        except UnicodeDecodeError:
            raise Malformed("a name that is not UTF-8") from None

    def keys(self, message: Iterable[memoryview], number: int) -> frozenset[str]:
        """Return the keys of a map."""
        return frozenset(self.text([entry], MapEntry.KEY) for entry in self.messages(message, number))

    def log(self, record: memoryview) -> tuple[int, _Message]:
        """Return the kind of a PredictionLog, 0 if it has none, and the log: the last kind counts."""
        kind, log = 0, list[memoryview]()
        for item in self._reader.fields(record):
            if item.number in _LOGS and item.kind == BYTES:
                log = [*log, item.data] if item.number == kind else [item.data]
                kind = item.number
        return kind, log


def _signatures(root: Path) -> Mapping[str, _Inputs]:
    parser, found = _Parser(), {}
    try:
        for data in serving_graph(root).signature_entries:
            entry = memoryview(data)
            definition = parser.messages([entry], MapEntry.VALUE)
            names = parser.keys(definition, SignatureDef.INPUTS)
            defaults = parser.keys(definition, SignatureDef.DEFAULTS)
            found[parser.text([entry], MapEntry.KEY)] = _Inputs(names, defaults)
    except Malformed as error:
        text = f"saved_model.pb is damaged: in a signature: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    return found


def _flaw(record: memoryview, parser: _Parser, signatures: Mapping[str, _Inputs]) -> str:
    """Return in words what is wrong with a record, nothing if it is right."""
    try:
        kind, log = parser.log(record)
        request = parser.messages(log, PredictionLog.REQUEST)
        if kind in _NOT_REPLAYED:
            return f"a {_NOT_REPLAYED[kind]}, which the server does not replay"
        if kind == PredictionLog.MULTI_INFERENCE_LOG:
            return _flaw_of_tasks(parser.messages(request, MultiInferenceRequest.TASKS), parser, signatures)
        if kind != PredictionLog.PREDICT_LOG:
            return _flaw_of_name(request, parser, signatures) if kind else ""
        return _flaw_of_name(request, parser, signatures) or _flaw_of_inputs(
            parser.keys(request, InferenceRequest.PREDICT_INPUTS), signatures[_name_of(request, parser)]
        )
    except Malformed as error:
        return f"it is no PredictionLog: {error}"


def _name_of(request: _Message, parser: _Parser) -> str:
    spec = parser.messages(request, InferenceRequest.MODEL_SPEC)
    return parser.text(spec, ModelSpec.SIGNATURE_NAME) or DEFAULT_SIGNATURE


def _flaw_of_name(request: _Message, parser: _Parser, signatures: Mapping[str, _Inputs]) -> str:
    name = _name_of(request, parser)
    if name in signatures:
        return ""
    return f"the version has no signature {name[:100]!a}, there is {_listed(signatures)}"


def _flaw_of_tasks(tasks: _Message, parser: _Parser, signatures: Mapping[str, _Inputs]) -> str:
    models = {
        parser.text(parser.messages([task], InferenceRequest.MODEL_SPEC), ModelSpec.NAME) for task in tasks
    }
    if "" in models or len(models) > 1:
        return "the tasks of a multi-inference must all name one model"
    return next(filter(None, (_flaw_of_name([task], parser, signatures) for task in tasks)), "")


def _flaw_of_inputs(sent: frozenset[str], inputs: _Inputs) -> str:
    """Compare as the server does, which counts the inputs, and then looks for those that it needs."""
    missing = inputs.names - sent - inputs.defaults
    if not missing and len(sent) <= len(inputs.names):
        return ""
    return f"inputs missing: {_listed(missing)}; no such inputs: {_listed(sent - inputs.names)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(ascii(name[:100]) for name in sorted(names)[:SHOWN]) or "none"
