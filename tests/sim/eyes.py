"""What the agent of the simulated world finds out, and has in mind until it restarts."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from servesync.agent.attempts import Attempts
from servesync.errors import Reason
from servesync.plan.facts import Condition, Facts, Hold, Served, Server, ServerState, Shelved
from servesync.plan.versions import Model, Version
from sim.server import MODEL
from sim.values import Item, Release, said

if TYPE_CHECKING:
    from sim.world import World

NAME: Final = Model(MODEL)
LOAD_TIMEOUT_SECONDS: Final = 20.0
LONGEST_STEP_SECONDS: Final = 10.0


class Eyes:
    """One agent's observations, in the words of the planner's facts."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.listing: dict[Version, Release] | None = None
        self.attempts = Attempts()
        self.rests_until: dict[Version, float] = {}
        self.waited: dict[Version, float] = {}
        self.unheard: dict[Version, float] = {}
        self._last_answer: float | None = None
        self._last_down: float | None = None
        self._silent_since: float | None = None

    def facts(self) -> Facts:
        """Return what is found out now."""
        world = self._world
        if world.store_answers:
            self.listing = {} if world.listing_is_empty else dict(world.store)
            if not world.listing_is_empty:
                self._read_notices()
        versions = world.server.status() if world.has_server else None
        self._note(versions)
        resting = {version for version, until in self.rests_until.items() if world.now < until}
        returning = {version for version, item in world.reserve.items() if item.returning}
        known = {
            "model": NAME,
            "policy": world.policy,
            "offered": None if self.listing is None else _identities(self.listing),
            "held": _rests(resting - returning) | self._holds(),
            "shelf": {version: _shelved(item) for version, item in world.shelf.items()},
            "server": self._server(versions),
            "reserve": {version: item.release.identity for version, item in world.reserve.items()},
            "returning": frozenset(returning),
            "resting": frozenset(resting),
            "channels": dict(world.positions),
            "withdrawn": frozenset(world.known_withdrawn),
        }
        return Facts(**_only_fields_of(Facts, known))

    def _read_notices(self) -> None:
        """Take over where channels stand, and what of this machine is withdrawn, or offered anew."""
        world = self._world
        world.positions.update(world.channels)
        here = world.shelf.keys() | world.reserve.keys()
        world.known_withdrawn |= {v for v in here if v in world.withdrawn}
        for version, release in world.store.items():
            if world.withdrawn.get(version) != release.identity:
                world.known_withdrawn.discard(version)
        for version in world.known_withdrawn & world.reserve.keys():
            del world.reserve[version]

    def next_due(self) -> float | None:
        """Return when a pause or a rest is over; None if there is none."""
        now = self._world.now
        rests = [until - now for until in self.rests_until.values() if until > now]
        due = self.attempts.next_due(now)
        return min([*rests, *([] if due is None else [due])], default=None)

    def _server(self, versions: Mapping[Version, Served] | None) -> Server:
        silent = 0.0 if self._silent_since is None else self._world.now - self._silent_since
        return Server(
            asked=self._world.has_server,
            policy=self._world.told,
            versions=None if versions is None else {v: self._heard(v, said) for v, said in versions.items()},
            waited_seconds=dict(self.waited),
            unreachable_seconds=dict(self.unheard),
            load_timeout_seconds=LOAD_TIMEOUT_SECONDS,
            may_be_starting=silent < LOAD_TIMEOUT_SECONDS,
        )

    def _note(self, versions: Mapping[Version, Served] | None) -> None:
        """Count the time for which an answering server has had what is not available."""
        now = self._world.now
        last, self._last_answer = self._last_answer, None if versions is None else now
        was_down, self._last_down = self._last_down, now if self._world.server.is_down else None
        if versions is None:
            self._silent_since = now if self._silent_since is None else self._silent_since
            is_counted = was_down is not None and self._last_down is not None
            step = min(LONGEST_STEP_SECONDS, now - (was_down or now)) if is_counted else 0.0
            self.unheard = {version: self.unheard.get(version, 0.0) + step for version in self._world.shelf}
            return
        self._silent_since, self.unheard = None, {}
        step = 0.0 if last is None else min(LONGEST_STEP_SECONDS, now - last)
        up = {version for version, served in versions.items() if served.state is ServerState.AVAILABLE}
        late = (versions.keys() | self._world.shelf.keys()) - up
        self.waited = {version: self.waited.get(version, 0.0) + step for version in late}

    def _heard(self, version: Version, served: Served) -> Served:
        """Mark what is about older bytes, and let the record forget a word that has changed since."""
        item = self._world.shelf.get(version)
        if item is None or not item.said_before:
            return served
        word = said(served)
        if served.state is ServerState.END and item.said_before in {"LOADING", word}:
            self._world.shelf[version] = replace(item, said_before=word)
            return replace(served, stale=True)
        if item.said_before != "LOADING" or word != "LOADING":
            self._world.shelf[version] = replace(item, said_before="")
        return served

    def _holds(self) -> dict[Version, Hold]:
        identities = _identities(self.listing or {})
        holds = self.attempts.holds(NAME, identities, self._world.now)
        for version, (identity, why) in self._world.refusals.items():
            item = self._world.shelf.get(version)
            is_free = why is Reason.VERSION_FOREIGN and (item is None or item.is_ours)
            if identities.get(version) == identity and not is_free:
                holds[version] = Hold(why, "refused before")
        return holds


def _identities(releases: Mapping[Version, Release]) -> dict[Version, str]:
    return {version: release.identity for version, release in releases.items()}


def _shelved(item: Item) -> Shelved:
    if not item.is_ours:
        return Shelved(Condition.FOREIGN)
    known = {
        "condition": Condition.DAMAGED if item.is_damaged else Condition.GOOD,
        "confirmed": item.confirmed,
        "identity": item.release.identity,
        "tries": item.tries,
        "said_before": item.said_before,
    }
    return Shelved(**_only_fields_of(Shelved, known))


def _only_fields_of(kind: type, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this planner wants to be told."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in known.items() if name in names}


def _rests(versions: set[Version]) -> dict[Version, Hold]:
    return dict.fromkeys(versions, Hold(Reason.SERVER_REFUSED, "taken off a moment ago"))
