"""The level `load`: a process of its own loads the version with TensorFlow and runs its golden requests.

This module never imports TensorFlow, and checks the form of every message from that process. An error before
the process opens the version counts as a fault of this machine, not of the version.
"""

import importlib.util
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from servesync.errors import CheckFailed, Reason, ReleaseRefused, SettingsError, SyncError
from servesync.settings import LoadLimits, Signature
from servesync.verify.answer import Answer, Difference, Started, Step, argument_name, parse_line
from servesync.verify.golden import GOLDEN, read_golden
from servesync.verify.last_words import last_words, signal_in_words
from servesync.verify.signatures import (
    Expectations,
    Signatures,
    check_signatures,
    differences,
    read_signatures,
    refusal,
)
from servesync.verify.structure import AGAIN
from servesync.verify.trial import Ended, run_trial

SHOWN_CHARACTERS: Final = 500
SHOWN_DIFFERENCES: Final = 3
LIBRARY_ADVICE: Final = (
    "install it where servesync is, in the release for the TensorFlow there, or remove it from the list"
)
_UNKNOWN_OPERATION: Final = re.compile(r"Op type not registered '([^']{1,200})'")
OTHERWISE: Final = "or set verify.level: checksum"
_NO_MEMORY_SIGNS: Final = (b"bad_alloc", b"Cannot allocate memory", b"failed to map segment", b"MemoryError")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the trial took: `seconds` in all; `peak_memory_bytes`, resident, with TensorFlow's own."""

    signatures: Signatures
    golden_requests: int
    tensorflow_version: str
    network: str
    """`isolated`, or `not isolated` where the kernel did not allow it."""
    seconds: float
    load_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def require_tensorflow(libraries: Sequence[str] = ()) -> None:
    """Make sure that TensorFlow and these `verify.load.libraries` are installed on this machine.

    Nothing is imported: a library may still turn out to be broken.

    Raises:
        SettingsError: `LOAD_UNAVAILABLE`: TensorFlow or one of the libraries is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        advice = f"install servesync[tensorflow], {OTHERWISE}"
        raise SettingsError(Reason.LOAD_UNAVAILABLE, "verify.level: load needs TensorFlow", advice)
    absent = [name for name in libraries if importlib.util.find_spec(name.partition(".")[0]) is None]
    if absent:
        what = f"verify.load.libraries: not installed: {', '.join(absent)}"
        raise SettingsError(Reason.LOAD_UNAVAILABLE, what, LIBRARY_ADVICE)


def load_model(
    root: Path,
    expectations: Expectations,
    limits: LoadLimits,
    *,
    patient: bool = False,
    check: Callable[[], None] = lambda: None,
) -> LoadReport:
    """Load the version in `root` on trial, compare its signatures, and run its golden requests.

    Verify the version's structure first. `check` is called about five times a second and may raise. However
    this ends, no process is left behind. `root` is only read. With `patient`, a trial that was killed from
    outside or ran out of time does not refuse the version: a busy machine may be to blame.

    Raises:
        ReleaseRefused: `SIGNATURE_DIFFERS`, `GOLDEN_INVALID`, `GOLDEN_FAILED`, `GOLDEN_DIFFERS`,
            `LOAD_FAILED`, `LOAD_OPERATION_UNKNOWN`, `LOAD_CRASHED`, or `LOAD_LIMIT`.
        SettingsError: `LOAD_UNAVAILABLE`: TensorFlow, or one of `verify.load.libraries`, is not installed.
        CheckFailed: `LOAD_UNAVAILABLE`: the process failed before it opened the version; or
            `LOAD_CRASHED`, `LOAD_LIMIT`, if `patient`.
        OSError: a file cannot be read, or no process can be started.
    """
    require_tensorflow(limits.libraries)
    graph = read_signatures(root)
    check_signatures(graph, expectations)
    requests = read_golden(root, graph)
    ended = run_trial(root, [request.model_dump() for request in requests], limits, check)
    try:
        started, answer = _answer_of(ended, limits)
    except ReleaseRefused as error:
        if patient and (ended.excess == "wall_seconds" or ended.status == -signal.SIGKILL):
            text = f"{error}; it is tried again, since a busy machine may be to blame"
            raise CheckFailed(error.reason, text, **error.facts) from error
        raise
    _check_loaded(graph, answer.signatures)
    if answer.differences:
        raise _golden_refusal(answer.differences)
    return LoadReport(
        signatures=graph,
        golden_requests=len(requests),
        tensorflow_version=started.tensorflow,
        network=started.network,
        seconds=ended.seconds,
        load_seconds=answer.load_seconds,
        cpu_seconds=answer.cpu_seconds,
        peak_memory_bytes=answer.peak_memory_bytes,
    )


def _answer_of(ended: Ended, limits: LoadLimits) -> tuple[Started, Answer]:
    """Return the messages of a process that loaded the version.

    Raises:
        ReleaseRefused: it failed to, and the version is to blame.
        CheckFailed: it failed before it opened the version.
    """
    first = ended.lines[: len(limits.libraries) + 1]  # a Step for each library, then Started
    started = next(filter(None, (parse_line(Started, line) for line in first)), None)
    limit = _limit_reached(ended, limits)
    if started is None:
        raise _not_started(ended, limit)
    if limit is not None:
        raise _at_limit(limit, f" while {_doing(ended)}")
    answer = parse_line(Answer, ended.lines[-1])
    if ended.status != 0 or answer is None:
        raise _crashed(ended)
    if answer.outcome != "loaded":
        raise _failure(answer, limits)
    return started, answer


def _limit_reached(ended: Ended, limits: LoadLimits) -> str | None:
    """Return the setting whose limit ended the process, with its value; None if none did."""
    name: str | None = ended.excess if ended.excess != "answer" else None
    if ended.status == -signal.SIGXCPU:
        name = "cpu_seconds"
    elif ended.status == -signal.SIGABRT and any(sign in ended.tail for sign in _NO_MEMORY_SIGNS):
        name = "address_space_bytes"
    return None if name is None else _setting(name, limits)


def _setting(name: str, limits: LoadLimits) -> str:
    return f"verify.load.{name} ({getattr(limits, name)})"


def _at_limit(setting: str, during: str = "") -> ReleaseRefused:
    text = f"loading the version on trial reached {setting}{during}; raise the limit if the model needs that"
    return ReleaseRefused(Reason.LOAD_LIMIT, text, limit=setting)


def _crashed(ended: Ended) -> ReleaseRefused:
    killed = ended.status == -signal.SIGKILL
    memory = "perhaps for lack of memory: see the kernel's log"
    so = memory if killed else f"the server would crash, too; {AGAIN}"
    text = f"TensorFlow died while {_doing(ended)}: {_how_it_ended(ended)}; {so}"
    step = _last_step(ended)
    return ReleaseRefused(Reason.LOAD_CRASHED, text, status=ended.status, request=step.request if step else 0)


def _doing(ended: Ended) -> str:
    """Return in words what the process did last, after it had opened the version."""
    step = _last_step(ended)
    return f"it ran golden request {step.request}" if step and step.request else "it loaded the version"


def _last_step(ended: Ended) -> Step | None:
    """Return the last step that the process announced."""
    return parse_line(Step, ended.lines[-1]) if ended.lines else None


def _not_started(ended: Ended, limit: str | None) -> SyncError:
    answer = parse_line(Answer, ended.lines[-1]) if ended.lines else None
    step = _last_step(ended)
    library = answer.library if answer is not None else step.library if step is not None else ""
    if library:
        why = _escaped(answer.message) if answer is not None else _how_it_ended(ended)
        advice = LIBRARY_ADVICE
        if limit is not None:
            why, advice = f"it reached {limit}", "raise the limit, or remove it from the list"
        what = (
            f"verify.load.libraries: {_escaped(library)} cannot be imported beside TensorFlow: {why}; the "
            f"version is not to blame"
        )
        return CheckFailed(Reason.LOAD_UNAVAILABLE, what, advice, status=ended.status, library=library)
    if answer is not None:
        why = f"TensorFlow cannot be imported: {_escaped(answer.message)}"
    elif limit is not None:
        why = f"it reached {limit} before TensorFlow was imported"
    else:
        why = _how_it_ended(ended)
    what = f"the process that loads versions on trial did not start: {why}; the version is not to blame"
    advice = f"repair the installation, raise verify.load.*, {OTHERWISE}"
    return CheckFailed(Reason.LOAD_UNAVAILABLE, what, advice, status=ended.status)


def _how_it_ended(ended: Ended) -> str:
    if ended.excess == "answer":
        return "its answer was too long"
    words = last_words(ended.tail)
    if ended.status < 0:
        how = f"killed by {signal_in_words(-ended.status)}"
    elif ended.status > 0:
        how = f"exit code {ended.status}"
    else:
        how = "no answer that can be understood"
    return f"{how}; {f'it printed: {words}' if words else 'it printed nothing'}"


def _failure(answer: Answer, limits: LoadLimits) -> ReleaseRefused:
    """Return the refusal for an error that TensorFlow raised."""
    message = _escaped(answer.message)
    at_request = f"golden request {answer.request}"
    if answer.memory:
        during = f" ({at_request if answer.request else 'load'}: {message})"
        return _at_limit(_setting("address_space_bytes", limits), during)
    if answer.outcome == "request_failed":
        text = f"{GOLDEN}: {at_request}: the model raised {message}; {AGAIN}, or correct the request"
        return ReleaseRefused(Reason.GOLDEN_FAILED, text, request=answer.request)
    unknown = _UNKNOWN_OPERATION.search(answer.message)
    if unknown is not None:
        return _operation_unknown(_escaped(unknown[1]), limits.libraries)
    return ReleaseRefused(Reason.LOAD_FAILED, f"TensorFlow cannot load the version: {message}; {AGAIN}")


def _operation_unknown(name: str, libraries: Sequence[str]) -> ReleaseRefused:
    """Return the refusal for a version that needs an operation which is not TensorFlow's own."""
    imported = f"beside {', '.join(libraries)}" if libraries else "by itself"
    text = (
        f"TensorFlow {imported} does not know the operation {name}, which the graph uses; the server may "
        f"know it, since it is built with operations that Python's TensorFlow has not: name the module that "
        f"brings it (for example tensorflow_text) in verify.load.libraries, {OTHERWISE}"
    )
    return ReleaseRefused(Reason.LOAD_OPERATION_UNKNOWN, text, operation=name)


