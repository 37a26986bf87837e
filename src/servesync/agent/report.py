"""Logs what is new in a turn's snapshot and plan, and nothing twice."""

from collections.abc import Iterator, Mapping
from typing import Final

from servesync.agent import announce
from servesync.agent.channels import Moved, Withdrawn
from servesync.agent.context import AgentContext
from servesync.agent.discovery import MOST_MODELS
from servesync.agent.model_snapshot import ModelSnapshot
from servesync.agent.snapshot import Seen
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerError, StoreError, TransferError
from servesync.logs import Event, get_logger
from servesync.planning.actions import Wait
from servesync.planning.facts import Condition, Role
from servesync.planning.memory import Remedy, Shortage

MOST_NAMED: Final = 20


def report(context: AgentContext, seen: Seen, *, polled: bool) -> None:
    """Log what is new. `polled`: the store was asked since the last report."""
    said = context.state.announced
    if polled:
        _trouble(context, "store", seen.store_error, Event.POLL_FAILED, None)
    answers = context.state.server.answers
    asked_at = answers.asked_at if answers else None
    if asked_at != said.server_asked_at:  # the same answer once more is no repetition
        said.server_asked_at = asked_at
        _trouble(context, "server", seen.server_error, Event.SERVER_UNREACHABLE, Event.SERVER_ANSWERS)
    _documents(context)
    for model, error in seen.snapshot.broken.items():
        announce.failed(context, error, model)
    for failed_model, error in context.errors:
        announce.failed(context, error, failed_model)
    context.errors.clear()
    for model, found in seen.snapshot.models.items():
        _unreadable(context, model, found)
        _unrecognized(context, model, found)
        _store(context, model, found, seen)
    _held(context, seen)
    _ignored(context)
    _memory(context, seen)
    if not polled:
        return
    roles = {model: dict(_of_interest(seen, model)) for model in seen.plan.models}
    offered = {model: len(found.offered) for model, found in seen.snapshot.models.items()}
    if seen.store_error is not None:
        said.poll_failed = True
        return
    changes = said.poll.changes(roles, offered)
    say = get_logger().info if changes or said.poll_failed else get_logger().debug
    said.poll_failed = False
    say(Event.POLL_FINISHED, **changes, **_listing_facts(seen))


def _of_interest(seen: Seen, model: Model) -> Iterator[tuple[Version, Role]]:
    for version, verdict in seen.plan.models[model].verdicts.items():
        if verdict.role is not Role.NOT_WANTED:
            yield version, verdict.role


def _listing_facts(seen: Seen) -> Mapping[str, int]:
    if seen.listing is None:
        return {}
    return {"requests": seen.listing.requests, "ignored_keys": seen.listing.ignored_keys}


def _trouble(
    context: AgentContext, who: str, error: StoreError | ServerError | None, event: Event, over: Event | None
) -> None:
    last, throttle = context.state.announced.trouble, context.state.throttle
    before = last.pop(who, None)
    if error is None or error.reason is not before:
        throttle.over((who, before))
    if error is None:
        if before is not None and over:
            get_logger().info(over)
        return
    last[who] = error.reason
    count = throttle.count((who, error.reason))
    if count is not None:
        get_logger().warning(event, reason=error.reason, because=str(error), repeats=count, facts=error.facts)


def _documents(context: AgentContext) -> None:
    """Say where channels have moved to, what was withdrawn, and what of that could not be understood."""
    store_documents, said = context.state.store_documents, context.state.announced
    for event in store_documents.events:
        log = get_logger().bind(model=event.model)
        match event:
            case Moved(name=name, was=was, now=now):
                log.info(
                    Event.CHANNEL_MOVED,
                    version=now.version,
                    channel=name,
                    was=was,
                    sequence=now.sequence,
                    who=now.who,
                    why=now.why,
                )
            case Withdrawn(version=version, text=text):
                log.warning(Event.VERSION_WITHDRAWN, version=version, because=text)
    store_documents.events.clear()
    errors = {(str(model), name, str(error)) for (model, name), error in store_documents.errors.items()}
    for (model, name), error in store_documents.errors.items():
        if (model, name, str(error)) not in said.channels:
            log = get_logger().bind(model=model, channel=name)
            say = log.warning if isinstance(error, StoreError | TransferError) else log.error
            say(Event.CHANNEL_REFUSED, reason=error.reason, because=str(error))
    said.channels = errors


def _ignored(context: AgentContext) -> None:
    """Say when the store has more models than one agent takes."""
    count, once = context.state.ignored_models, context.state.announced.once
    if count and ("too many", count) not in once:
        once.add(("too many", count))
        because = f'"*" stands for at most {MOST_MODELS} models: name those that count, or use more agents'
        get_logger().warning(Event.TOO_MANY_MODELS, because=because, ignored=count)


def _unreadable(context: AgentContext, model: Model, found: ModelSnapshot) -> None:
    """Say once of each record that cannot be read what follows; again if it could be read in between."""
    known = context.state.announced.unreadable
    before = known.get(model, frozenset())
    known[model] = frozenset(found.unreadable)
    for text in found.unreadable:
        if text not in before:
            log = get_logger().bind(model=model)
            log.error(Event.RECORD_UNREADABLE, reason=Reason.RECORD_UNREADABLE, because=text)


