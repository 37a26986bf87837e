"""Finds out whether a hold keeps a model's newest version off the shelf although policy wants it."""

from collections.abc import Iterable
from typing import Final

from servesync.domain.versions import Version
from servesync.errors import Reason
from servesync.planning.facts import Facts, Hold, ModelPlan
from servesync.planning.facts_index import KEPT_OFF, named
from servesync.planning.memory import Remedy, Shortage

_OF_THIS_MACHINE: Final = KEPT_OFF | {Reason.VERSION_FOREIGN}
"""Holds that tell of what lies here: a version with one of them need not be in the store at all."""


def held_newest(
    plan: ModelPlan, facts: Facts, shortages: Iterable[Shortage] = ()
) -> tuple[Version, Hold] | None:
    """Return the newest version that the store offers or names, and its hold, if it is held.

    It counts only if policy would want it (a pin and a channel want no other than theirs), if it is above
    every version that is wanted, and if the hold is not about to pass by itself. Withdrawn versions are left
    out: they are held on purpose. `shortages`: those of this model, where `facts` do not hold their versions.
    """
    held = {
        short.version: Hold(Reason.MEMORY_SHORT, short.text)
        for short in shortages
        if short.remedy is Remedy.REFUSED
    } | dict(facts.held)
    offered = facts.offered or {}
    found = offered.keys() | {
        version for version, hold in held.items() if hold.reason not in _OF_THIS_MACHINE
    }
    found -= facts.withdrawn
    found -= {version for version, hold in held.items() if hold.reason is Reason.VERSION_WITHDRAWN}
    asked = named(facts.policy, facts.channels)
    newest = max(found if asked is None else found & asked, default=None)
    if newest is None or newest <= max(plan.wanted, default=-1):
        return None
    hold = held.get(newest)
    return None if hold is None or hold.passing else (newest, hold)
