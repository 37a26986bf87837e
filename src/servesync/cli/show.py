"""How a plan is shown: as tables for people, as one JSON object for programs."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from servesync.agent.admission import MemoryView
from servesync.agent.models_config import Draft
from servesync.agent.observe import ModelView, Observation
from servesync.errors import Reason, SyncError
from servesync.plan.facts import Follow, Role

_STYLES: Final = {
    Role.SERVING: "green",
    Role.TO_INSTALL: "cyan",
    Role.TO_REPAIR: "cyan",
    Role.WAITING: "yellow",
    Role.TO_PRUNE: "magenta",
    Role.RESERVED: "blue",
    Role.HELD: "red",
    Role.FOREIGN: "red",
    Role.MISSING: "red",
}


_UNREADABLE: Final = Reason.RECORD_UNREADABLE.value
_STUCK: Final = frozenset({Role.HELD, Role.MISSING})


def show(seen: Observation, console: Console) -> None:
    """Print one table a model, and what comes next."""
    for trouble in (seen.store_error, seen.server_error, *seen.broken.values()):
        if trouble is not None:
            console.print(f"[red]{trouble.reason.value}[/red]: {escape(str(trouble))}")
    for model, view in seen.models.items():
        table = Table(title=f"{model}", title_justify="left", show_edge=False, pad_edge=False)
        for column in ("version", "state", "why"):
            table.add_column(column, overflow="fold")
        for version, verdict in sorted(view.plan.verdicts.items(), reverse=True):
            style = _STYLES.get(verdict.role, "")
            state = f"[{style}]{verdict.role.value}[/]" if style else verdict.role.value
            table.add_row(str(version), state, escape(verdict.why))
        for name in view.inventory.strange:
            table.add_row(
                ascii(name), "[red]foreign[/]", "the server takes this name for a version; move it away"
            )
        console.print(table)
        console.print(
            "".join(f"[red]{_UNREADABLE}[/red]: {escape(text)}\n" for text in view.unreadable), end=""
        )
        console.print(_next_step(view))
    _show_config(seen.config, console)
    console.print(_memory_line(seen.memory))
    listing = seen.listing
    if listing is not None and listing.ignored_keys:
        examples = ", ".join(listing.ignored_examples)
        console.print(
            f"{listing.ignored_keys} keys are no release of these models by store.key_pattern, "
            f"for example: {escape(examples)}"
        )


def _show_config(draft: Draft | None, console: Console) -> None:
    if draft is None:
        return
    if draft.problem is not None:
        console.print(f"[red]{draft.problem.reason.value}[/red]: {escape(str(draft.problem))}")
    elif draft.is_written:
        console.print(f"{escape(str(draft.path))}: as it should be")
    else:
        changes = "; ".join(draft.changes) or "nothing changes for the server"
        console.print(f"{escape(str(draft.path))} would be written: {escape(changes)}")
    for (model, label), why in draft.waiting.items():
        console.print(f"label {label} of {model}: {escape(why)}")


def _memory_line(memory: MemoryView) -> str:
    if memory.budget is None:
        return f"memory: nothing is compared: {escape(memory.source)}"
    taken = sum(item.bytes for item in memory.loaded)
    return f"memory: {taken} bytes of {memory.budget.bytes} are taken, by estimate ({escape(memory.source)})"


def _memory_json(memory: MemoryView) -> Mapping[str, Any]:
    return {
        "budget_bytes": memory.budget.bytes if memory.budget else None,
        "source": memory.source,
        "loaded": [
            {"model": item.model, "version": item.version, "bytes": item.bytes} for item in memory.loaded
        ],
        "short": [
            {
                "model": model,
                "version": short.version,
                "way": short.way.value,
                "needed_bytes": short.needed_bytes,
                "missing_bytes": short.missing_bytes,
            }
            for model, short in memory.shortages
        ],
    }


def _next_step(view: ModelView) -> str:
    if not view.plan.verdicts:
        store = "the store was not listed" if view.facts.offered is None else "no version in the store"
        return f"{store}, and none is on the shelf\n"
    steps = [
        f"{type(action).__name__.lower()} {action.version}: {escape(action.because)}"
        for action in view.plan.actions
    ]
    return ("next: " + "; ".join(steps) if steps else _why_nothing(view)) + "\n"


def _why_nothing(view: ModelView) -> str:
    if view.facts.offered is None:
        return "not known: the store was not listed"
    policy = view.facts.policy
    unknown = (
        [name for name in policy.channels if name not in view.facts.channels]
        if isinstance(policy, Follow)
        else []
    )
    if unknown:
        move = f"servesync promote {view.plan.model} VERSION --channel {unknown[0]}"
        return f"nothing, until the channel {', '.join(unknown)} has a position: `{move}`"
    stuck = [version for version, verdict in view.plan.verdicts.items() if verdict.role in _STUCK]
    return f"nothing can be done for {', '.join(map(str, stuck))}: see above" if stuck else "nothing to do"


def as_json(seen: Observation) -> Mapping[str, Any]:
    """Return what `plan --json` prints."""
    return {
        "store_error": _error_json(seen.store_error),
        "server_error": _error_json(seen.server_error),
        "memory": _memory_json(seen.memory),
        "ignored_keys": seen.listing.ignored_keys if seen.listing else None,
        "models": {
            model: {
                "wanted": sorted(view.plan.wanted),
                "in_place": view.plan.in_place,
                "served": view.plan.served,
                "actions": [
                    {
                        "action": type(action).__name__.lower(),
                        "version": action.version,
                        "because": action.because,
                    }
                    for action in view.plan.actions
                ],
                "versions": {
                    str(version): {"state": verdict.role.value, "why": verdict.why}
                    for version, verdict in view.plan.verdicts.items()
                },
                "strange": list(view.inventory.strange),
                "unreadable": list(view.unreadable),
            }
            for model, view in seen.models.items()
        },
        "config_file": _config_json(seen.config),
        "broken": {model: _error_json(error) for model, error in seen.broken.items()},
    }


def _config_json(draft: Draft | None) -> Mapping[str, Any] | None:
    if draft is None:
        return None
    return {
        "path": str(draft.path),
        "as_it_should_be": draft.is_written,
        "changes": list(draft.changes),
        "labels_waiting": [
            {"model": model, "label": label, "why": why} for (model, label), why in draft.waiting.items()
        ],
        "problem": _error_json(draft.problem),
    }


def _error_json(error: SyncError | None) -> Mapping[str, str] | None:
    return None if error is None else {"reason": error.reason.value, "text": str(error)}
