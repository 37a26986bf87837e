"""The facts of one model, seen from the questions that the planner's rules ask."""

from collections.abc import Mapping
from typing import Final

from servesync.errors import Reason
from servesync.plan.facts import (
    Condition,
    Everything,
    Facts,
    Latest,
    Pin,
    Policy,
    Served,
    ServerPolicy,
    ServerState,
    Shelved,
)
from servesync.plan.versions import Version

KEPT_OFF: Final = frozenset({Reason.SERVER_REFUSED, Reason.SERVER_LOAD_TIMEOUT, Reason.MEMORY_SHORT})
"""Holds that keep even a version of the reserve off the shelf."""


def chosen(policy: Policy, candidates: frozenset[Version]) -> frozenset[Version]:
    """Return those of the candidates that a policy asks for."""
    match policy:
        case Latest(count):
            return frozenset(sorted(candidates, reverse=True)[:count])
        case Pin(versions):
            return versions & candidates
        case Everything():
            return candidates


class View:
    """The facts, seen from the questions that the rules ask."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.server = facts.server
        self.offered = facts.offered or {}
        self.owned: Mapping[Version, Shelved] = {
            version: item for version, item in facts.shelf.items() if item.condition is not Condition.FOREIGN
        }
        self.good = {v: item for v, item in self.owned.items() if item.condition is Condition.GOOD}
        self.fetchable = self.offered.keys() - facts.held.keys()
        self.late = frozenset(
            version
            for version, hold in facts.held.items()
            if hold.passing and self.good and version in self.offered and version not in self.owned
        )
        """Offered versions that a passing failure holds up: waited for if something good is there."""
        self.ready = frozenset(version for version in facts.reserve if self._is_ready(version))
        """Versions that a rename puts on the shelf."""
        self.candidates = frozenset(self.fetchable | self.late | self.ready | self.owned.keys())
        self.wanted = chosen(facts.policy, self.candidates)
        self.unwanted = self.owned.keys() - self.wanted

    def _is_ready(self, version: Version) -> bool:
        """Whether a version of the reserve may come back: the store has the same, or a pin names it.

        One that the store no longer lists is wanted by a pin only: otherwise a wish for more versions would
        bring back what somebody has removed on purpose.
        """
        hold = self.facts.held.get(version)
        refused = hold is not None and hold.reason in KEPT_OFF
        if refused or version in self.facts.shelf:
            return False
        if version in self.offered:
            return self.offered[version] == self.facts.reserve[version]
        return isinstance(self.facts.policy, Pin)

    @property
    def in_place(self) -> bool:
        """Whether all that policy wants is complete on the shelf, as far as it can be had now."""
        if isinstance(self.facts.policy, Pin):
            return not self.pins_missing
        return (
            bool(self.good.keys() & self.wanted or self.late) and self.wanted - self.late <= self.good.keys()
        )

    @property
    def pins_missing(self) -> frozenset[Version]:
        """The pinned versions that are not complete on the shelf."""
        policy = self.facts.policy
        return policy.versions - self.good.keys() if isinstance(policy, Pin) else frozenset()

    def says(self, version: Version) -> Served | None:
        """What the server says of a version; None if it says nothing."""
        return (self.server.versions or {}).get(version)

    def is_expected(self, version: Version) -> bool:
        """Whether the server will load a version that is on the shelf, by its own policy."""
        if not self.server.asked:
            return False
        return self.server.policy is ServerPolicy.ALL or version == max(self.facts.shelf, default=None)

    def is_served(self, version: Version) -> bool:
        """Whether nothing more is to be waited for before an older version may leave."""
        if version not in self.good:
            return False
        if not self.is_expected(version):
            return True
        served = self.says(version)
        return served is not None and served.state is ServerState.AVAILABLE

    def is_overdue(self, version: Version) -> bool:
        """Whether an answering server has had its time for a version, and neither loads nor refuses it."""
        served = self.says(version)
        silent = self.server.versions is not None and (served is None or served.state is ServerState.END)
        waited = self.server.waited_seconds.get(version, 0.0)
        return silent and waited >= self.server.load_timeout_seconds

    @property
    def is_silent(self) -> bool:
        """Whether there is a server to ask, and it does not answer."""
        return self.server.asked and self.server.versions is None

    def in_doubt(self) -> list[Version]:
        """The versions on the shelf that the server has still to judge, lowest first."""
        return sorted(
            version
            for version, item in self.good.items()
            if self.is_expected(version) and not item.confirmed and not self.is_served(version)
        )

    @property
    def policy(self) -> str:
        """The model's policy as it stands in the settings file."""
        match self.facts.policy:
            case Latest(count):
                return f"latest: {count}"
            case Pin(versions):
                return f"pin: {sorted(versions)}"
            case Everything():
                return "all"
