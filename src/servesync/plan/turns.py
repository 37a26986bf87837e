"""Whose turn it is: the server loads one version at a time, over all models.

Loading competes with requests for processors and memory. While an answering server loads a version of one
model, no other model gets a new one; a server that is silent has nothing to be spared, and a version that it
does not load in its time holds up nobody.
"""

from collections.abc import Iterable
from typing import Final

from servesync.plan.facts import Facts, ModelPlan, ServerState, Wait
from servesync.plan.versions import Model, Version

UNSEEN_SECONDS: Final = 30.0
"""How long a version that an answering server does not list holds up other models: it may not have looked."""


def loading(seen: Iterable[tuple[Facts, ModelPlan]]) -> frozenset[Model]:
    """Return the models of which an answering server is loading a version, or about to."""
    return frozenset(
        facts.model
        for facts, plan in seen
        if facts.server.asked and facts.server.versions is not None
        for action in plan.actions
        if isinstance(action, Wait) and not action.overdue and _holds_up(facts, action.version)
    )


def _holds_up(facts: Facts, version: Version) -> bool:
    if version not in facts.shelf:
        return False
    waited = facts.server.waited_seconds.get(version, 0.0)
    served = (facts.server.versions or {}).get(version)
    if served is None or served.stale:
        return waited < min(UNSEEN_SECONDS, facts.server.load_timeout_seconds)
    loads = served.state in {ServerState.START, ServerState.LOADING}
    return loads and waited < facts.server.load_timeout_seconds
