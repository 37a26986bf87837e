"""Decides which versions the server's memory has room for, over all models; changes nothing anywhere.

What a version weighs is read from its record on the shelf or in the reserve, from its manifest, or from the
listing of a directory. Of a bare archive it is known once it is unpacked: such a version is proven, and if it
does not fit it is set aside in the reserve, from where a rename brings it when there is room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from servesync.agent.leaving import IN_MEMORY, Leaving
from servesync.agent.weights import Key, Weights
from servesync.confirm import ServerFootprint, find_budget
from servesync.errors import Reason, Stopped
from servesync.plan.facts import (
    Facts,
    Hold,
    Install,
    ModelPlan,
    Restore,
    ServerPolicy,
    ServerState,
)
from servesync.plan.memory import (
    Budget,
    Loaded,
    Share,
    Shortage,
    Way,
    WhenShort,
    estimate,
    judge,
)
from servesync.plan.planner import plan
from servesync.plan.versions import Model, Release, Version
from servesync.settings import Memory

MOST_ROUNDS: Final = 100
READ_BY_SERVER: Final = frozenset({ServerState.START, ServerState.LOADING})


@dataclass(frozen=True, slots=True)
class MemoryView:
    """What one look found out of the server's memory. `source`: of the budget, or why there is none."""

    budget: Budget | None
    source: str
    loaded: tuple[Loaded, ...] = ()
    shortages: tuple[tuple[Model, Shortage], ...] = ()
    unreadable: tuple[tuple[Model, Exception], ...] = ()
    """Models whose records or files could not be read: nothing may be decided for them."""


