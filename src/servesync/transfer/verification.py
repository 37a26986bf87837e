"""Verifies the SavedModel of a transfer: structure, operations, signatures, requests, tensors, trial load."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from servesync.errors import CheckFailed
from servesync.jobs import POLL_SECONDS
from servesync.logs import Event, get_logger
from servesync.settings import Signature, Verify
from servesync.verify import (
    Expectations,
    LoadReport,
    check_operations,
    check_signatures,
    check_warmup,
    find_operations,
    in_words,
    load_model,
    read_signatures,
    verify_structure,
    verify_tensors,
)

SHOWN_FINDINGS: Final = 5


def verify_tree(
    root: Path,
    settings: Verify,
    expected: Expectations | CheckFailed,
    trial_lock: threading.Lock,
    check: Callable[[], None],
    *,
    patient: bool,
) -> tuple[int, Mapping[str, Signature]]:
    """Verify a SavedModel as far as `settings` ask; return the bytes of its tensors, and its signatures.

    `trial_lock` is held while the model is loaded, so that only one model is loaded at a time. `check` is
    called often and may raise, to stop early. `patient`: see `load_model`.

    Raises:
        ReleaseRefused: the model is damaged, unsafe, or not what clients expect.
        CheckFailed: this machine could not carry out the verification; or `expected`, if it is that.
        OSError: the tree cannot be read.
    """
    started = time.monotonic()
    found = verify_structure(root)
    check()
    _check_operations(root, settings)
    check()
    if isinstance(expected, CheckFailed):
        raise expected
    signatures = read_signatures(root)
    check_signatures(signatures, expected)
    check_warmup(root, check)
    checked = verify_tensors(root, check=check).tensors if settings.level != "structure" else 0
    trial = None
    if settings.level == "load":
        while not trial_lock.acquire(timeout=POLL_SECONDS):
            check()
        try:
            trial = load_model(root, expected, settings.load, patient=patient, check=check)
        finally:
            trial_lock.release()
    get_logger().info(
        Event.VERSION_VERIFIED,
        verify_level=settings.level,
        tensors=found.tensors,
        tensors_checked=checked,
        tensor_bytes=found.tensor_bytes,
        **({} if trial is None else _facts_of(trial)),
        seconds=round(time.monotonic() - started, 3),
    )
    return found.tensor_bytes, signatures


def _check_operations(root: Path, settings: Verify) -> None:
    """Log the operations of the graph that do more than compute, and refuse them if settings ask for that."""
    if settings.unsafe_ops == "allow":
        return
    report = find_operations(root)
    check_operations(report, settings.unsafe_ops)
    if report.total:
        get_logger().warning(
            Event.UNSAFE_OPERATIONS,
            because="reachable in the graph; verify.unsafe_ops: refuse would keep such a version out",
            operations=report.total,
            examples=[in_words(finding) for finding in report.findings[:SHOWN_FINDINGS]],
        )


def _facts_of(trial: LoadReport) -> dict[str, str | int | float]:
    """Return what the log says about a trial load."""
    return {
        "load_seconds": round(trial.load_seconds, 3),
        "golden_requests": trial.golden_requests,
        "peak_memory_bytes": trial.peak_memory_bytes,
        "network": trial.network,
    }
