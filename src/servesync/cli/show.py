"""Shows a plan: as tables for people, or as one JSON object for programs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from servesync.agent.model_snapshot import ModelSnapshot
from servesync.agent.models_config import Draft
from servesync.agent.snapshot import Seen
from servesync.cli.terminal import state_of
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, SyncError
from servesync.planning.actions import Action, Install, Repair
from servesync.planning.facts import Follow, ModelPlan, Role
from servesync.planning.fleet_facts import Step
from servesync.transfer.sources.supply import Forecast

_UNREADABLE: Final = Reason.RECORD_UNREADABLE.value
_STUCK: Final = frozenset({Role.HELD, Role.MISSING})


def show(seen: Seen, console: Console) -> None:
    """Print one table for each model, and what happens next."""
    for trouble in (seen.store_error, seen.server_error, *seen.snapshot.broken.values()):
        if trouble is not None:
            console.print(f"[red]{trouble.reason.value}[/red]: {escape(str(trouble))}")
    for model, snapshot in seen.snapshot.models.items():
        plan = seen.plan.models[model]
        table = Table(title=f"{model}", title_justify="left", show_edge=False, pad_edge=False)
        for column in ("version", "state", "why"):
            table.add_column(column, overflow="fold")
        for version, verdict in sorted(plan.verdicts.items(), reverse=True):
            table.add_row(str(version), state_of(verdict.role.value), escape(verdict.why))
        for name in snapshot.inventory.foreign_names:
            table.add_row(
                ascii(name), state_of("foreign"), "the server takes this name for a version; move it away"
            )
        console.print(table)
        console.print(
            "".join(f"[red]{_UNREADABLE}[/red]: {escape(text)}\n" for text in snapshot.unreadable), end=""
        )
        console.print(_next_step(snapshot, plan, _later(seen, model), _forecasts(seen, model)))
    _show_config(seen.config, console)
    console.print(_memory_line(seen))
    listing = seen.listing
    if listing is not None and listing.ignored_keys:
        examples = ", ".join(listing.ignored_examples)
        console.print(
            f"{listing.ignored_keys} keys are no release of these models by store.key_pattern, "
            f"for example: {escape(examples)}"
        )


def _later(seen: Seen, model: Model) -> list[Step]:
    """Return the steps that wait for the load gate, or for a free transfer."""
    return [step for step in seen.plan.postponed if step.model == model]


def _forecasts(seen: Seen, model: Model) -> Mapping[Version, Forecast]:
    return {version: found for (name, version), found in seen.forecasts.items() if name == model}


def _show_config(draft: Draft | None, console: Console) -> None:
    if draft is None:
        return
    if draft.problem is not None:
        console.print(f"[red]{draft.problem.reason.value}[/red]: {escape(str(draft.problem))}")
    elif draft.is_written:
        console.print(f"{escape(str(draft.path))}: up to date")
    else:
        changes = "; ".join(draft.changes) or "nothing changes for the server"
        console.print(f"{escape(str(draft.path))} would be written: {escape(changes)}")
    for (model, label), why in draft.waiting.items():
        console.print(f"label {label} of {model}: {escape(why)}")


def _memory_line(seen: Seen) -> str:
    memory = seen.snapshot.fleet.memory
    if memory.budget is None:
        return f"memory: nothing is compared: {escape(memory.source)}"
    taken = sum(item.bytes for item in seen.plan.loaded)
    return f"memory: {taken} bytes of {memory.budget.bytes} are taken, by estimate ({escape(memory.source)})"


def _memory_json(seen: Seen) -> Mapping[str, Any]:
    memory = seen.snapshot.fleet.memory
    return {
        "budget_bytes": memory.budget.bytes if memory.budget else None,
        "source": memory.source,
        "loaded": [
            {"model": item.model, "version": item.version, "bytes": item.bytes} for item in seen.plan.loaded
        ],
        "short": [
            {
                "model": model,
                "version": short.version,
                "way": short.remedy.value,
                "needed_bytes": short.needed_bytes,
                "missing_bytes": short.missing_bytes,
            }
            for model, short in seen.plan.shortages
        ],
    }


def _forecast(forecasts: Mapping[Version, Forecast], action: Action) -> str:
    found = forecasts.get(action.version) if isinstance(action, Install | Repair) else None
    return f" ({found})" if found else ""


def _next_step(
    snapshot: ModelSnapshot, plan: ModelPlan, later: list[Step], forecasts: Mapping[Version, Forecast]
) -> str:
    if not plan.verdicts:
        store = "the store was not listed" if snapshot.facts.offered is None else "no version in the store"
        return f"{store}, and none is on the shelf\n"
    steps = [
        f"{action.kind.value} {action.version}: {escape(action.because)}{_forecast(forecasts, action)}"
        for action in plan.actions
    ]
    text = "next: " + "; ".join(steps) if steps else _why_nothing(snapshot, plan)
    waits = "".join(f"\n{step.action.kind.value} {step.action.version} waits for its turn" for step in later)
    return f"{text}{waits}\n"


def _why_nothing(snapshot: ModelSnapshot, plan: ModelPlan) -> str:
    if snapshot.facts.offered is None:
        return "not known: the store was not listed"
    policy = snapshot.facts.policy
    unknown = (
        [name for name in policy.channels if name not in snapshot.facts.channels]
        if isinstance(policy, Follow)
        else []
    )
    if unknown:
        move = f"servesync promote {plan.model} VERSION --channel {unknown[0]}"
        return f"nothing, until the channel {', '.join(unknown)} has a position: `{move}`"
    stuck = [version for version, verdict in plan.verdicts.items() if verdict.role in _STUCK]
    return f"nothing can be done for {', '.join(map(str, stuck))}: see above" if stuck else "nothing to do"


def as_json(seen: Seen) -> Mapping[str, Any]:
    """Return what `plan --json` prints."""
    return {
        "store_error": _error_json(seen.store_error),
        "server_error": _error_json(seen.server_error),
        "memory": _memory_json(seen),
        "ignored_keys": seen.listing.ignored_keys if seen.listing else None,
        "models": {
            model: _model_json(snapshot, seen.plan.models[model], _forecasts(seen, model))
            for model, snapshot in seen.snapshot.models.items()
        },
        "steps": [_step_json(step) for step in seen.plan.steps],
        "postponed": [_step_json(step) for step in seen.plan.postponed],
        "config_file": _config_json(seen.config),
        "broken": {model: _error_json(error) for model, error in seen.snapshot.broken.items()},
    }


def _model_json(
    snapshot: ModelSnapshot, plan: ModelPlan, forecasts: Mapping[Version, Forecast]
) -> Mapping[str, Any]:
    return {
        "wanted": sorted(plan.wanted),
        "in_place": plan.in_place,
        "served": plan.served,
        "actions": [
            {"action": action.kind.value, "version": action.version, "because": action.because}
            for action in plan.actions
        ],
        "versions": {
            str(version): {"state": verdict.role.value, "why": verdict.why}
            for version, verdict in plan.verdicts.items()
        },
        "to_fetch": {str(version): asdict(found) for version, found in forecasts.items()},
        "strange": list(snapshot.inventory.foreign_names),
        "unreadable": list(snapshot.unreadable),
    }


def _step_json(step: Step) -> Mapping[str, Any]:
    action = step.action
    return {
        "model": step.model,
        "action": action.kind.value,
        "version": action.version,
        "because": action.because,
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
