"""Which models an agent looks after: those that the settings name, and those that "*" stands for."""

from typing import Final

from servesync import disk
from servesync.agent.context import AgentContext
from servesync.domain.versions import Model
from servesync.install import awaited_back
from servesync.settings import EVERY_MODEL

MOST_MODELS: Final = 1000


def discover(context: AgentContext) -> None:
    """Take up every model of the store and of the shelf that "*" stands for.

    One that leaves the store stays for as long as there is something of it on this machine, and no new one
    takes its place.
    """
    state, settings = context.state, context.settings
    before = state.models
    named = {Model(item.name): item for item in settings.models if item.name != EVERY_MODEL}
    others = context.every_model
    state.models = dict(named)
    if others is None:
        return
    try:
        here = context.workspace.recorded()
        here |= awaited_back(context.workspace, here)
    except OSError as problem:  # what was known stays
        context.failed(disk.describe(problem, "reading which models have records"))
        state.models = before | named
        return
    found = set(here)
    listing = state.store.listing
    if listing is not None:
        found |= listing.releases.keys() | {model for model, _ in listing.problems}
    fresh = sorted(found - named.keys(), key=lambda model: (model not in here, model))
    room = max(0, MOST_MODELS - len(named))
    state.ignored_models = len(fresh[room:])
    state.models |= {model: others.model_copy(update={"name": model}) for model in fresh[:room]}
