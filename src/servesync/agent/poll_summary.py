"""What a poll has changed, for one line of the log that stays short however many models there are."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.planning.facts import Role

MOST_MODELS: Final = 20
MOST_VERSIONS: Final = 12
"""Of each model."""
MOST_CHARACTERS: Final = 3000
"""Of what names models; the rest of the line takes some hundred more."""
GONE: Final = "gone"
_COUNT_CHARACTERS: Final = 12
_OF_CONCERN: Final = frozenset({Role.HELD, Role.MISSING, Role.FOREIGN})

Roles = Mapping[Model, Mapping[Version, Role]]
Changes = Mapping[Model, Mapping[str, str | int]]
"""Of each model its versions and their states, or its states and how many versions are in them."""


class PollSummary:
    """Remembers the roles of the last poll, and returns what has changed; used by one thread."""

    def __init__(self) -> None:
        self._roles: Roles | None = None
        self._in_store: Mapping[Model, int] = {}

    def changes(self, roles: Roles, in_store: Mapping[Model, int]) -> dict[str, object]:
        """Return the fields of `poll_finished` that tell what is new since the last call; empty: nothing is.

        `in_store`: how many versions the store offers of each model. The first call tells how many versions
        of each model are in which state. Models of which something is held, missing or foreign come first.
        """
        before, counts = self._roles, self._in_store
        self._roles = {model: dict(versions) for model, versions in roles.items()}
        self._in_store = dict(in_store)
        if before is None:
            states = {model: Counter(role.value for role in item.values()) for model, item in roles.items()}
            return _fields("states", states, roles, in_store)
        changed = {
            model: difference
            for model in {*before, *roles, *in_store}
            if (difference := _difference(before.get(model, {}), roles.get(model, {})))
            or counts.get(model) != in_store.get(model)
        }
        return _fields("changed", changed, roles, in_store) if changed else {}


def _difference(old: Mapping[Version, Role], new: Mapping[Version, Role]) -> dict[str, str]:
    """Return the state of each version that was in another one, the highest version first."""
    changed = [version for version in {*old, *new} if old.get(version) is not new.get(version)]
    return {
        str(version): new[version].value if version in new else GONE
        for version in sorted(changed, reverse=True)
    }


def _fields(name: str, changes: Changes, roles: Roles, in_store: Mapping[Model, int]) -> dict[str, object]:
    named = dict(islice(_fitting(changes, roles), MOST_MODELS))
    cut = sum(len(changes[model]) - len(shown) for model, shown in named.items())
    more = {"more_models": len(changes) - len(named), "more_versions": cut}
    return {
        "versions": dict(Counter(role.value for versions in roles.values() for role in versions.values())),
        name: {model: shown for model, shown in named.items() if shown},
        "in_store": {model: in_store[model] for model in named if model in in_store},
        **{key: count for key, count in more.items() if count},
    }


def _fitting(changes: Changes, roles: Roles) -> Iterator[tuple[Model, Mapping[str, str | int]]]:
    """Yield as many models as fit on the line, each with its highest versions."""
    left = MOST_CHARACTERS
    for model in sorted(
        changes, key=lambda name: (not _OF_CONCERN & set(roles.get(name, {}).values()), name)
    ):
        shown = dict(islice(changes[model].items(), MOST_VERSIONS))
        left -= len(json.dumps({model: shown})) + len(model) + _COUNT_CHARACTERS
        if left < 0:
            return
        yield model, shown
