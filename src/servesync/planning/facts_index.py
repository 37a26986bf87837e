"""Answers the questions that the planner's rules ask of one model's facts."""

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from servesync.domain.versions import Version
from servesync.errors import Reason
from servesync.planning.facts import (
    Condition,
    Everything,
    Facts,
    Follow,
    Latest,
    Pin,
    Policy,
    Served,
    ServerPolicy,
    ServerState,
    Shelved,
)

KEPT_OFF: Final = frozenset(
    {
        Reason.SERVER_REFUSED,
        Reason.SERVER_LOAD_TIMEOUT,
        Reason.SMOKE_FAILED,
        Reason.MEMORY_SHORT,
        Reason.RECORD_UNREADABLE,
    }
)
"""Holds that keep even a version of the reserve off the shelf."""

STABLE_SECONDS: Final = 10.0
"""For how long a server must have answered before a version comes back that may have made it end."""

MOST_PARKED: Final = 3
"""How many versions may leave the shelf for others while nothing ever served; then these take turns."""


def named(policy: Policy, channels: Mapping[str, Version]) -> frozenset[Version] | None:
    """Return the versions that a policy names one by one; None if it names none."""
    match policy:
        case Pin(versions):
            return versions
        case Follow(names):
            return frozenset(channels[name] for name in names if name in channels)
        case Latest() | Everything():
            return None


def chosen(
    policy: Policy, candidates: frozenset[Version], channels: Mapping[str, Version]
) -> frozenset[Version]:
    """Return those of the candidates that a policy asks for."""
    match policy:
        case Latest(count):
            return frozenset(sorted(candidates, reverse=True)[:count])
        case Pin() | Follow():
            return (named(policy, channels) or frozenset()) & candidates
        case Everything():
            return candidates


