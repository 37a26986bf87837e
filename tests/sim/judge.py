"""What must hold in the simulated world, decided from what is true there, not from what an agent knows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from servesync.errors import Reason
from servesync.plan.facts import Action, Everything, Follow, Latest, Pin, ServerPolicy
from servesync.plan.versions import Version
from sim.values import Broken, Item, Release

if TYPE_CHECKING:
    from sim.world import World


def demanded(world: "World", candidates: Iterable[Version]) -> set[Version]:
    """Return those of the candidates that the policy asks for: nothing that the agent knows as withdrawn."""
    found = set(candidates) - world.known_withdrawn
    match world.policy:
        case Latest(count):
            return set(sorted(found, reverse=True)[:count])
        case Pin(versions):
            return found & versions
        case Everything():
            return found
        case Follow(names):
            return found & {world.positions[name] for name in names if name in world.positions}


def judge_arrival(world: "World", version: Version, identity: str) -> None:
    """What was refused comes under no other circumstances than as something else.

    Raises:
        Broken: it comes as it was.
    """
    refused, why = world.refusals.get(version, ("", None))
    if refused == identity and why is not Reason.VERSION_FOREIGN:
        raise Broken(f"{version} comes again, refused as {why}")


def judge_departure(world: "World", action: Action) -> Item:
    """Only what is ours leaves, and nothing as refused that answers; return what leaves.

    Raises:
        Broken: it must stay.
    """
    version, name = action.version, type(action).__name__
    item = world.shelf.get(version)
    if item is None:
        raise Broken(f"{name} of {version}, which is not on the shelf: {world.trace[-3:]}")
    if not item.is_ours:
        raise Broken(f"{name} of {version}, which is not ours")
    answers = world.server.answering.get(version) == item.release.identity and not item.is_damaged
    if name != "Prune" and answers and not item.said_before:
        raise Broken(f"{name} of {version}, which answers: {world.trace[-3:]}")
    return item


def judge_prune(world: "World", version: Version) -> None:
    """Policy must say so, by what lies on the shelf alone: what a listing lacks is no reason.

    Raises:
        Broken: it does not, or nothing else answers.
    """
    ours = {v: item for v, item in world.shelf.items() if item.is_ours}
    worth = {v for v, item in ours.items() if not item.is_damaged or v in world.server.answering}
    stay = demanded(world, worth)
    if version in stay:
        raise Broken(f"{version} is pruned, though {world.policy} asks for it: {world.trace[-3:]}")
    is_lost = version in world.known_withdrawn or world.shelf[version].is_damaged
    match world.policy:
        case Latest(count) if not is_lost and len([v for v in stay if v > version]) < count:
            raise Broken(f"{version} is pruned with fewer than {count} above it: {world.trace[-3:]}")
        case Pin(versions) if not versions - world.known_withdrawn <= world.shelf.keys():
            raise Broken(f"{version} is pruned while a pin is missing: {world.trace[-3:]}")
        case Follow(names) if not {world.positions.get(name) for name in names} <= (
            world.shelf.keys() | world.known_withdrawn
        ):
            raise Broken(f"{version} is pruned while a channel's version is missing: {world.trace[-3:]}")
        case _:
            pass
    if is_lost and not stay:
        raise Broken(f"{version} is withdrawn or damaged, but the last good one: {world.trace[-3:]}")
    if world.told is ServerPolicy.LATEST and version == max(world.shelf) and worth - {version}:
        return  # the server loads the next one before it lets the highest go
    if world.has_server and not (world.server.answering.keys() & world.shelf.keys()) - {version}:
        raise Broken(f"{version} is pruned, and no other version answers: {world.trace[-3:]}")


def wanted(world: "World") -> set[Version]:
    """Return what should be served once all is calm."""
    ours = {version: item for version, item in world.shelf.items() if item.is_ours}
    can_come = {
        version
        for version, release in world.store.items()
        if _can_be_served(world, release)
        and (version not in world.shelf or world.shelf[version].release == release)
    }
    there = {
        version
        for version, item in ours.items()
        if _can_be_served(world, item.release) and (not item.is_damaged or version in world.server.answering)
    }
    return demanded(world, can_come | there)


def _can_be_served(world: "World", release: Release) -> bool:
    """Without a server nobody finds out that sound bytes do not load."""
    return release.is_good or (release.is_sound and not world.has_server)


def judge_outcome(world: "World") -> None:
    """In a calm world what is wanted is served, and nothing else of ours lies around.

    Raises:
        Broken: something is missing, or too much.
    """
    expected = wanted(world)
    served = world.server.answering if world.has_server else world.shelf
    if world.told is ServerPolicy.LATEST and world.has_server:
        expected &= {max(world.shelf, default=None)}
    missing = {v for v in expected if v not in served or v not in world.shelf or _is_to_mend(world, v)}
    if missing:
        raise Broken(f"calm, but {sorted(missing)} are not served: {world.trace[-12:]}")
    ours = {version for version, item in world.shelf.items() if item.is_ours}
    is_exact = isinstance(world.policy, Latest) and world.told is ServerPolicy.ALL
    if expected and is_exact and ours != expected:
        raise Broken(f"calm, but {sorted(ours - expected)} are still there: {world.trace[-12:]}")


def _is_to_mend(world: "World", version: Version) -> bool:
    item = world.shelf[version]
    return item.is_damaged and world.store.get(version) == item.release