@dataclass
class Admission:
    """Judges at each look, and remembers in between what versions weigh."""

    settings: Memory
    footprint: ServerFootprint
    weights: Weights
    _leaving: Leaving = field(init=False, default_factory=Leaving)
    _shares: dict[Model, Share] = field(init=False, default_factory=dict)
    _budget: Budget | None = field(init=False, default=None)
    _before: dict[Key, int] = field(init=False, default_factory=dict)
    _awaited: frozenset[Key] = field(init=False, default=frozenset())

    def admit(
        self,
        looked: Mapping[Model, Facts],
        offered: Mapping[Model, Mapping[Version, Release]],
        now: float,
    ) -> tuple[dict[Model, Facts], MemoryView]:
        """Return the facts of the models whose next version does not fit, changed so that plans say so.

        Raises:
            Stopped: the agent is to stop.
        """
        self._budget, source = find_budget(self.settings, self.footprint)
        self._awaited = frozenset()
        if any(facts.server.asked and facts.server.versions is None for facts in looked.values()):
            self._before.clear()
        if self._budget is None:
            self._shares = {}
            return {}, MemoryView(None, source)
        # a model that could not be looked at now has in memory what it had
        self._shares = {
            model: replace(share, coming=None) for model, share in self._shares.items() if model not in looked
        }
        unreadable: dict[Model, Exception] = {}
        refused: dict[Model, dict[Version, Shortage]] = {}
        facts = dict(looked)
        short: dict[Model, Shortage] = {}
        stale = set(looked)
        for _ in range(MOST_ROUNDS):
            for model in stale:
                self._share_of(facts[model], offered.get(model, {}), now, unreadable)
            short = judge(self._shares.values(), self._budget, WhenShort(self.settings.when_short))
            stale = {model for model, found in short.items() if found.way is Way.REFUSED}
            if not stale:
                break
            for model in stale:
                refused.setdefault(model, {})[short[model].version] = short[model]
                facts[model] = self._refusing(looked[model], refused[model])
        changed = {
            model: replace(facts[model], memory=short.get(model)) for model in refused.keys() | short.keys()
        }
        found = [(model, each) for model, all_of in refused.items() for each in all_of.values()]
        found += [(model, each) for model, each in short.items() if each.way is not Way.REFUSED]
        return changed, self._view(source, found, unreadable)

    def _view(
        self, source: str, found: list[tuple[Model, Shortage]], unreadable: Mapping[Model, Exception]
    ) -> MemoryView:
        shares = self._shares.values()
        self._awaited = frozenset(
            (share.model, share.coming) for share in shares if share.coming is not None and share.proven
        )
        loaded = tuple(Loaded(share.model, v, size) for share in shares for v, size in share.loaded.items())
        return MemoryView(self._budget, source, loaded, tuple(found), tuple(unreadable.items()))

    def shortage(self, facts: Facts, release: Release, weight: int) -> Shortage | None:
        """Return why a version whose weight has just turned out does not fit; None if it does.

        What the last look found counts: nothing comes to the shelf in between.
        """
        self.weights.learn(release, weight)
        share = self._shares.get(release.model)
        if self._budget is None or share is None or not _is_loaded_when_there(facts, release.version):
            return None
        size = self._estimate(release.model, weight)
        share = replace(share, coming=release.version, coming_bytes=size, proven=False)
        shares = self._shares | {release.model: share}
        return judge(shares.values(), self._budget, WhenShort(self.settings.when_short)).get(release.model)

    def awaited(self, model: Model) -> frozenset[Version]:
        """Return what lies in the reserve and is about to come to the shelf: it must not give way."""
        return frozenset(version for name, version in self._awaited if name == model)

    # -- what is observed ----------------------------------------------------------------------------

    def about_to_load(self, key: Key) -> None:
        """Note what the server holds before a version comes to the shelf.

        Its first version pays for the runtime, and memory that is being freed hides what is taken: then there
        is nothing to learn.
        """
        self._before.clear()
        shares = self._shares.values()
        if self._budget is None or not any(share.loaded for share in shares):
            return
        used = None if any(share.leaving for share in shares) else self.footprint.used_bytes()
        if used is not None:
            self._before[key] = used

    def available(self, key: Key) -> int | None:
        """Return by how much the server has grown for a version that it serves now; None if unknown."""
        before = self._before.pop(key, None)
        used = None if before is None else self.footprint.used_bytes()
        if before is None or used is None or used <= before:
            return None
        self.weights.grew(key, used - before)
        return used - before

    # -- what is known --------------------------------------------------------------------------------

    @staticmethod
    def _refusing(facts: Facts, refused: Mapping[Version, Shortage]) -> Facts:
        holds = {version: Hold(Reason.MEMORY_SHORT, short.text) for version, short in refused.items()}
        return replace(facts, held={**facts.held, **holds})

    def _share_of(
        self,
        facts: Facts,
        offered: Mapping[Version, Release],
        now: float,
        unreadable: dict[Model, Exception],
    ) -> None:
        """Find out one model's share; what goes wrong with it must not hold up the others."""
        try:
            self._shares[facts.model] = self._share(facts, offered, now)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001
            unreadable[facts.model] = error

    def _share(self, facts: Facts, offered: Mapping[Version, Release], now: float) -> Share:
        done = plan(facts)
        model = facts.model
        leaving = self._leaving.of(facts, now)
        self.weights.keep(model, facts.shelf.keys() | facts.reserve.keys() | leaving, offered)
        sizes = {version: self._loaded_bytes(facts, version) for version in _on_shelf(facts) | leaving}
        coming, size, proven = self._coming(facts, done, offered)
        return Share(
            model=model,
            loaded=sizes,
            leaving=leaving,
            retirable=_retirable(facts, done) & sizes.keys(),
            coming=coming,
            coming_bytes=size,
            proven=proven,
        )

    def _coming(
        self, facts: Facts, done: ModelPlan, offered: Mapping[Version, Release]
    ) -> tuple[Version | None, int, bool]:
        """Return the version that the plan would bring next, its estimate, and whether a rename does it.

        None if there is none, if the server has it in memory already, or if its size is not known yet.
        """
        for action in done.actions:
            if not isinstance(action, Install | Restore) or not _is_loaded_when_there(facts, action.version):
                continue
            proven = isinstance(action, Restore)
            key = (facts.model, action.version)
            weight = (
                self.weights.of_installed(key, facts.reserve[action.version])
                if proven
                else self.weights.of_offered(offered[action.version])
            )
            if weight is not None:
                return action.version, self._estimate(facts.model, weight), proven
        return None, 0, False

    def _estimate(self, model: Model, weight: int) -> int:
        return estimate(weight, self.settings.factor, self.weights.observed(model))

    def _loaded_bytes(self, facts: Facts, version: Version) -> int:
        """Return the estimate of a version in memory; 0 for one of which nothing is known any more."""
        key = (facts.model, version)
        item = facts.shelf.get(version)
        if item is not None and not item.is_ours:
            return self._estimate(facts.model, self.weights.of_foreign(key))
        weight = self.weights.of_installed(key, item.identity if item else None)
        return self._estimate(facts.model, weight or 0)


def _on_shelf(facts: Facts) -> frozenset[Version]:
    """Return what the server has loaded, or loads when it starts: the highest alone by policy latest."""
    if facts.server.policy is ServerPolicy.ALL or not facts.shelf:
        return frozenset(facts.shelf)
    loaded = {v for v, served in (facts.server.versions or {}).items() if served.state in IN_MEMORY}
    return frozenset({max(facts.shelf)} | loaded & facts.shelf.keys())


def _is_loaded_when_there(facts: Facts, version: Version) -> bool:
    """Whether putting a version on the shelf makes the server load it."""
    if version in facts.shelf:
        return False
    return facts.server.policy is ServerPolicy.ALL or version > max(facts.shelf, default=-1)


def _retirable(facts: Facts, done: ModelPlan) -> frozenset[Version]:
    """Return what may leave before its successor has come: never because a server is silent."""
    server = facts.server
    if server.asked and server.versions is None:
        return frozenset()
    busy = {v for v, served in (server.versions or {}).items() if served.state in READ_BY_SERVER}
    owned = {v for v, item in facts.shelf.items() if item.is_ours}
    return frozenset(owned - done.wanted - busy - facts.labelled)