class FactsIndex:
    """One model's facts, with the sets of versions that several rules need."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.server = facts.server
        self.named = named(facts.policy, facts.channels)
        self.offered = facts.offered or {}
        self.owned: Mapping[Version, Shelved] = {
            version: item for version, item in facts.shelf.items() if item.is_ours
        }
        self.good = {v: item for v, item in self.owned.items() if item.condition is Condition.GOOD}
        self.checking = {v: item for v, item in self.owned.items() if item.condition is Condition.CHECKING}
        """Versions that are being read again: nothing comes in their place, and nothing leaves for them."""
        self.returning = frozenset(
            version
            for version in facts.returning
            if not self._is_refused(version) and version not in facts.shelf
        )
        """Versions that are off the shelf only until the server has seen them gone."""
        self.fetchable = self.offered.keys() - facts.held.keys() - self.returning
        self.delayed = frozenset(
            version
            for version, hold in facts.held.items()
            if hold.passing and self.good and version in self.offered and version not in self.owned
        )
        """Offered versions that a passing failure holds up; they stay wanted if a good version is there."""
        self.restorable = frozenset(version for version in facts.reserve if self._is_restorable(version))
        """Versions that a rename puts on the shelf."""
        there = {version for version in self.owned if self._is_worth_keeping(version)}
        self.unrecorded = frozenset(
            version for version, item in facts.shelf.items() if self._is_unrecorded(version, item)
        )
        """Versions whose records cannot be read and that the server has not refused: they serve on."""
        serves = self.owned or self.unrecorded
        self.retired = frozenset() if serves else self.restorable & facts.retired.keys()
        """Versions that made room for another one that has not come, so that nothing serves."""
        self._usable = self._can_be_had_now(there)
        found = self.fetchable | self.delayed | self.restorable | self.returning | self.unrecorded | there
        self.candidates = frozenset(found - facts.withdrawn)
        self.parked = self._parked()
        """Versions that must not come back now, because one of them may make the server end."""
        self.stand_ins = self._stand_ins()
        """Versions to try while others are parked and nothing has ever served."""
        self.wanted = self._chosen(self.candidates) | self.stand_ins | self._turns()
        self.unwanted = self.owned.keys() - self.wanted

    def _is_worth_keeping(self, version: Version) -> bool:
        return version in self.good or version in self.checking or self._may_recover(version)

    def _can_be_had_now(self, there: set[Version]) -> frozenset[Version]:
        new = self.fetchable if len(self.returning) < MOST_PARKED else frozenset()
        return frozenset((new | self.restorable | self.unrecorded | there) - self.facts.withdrawn)

    def _turns(self) -> frozenset[Version]:
        return self.parked if self.is_searching else frozenset()

    def _stand_ins(self) -> frozenset[Version]:
        if not (self.is_searching and self.parked):
            return frozenset()
        return frozenset(self._chosen(self._usable - self.parked))

    def _chosen(self, versions: frozenset[Version]) -> frozenset[Version]:
        return chosen(self.facts.policy, versions, self.facts.channels)

    def _parked(self) -> frozenset[Version]:
        """Return the versions that wait until the server has answered for a while, or for their turn.

        Where nothing has ever served, one version is tried at a time: a server may wait for just that.
        """
        if not self.is_silent:
            return self.returning if self.server.answered_seconds < STABLE_SECONDS else frozenset()
        if self.has_served or self._chosen(self._usable - self.returning):
            return self.returning
        turn = self._chosen(self._usable)
        return self.returning - ({max(turn)} if turn else set())

    def others_than(self, version: Version) -> frozenset[Version]:
        """Return what policy would have if `version` did not exist, and can be had now."""
        return self._chosen(self._usable - {version})

    @property
    def is_searching(self) -> bool:
        """Whether the server is silent and nothing on the shelf has ever served: one may keep it down."""
        return self.is_silent and not self.has_served

    def _is_restorable(self, version: Version) -> bool:
        """Whether a version of the reserve may come back: the store has the same, or a pin names it.

        One that the store no longer lists is wanted by a pin only: otherwise a wish for more versions would
        bring back what somebody has removed on purpose. One that left to make room may come back in any case.
        """
        if self._is_refused(version) or version in self.facts.shelf or version in self.facts.cooling_down:
            return False
        if version in self.returning or version in self.facts.retired:
            return True
        if version in self.offered:
            return self.offered[version] == self.facts.reserve[version]
        return self.named is not None

    def _is_refused(self, version: Version) -> bool:
        """Whether the server's refusal, or a withdrawal, keeps a version off the shelf."""
        if version in self.facts.withdrawn:
            return True
        hold = self.facts.held.get(version)
        return hold is not None and hold.reason in KEPT_OFF

    def _is_unrecorded(self, version: Version, item: Shelved) -> bool:
        """Whether an unreadable record is the only fault of a version; then no older one replaces it."""
        served = self.says(version)
        return item.condition is Condition.UNRECORDED and not (served is not None and served.failed)

    def _may_recover(self, version: Version) -> bool:
        """Whether a damaged version is worth waiting for: the server serves it, or the store can mend it."""
        return self.is_available(version) or self.offered.get(version) == self.owned[version].identity

    @cached_property
    def on_trial(self) -> frozenset[Version]:
        """The AVAILABLE versions on which nothing may depend yet; see `Facts.on_trial`."""
        return self.facts.on_trial()

    @property
    def in_place(self) -> bool:
        """Whether all that policy wants is complete on the shelf, as far as it can be had now."""
        confirmed = {version for version, item in self.checking.items() if item.confirmed}
        there = self.good.keys() | self.unrecorded | confirmed
        if self.named is not None:
            missing = self.pins_missing - self._absent_for_now - there
            return bool(there) and not missing and not self.channels_unknown
        late = self.delayed | self._absent_for_now
        return bool(there & self.wanted or late) and self.wanted - late <= there

    @property
    def _absent_for_now(self) -> frozenset[Version]:
        """The versions that have to wait until the server answers."""
        return self.parked if self.is_silent else frozenset()

    @property
    def pins_missing(self) -> frozenset[Version]:
        """The versions named by policy that are not complete on the shelf, and are not withdrawn."""
        return (self.named or frozenset()) - self.good.keys() - self.facts.withdrawn

    @property
    def channels_unknown(self) -> tuple[str, ...]:
        """The channels of the policy whose position was never seen."""
        policy = self.facts.policy
        return (
            tuple(name for name in policy.channels if name not in self.facts.channels)
            if isinstance(policy, Follow)
            else ()
        )

    def says(self, version: Version) -> Served | None:
        """What the server says of a version; None if it says nothing."""
        return (self.server.versions or {}).get(version)

    def is_expected(self, version: Version) -> bool:
        """Whether the server will load a version that is on the shelf, by its own policy."""
        if not self.server.asked:
            return False
        highest = sorted(self.facts.shelf, reverse=True)[: self.server.latest]
        return self.server.policy is ServerPolicy.ALL or version in highest

    def is_served(self, version: Version) -> bool:
        """Whether a version serves, or the server will not load it, so that an older version may leave."""
        if version not in self.good:
            return False
        if not self.is_expected(version):
            return True
        return self.is_available(version) and version not in self.on_trial

    def serves_unproven(self, version: Version) -> bool:
        """Whether a version serves whose bytes cannot be proven now; no other version leaves for it.

        Its record cannot be read, or it has served before and is being read again.
        """
        available = self.is_available(version)
        confirmed = version in self.checking and self.checking[version].confirmed
        return (version in self.unrecorded or confirmed) and (available or not self.server.asked)

    def is_overdue(self, version: Version) -> bool:
        """Whether an answering server has neither loaded nor refused a version within its load timeout."""
        served = self.says(version)
        silent = self.server.versions is not None and (served is None or served.state is ServerState.END)
        waited = self.server.waited_seconds.get(version, 0.0)
        return silent and waited >= self.server.load_timeout_seconds

    @property
    def has_served(self) -> bool:
        """Whether a version lies on the shelf that the server has served before."""
        return any(item.confirmed for item in self.good.values())

    @property
    def is_silent(self) -> bool:
        """Whether there is a server to ask, and it does not answer."""
        return self.server.asked and self.server.versions is None

    def unconfirmed(self) -> list[Version]:
        """The versions on the shelf that the server has still to load or to refuse, lowest first."""
        good = (version for version in self.good if not self.is_served(version))
        checking = (version for version in self.checking if not self.is_available(version))
        return sorted(
            version
            for version in (*good, *checking)
            if self.is_expected(version) and not self.owned[version].confirmed
        )

    def is_available(self, version: Version) -> bool:
        """Whether the server serves a version."""
        served = self.says(version)
        return served is not None and served.state is ServerState.AVAILABLE

    def is_loading(self, version: Version) -> bool:
        """Whether the server is loading a version; it reads the directory again at the end of the load."""
        served = self.says(version)
        return served is not None and served.state in {ServerState.START, ServerState.LOADING}

    @property
    def policy(self) -> str:
        """The model's policy as it stands in the settings file."""
        match self.facts.policy:
            case Latest(count):
                return f"latest: {count}"
            case Pin(versions):
                return f"pin: {sorted(versions)}"
            case Follow(names):
                at = ", ".join(f"{name} at {self.facts.channels.get(name, 'no version')}" for name in names)
                return f"channel: {at}"
            case Everything():
                return "all"
