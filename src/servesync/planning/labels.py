"""Decides which labels the server gets now, and which models stand in its file: facts in, answer out.

The server refuses a whole new configuration when one label in it names a version that is not AVAILABLE. So a
label is given or moved only to a version that the server calls AVAILABLE, and moves only then; until then it
stays where it is, if that version is good. While the server does not answer, no label moves.

While no server listens at all, there is nothing to refuse but its next start. A server that was started with
`--allow_version_labels_for_unavailable_models` takes any label then; one that was started without it exits.
Labels are therefore written for the first only (a setting says so), and leave the file even then when a
server does not come up.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto

from servesync.domain.versions import Model, Version
from servesync.planning.facts import Served, ServerState

Labels = Mapping[str, Version]


@dataclass(frozen=True, slots=True)
class Channel:
    """The version to which a channel of the store points."""

    name: str


def wanted_labels(
    targets: Mapping[str, Version | Channel] | None, followed: AbstractSet[str], channels: Labels
) -> dict[str, Version | None]:
    """Return where each label of a model is to point; None for one whose channel is not known now.

    Args:
        targets: What the settings say; None: each followed channel is a label of the same name.
        followed: The channels that the model's policy follows.
        channels: Where the channels of the store point.
    """
    if targets is None:
        targets = {name: Channel(name) for name in sorted(followed)}
    return {
        label: channels.get(target.name) if isinstance(target, Channel) else target
        for label, target in targets.items()
    }


class Link(Enum):
    """How the agent stands to the server."""

    ANSWERS = auto()
    SILENT = auto()
    """It may be there or not; nothing is known."""
    DOWN = auto()
    """Nothing listens at its port: it is starting, or not running."""
    LOST = auto()
    """Down for longer than a start may take."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What is known of one model. `written` stands in the file; `shelf`: what is there and not damaged."""

    wanted: Mapping[str, Version | None]
    written: Labels
    shelf: AbstractSet[Version]
    link: Link
    served: Mapping[Version, Served] = field(default_factory=dict)
    on_trial: AbstractSet[Version] = frozenset()
    """Versions that the server calls AVAILABLE, and that have not answered the trial requests yet."""


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """The labels to write now, and for each that is not where it should be, why."""

    labels: Labels
    waiting: Mapping[str, str] = field(default_factory=dict)


def next_labels(facts: LabelFacts) -> LabelPlan:
    """Return the labels that the file is to have now."""
    if facts.link is Link.SILENT:
        return LabelPlan(dict(facts.written))
    if facts.link is Link.LOST:
        why = "left out of the file because the server does not come up; back when it serves the version"
        return LabelPlan({}, dict.fromkeys(sorted(facts.wanted), why))
    labels: dict[str, Version] = {}
    waiting: dict[str, str] = {}
    for label, target in sorted(facts.wanted.items()):
        found = _position(facts, target, facts.written.get(label))
        if found is not None:
            labels[label] = found
        if found is None or found != target:
            waiting[label] = _why(facts, target, found)
    return LabelPlan(labels, waiting)


def _position(facts: LabelFacts, target: Version | None, present: Version | None) -> Version | None:
    """Return where one label points now: at its target, where it was, or nowhere."""
    if facts.link is Link.DOWN:
        return next((v for v in (present, target) if v in facts.shelf), None)
    may_move = target in facts.shelf and target not in facts.on_trial
    if target is not None and may_move and _state(facts, target) is ServerState.AVAILABLE:
        return target
    on_its_way = {ServerState.AVAILABLE, ServerState.START, ServerState.LOADING}
    return present if present is not None and _state(facts, present) in on_its_way else None


def _state(facts: LabelFacts, version: Version) -> ServerState | None:
    served = facts.served.get(version)
    return served.state if served else None


def _why(facts: LabelFacts, target: Version | None, found: Version | None) -> str:
    stays = "given to no version" if found is None else f"stays at {found}"
    if target is None:
        return f"{stays}: its channel is not in the store, or not known yet"
    if facts.link is Link.DOWN:
        return f"{stays}: the server has to serve {target} before the label moves there"
    if target not in facts.shelf:
        return f"{stays}: {target} is not on the shelf; the model's versions decide what comes there"
    if target in facts.on_trial:
        return f"{stays}: {target} has not answered the trial requests yet"
    state = _state(facts, target)
    return f"{stays}: of {target} the server says {state.value if state else 'nothing'}, not AVAILABLE"


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """What decides whether a model stands in the file."""

    listed: bool
    required: bool
    has_versions: bool
    link: Link
    serves: bool = False
    """The server says AVAILABLE of one of its versions."""
    first: bool = False
    """There is no file yet."""


def is_listed(facts: EntryFacts) -> bool:
    """Tell whether a model is to stand in the file.

    A server waits for a first version of every model in its file: at its start with closed ports, later
    with every further change of the file. So a model without a version comes into it only when it is
    required and no server is held up that already works, and one that is not required leaves it.
    """
    if facts.has_versions or facts.serves:
        return True
    if facts.listed:
        return facts.required or facts.link is Link.SILENT
    return facts.required and (facts.first or facts.link in {Link.DOWN, Link.LOST})


def would_be_taken(
    models: Mapping[Model, Labels], served: Mapping[Model, Mapping[Version, Served] | None]
) -> bool:
    """Tell whether the server takes a file with these models and labels when it reads it now.

    It refuses one with a label to a version that is not AVAILABLE, and reads none while it waits for the
    first version of a model.
    """
    for model, labels in models.items():
        found = served.get(model) or {}
        states = {version: item.state for version, item in found.items()}
        if any(states.get(version) is not ServerState.AVAILABLE for version in labels.values()):
            return False
        if not {ServerState.AVAILABLE, ServerState.END} & set(states.values()):
            return False
    return True