def _check_loaded(graph: Signatures, loaded: Signatures) -> None:
    """Make sure that TensorFlow loads the signatures that saved_model.pb lists, sparse ones left out."""
    plain = {name: _comparable(signature) for name, signature in graph.items() if _is_dense(signature)}
    seen = {
        name: _comparable(signature)
        for name, signature in loaded.items()
        if name in plain or name not in graph
    }
    wrong = [f"loaded: {text}" for text in differences(seen, plain, loosely=True)]
    wrong += [f"in the file: {text}" for text in differences(plain, seen, loosely=True)]
    if wrong:
        raise refusal("TensorFlow loads other signatures than saved_model.pb lists", wrong)


def _is_dense(signature: Signature) -> bool:
    return all(
        spec.encoding == "dense" for spec in chain(signature.inputs.values(), signature.outputs.values())
    )


def _comparable(signature: Signature) -> Signature:
    named = {argument_name(name): spec for name, spec in signature.inputs.items()}
    return signature.model_copy(update={"inputs": named})


def _golden_refusal(wrong: list[Difference]) -> ReleaseRefused:
    listed = "; ".join(_in_words(worst) for worst in wrong[:SHOWN_DIFFERENCES])
    more = f"; and {len(wrong) - SHOWN_DIFFERENCES} more outputs" if len(wrong) > SHOWN_DIFFERENCES else ""
    text = f"{GOLDEN}: the model's answers are not the expected ones: {listed}{more}; {AGAIN}"
    first = wrong[0]
    return ReleaseRefused(
        Reason.GOLDEN_DIFFERS,
        text,
        request=first.request,
        output=first.output,
        difference=first.difference,
        allowed=first.allowed,
        outputs=len(wrong),
    )


def _in_words(worst: Difference) -> str:
    place = "".join(f"[{index}]" for index in worst.place)
    allowed = f" (allowed: {worst.allowed:.6g})"
    off = "" if worst.difference is None else f", off by {worst.difference:.6g}{allowed}"
    more = f" ({worst.wrong} elements differ)" if worst.wrong > 1 else ""
    return (
        f"request {worst.request}, output {_escaped(worst.output)}{place} is {_escaped(worst.found)}, not "
        f"{_escaped(worst.expected)}{off}{more}"
    )


def _escaped(text: str) -> str:
    """Return foreign text on one line and shortened."""
    shown = ascii(text)[1:-1]
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."
