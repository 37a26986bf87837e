"""Finds what a graph may do besides computing; reads `saved_model.pb` without TensorFlow.

This is a tripwire, not a sandbox (`docs/operations.md`): it finds the known operations of TensorFlow that
read or write files, run code or talk to other machines. Custom operations, which a server has only if it
loads a library of its own, cannot be recognized and are not reported.
"""

from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Final, Literal, TypeAlias

from servesync.errors import Reason, ReleaseRefused
from servesync.verify.assets import asset_tensors
from servesync.verify.graph_def import read_scope
from servesync.verify.meta_graph import Entrances, read_entrances
from servesync.verify.parse_budget import Reader
from servesync.verify.reachability import Finding, Seen, Traversal
from servesync.verify.saved_model import opened
from servesync.verify.structure import AGAIN
from servesync.wire import Malformed

MAX_FINDINGS: Final = 100
SHOWN_FINDINGS: Final = 5

Policy: TypeAlias = Literal["allow", "warn", "refuse"]


@dataclass(frozen=True, slots=True)
class OperationsReport:
    """What a graph may do: `reachable` counts its nodes; `findings` are the first 100 of `total`, sorted."""

    reachable: int
    findings: tuple[Finding, ...]
    total: int


def find_operations(root: Path) -> OperationsReport:
    """Return the operations that reach out of the graph, of those that the server may run.

    The server may run what leads to an output of a signature, to the init op or to the saver, in the first
    meta graph with exactly the tag `serve` of the SavedModel in `root`. The saver's own reading and writing
    of checkpoints is left out, as are vocabularies that the init op reads from the model's assets, and
    custom operations, whose names say nothing. An empty report is no proof of safety.

    Raises:
        ReleaseRefused: `SAVED_MODEL_MISSING`; `SAVED_MODEL_CORRUPT`, also for a graph that is larger or
            nested deeper than any real one; `SAVED_MODEL_NO_SERVE_TAG`.
        OSError: the file cannot be read.
    """
    path = root / "saved_model.pb"
    if not path.is_file():
        raise ReleaseRefused(Reason.SAVED_MODEL_MISSING, f"there is no saved_model.pb; {AGAIN}")
    try:
        with opened(path) as data:
            report = _report(data)
    except Malformed as error:
        text = f"saved_model.pb is damaged: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    if report is None:
        text = f"no graph in saved_model.pb has exactly the tag 'serve'; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_NO_SERVE_TAG, text)
    return report


def check_operations(report: OperationsReport, policy: Policy) -> None:
    """Refuse a release whose graph may do more than compute; `warn` and `allow` refuse nothing.

    Raises:
        ReleaseRefused: `UNSAFE_OPERATIONS`, if the policy is `refuse` and anything was found.
    """
    if policy != "refuse" or not report.total:
        return
    shown = "; ".join(_sentence(finding) for finding in report.findings[:SHOWN_FINDINGS])
    more = report.total - min(len(report.findings), SHOWN_FINDINGS)
    others = f"; and {more} more" if more else ""
    text = (
        f"the graph may do more than compute: {shown}{others}; ask who published it why, and export the "
        f"model without these operations under a new number"
    )
    raise ReleaseRefused(Reason.UNSAFE_OPERATIONS, text, operations=_names(report))


def _report(data: memoryview) -> OperationsReport | None:
    reader = Reader()
    entrances = read_entrances(reader, data)
    if entrances is None:
        return None
    seen = Seen(reader)
    _traverse(seen, entrances)
    kept = tuple(nsmallest(MAX_FINDINGS, seen.findings))
    return OperationsReport(seen.reachable, kept, len(seen.findings))


def _traverse(seen: Seen, entrances: Entrances) -> None:
    """Follow the graph once for each kind of entrance, which decides which operations are harmless."""
    scope = read_scope(seen.reader, entrances.graphs)
    assets = asset_tensors(seen.reader, scope, entrances.assets)
    Traversal(seen, scope, assets, is_saver=False).run("init op", entrances.init)
    Traversal(seen, scope, assets, is_saver=True).run("saver", entrances.saver)
    signatures = Traversal(seen, scope, (), is_saver=False)
    for name, tensors in sorted(entrances.signatures.items()):
        signatures.run(f"signature {ascii(name[:200])[1:-1]}", tensors)


def _names(report: OperationsReport) -> list[str]:
    return sorted({finding.operation for finding in report.findings})


def _sentence(finding: Finding) -> str:
    what = f"{finding.operation} ({finding.danger})"
    return f"{what} in node {finding.node} of {finding.place[:300]}, reached from {finding.root}"