def _unrecognized(context: AgentContext, model: Model, found: ModelSnapshot) -> None:
    """Say once what lies on the shelf that servesync did not put there, or that somebody damaged."""
    known = context.state.announced.unrecognized
    by_condition = {
        condition: tuple(v for v, item in found.inventory.versions.items() if item.condition is condition)
        for condition in (Condition.DAMAGED, Condition.FOREIGN)
    }
    there = (found.inventory.foreign_names, *by_condition.values())
    if there == known.get(model, ((), (), ())):
        return
    known[model] = there
    log = get_logger().bind(model=model)
    for version in by_condition[Condition.DAMAGED]:
        log.error(
            Event.VERSION_DAMAGED,
            version=version,
            reason=Reason.VERSION_DAMAGED,
            because="its files are not those that were installed",
        )
    names = [str(version) for version in by_condition[Condition.FOREIGN]]
    names += [ascii(name) for name in found.inventory.foreign_names]
    if names:
        because = "not put there by servesync: left alone, but the server loads whatever has such a name"
        log.warning(Event.VERSION_FOREIGN, names=names, because=because)


def _store(context: AgentContext, model: Model, found: ModelSnapshot, seen: Seen) -> None:
    """Warn once when the store no longer has what is served, or has something else under its number."""
    log, once = get_logger().bind(model=model), context.state.announced.once
    owned = sorted(v for v, item in found.inventory.versions.items() if item.identity)
    empty = ("empty", model)
    if found.facts.offered == {} and owned:
        if empty not in once:
            because = "the store lists no version of this model; that removes nothing, what is there stays"
            log.warning(Event.STORE_EMPTY, because=because, on_shelf=owned)
        once.add(empty)
    elif found.facts.offered:
        once.discard(empty)
    plan = seen.plan.models[model]
    for action in plan.actions:
        overdue = ("overdue", model, action.version)
        if isinstance(action, Wait) and action.overdue and overdue not in once:
            once.add(overdue)
            log.warning(Event.VERSION_NOT_LOADED, version=action.version, because=action.because)
    for version in owned:
        ours, theirs = found.inventory.versions[version].identity, (found.facts.offered or {}).get(version)
        changed = ("changed", model, version, theirs)
        if theirs is not None and theirs != ours and changed not in once:
            once.add(changed)
            because = "versions are immutable: the one on the shelf stays; publish under a new number"
            log.warning(
                Event.VERSION_CHANGED_IN_STORE,
                version=version,
                because=because,
                on_shelf=ours,
                in_store=theirs,
            )


def _held(context: AgentContext, seen: Seen) -> None:
    """Warn once a change that the newest version of a model is held.

    While it is tried again nothing holds it; that is no change before it has come, or is gone.
    """
    known = context.state.announced.held_newest
    for model in [model for model, (version, _) in known.items() if _is_over(seen, model, version)]:
        del known[model]
    for model, held in seen.held.items():
        if known.get(model) != (held.version, held.reason):
            known[model] = (held.version, held.reason)
            log = get_logger().bind(model=model, version=held.version)
            log.warning(Event.NEWEST_HELD, reason=held.reason, because=held.text)


def _is_over(seen: Seen, model: Model, version: Version) -> bool:
    """Whether a version that was held has come to the shelf, or nothing in the store names it any more."""
    found = seen.snapshot.models.get(model)
    if found is None:
        return False
    named = found.offered.keys() | found.facts.held.keys()
    return version in found.inventory.versions or version not in named


def _memory(context: AgentContext, seen: Seen) -> None:
    """Say once what the budget for the server's memory is, and once a change what does not fit into it."""
    memory, said = seen.snapshot.fleet.memory, context.state.announced
    budget = memory.budget.bytes if memory.budget else None
    if said.budget is None or said.budget != (budget,):
        said.budget = (budget,)
        because = memory.source if memory.budget else f"nothing is compared: {memory.source}"
        get_logger().info(Event.MEMORY_BUDGET, budget_bytes=budget, because=because)
    before, said.short = said.short, {}
    for model, short in seen.plan.shortages:
        key = (model, short.version)
        said.short[key] = (short.remedy, short.missing_bytes)
        if before.get(key) != said.short[key]:
            _short(model, short)


def _short(model: Model, short: Shortage) -> None:
    log = get_logger()
    say = log.warning if short.remedy is Remedy.REFUSED else log.info
    say(
        Event.MEMORY_SHORT,
        model=model,
        version=short.version,
        reason=Reason.MEMORY_SHORT,
        because=short.text,
        way=short.remedy.value,
        version_bytes=short.version_bytes,
        needed_bytes=short.needed_bytes,
        budget_bytes=short.budget.bytes,
        missing_bytes=short.missing_bytes,
        loaded={f"{item.model} {item.version}": item.bytes for item in short.loaded[:MOST_NAMED]},
        retire=list(short.retire),
    )
