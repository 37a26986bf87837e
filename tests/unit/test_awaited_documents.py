"""A listing shows that documents are new: what they say is part of what is decided upon."""

from pathlib import Path

from agent_parts import World, one_model
from servesync.agent.agent import Agent
from servesync.agent.state import AgentState
from servesync.domain import channel
from servesync.domain.channel import Entry
from servesync.domain.versions import Model, StoredObject, Version
from servesync.jobs import JobKind
from servesync.store import Listing

M = Model("m")


def polled(world: World, agent: Agent) -> bool:
    """Let the agent list the store and hear the server; return whether it decides upon that at once."""
    agent.turn(poll=True)
    world.jobs.let_end(JobKind.LIST, JobKind.ASK_SERVER)
    agent.turn(refresh=False)
    world.jobs.let_end(JobKind.ASK_SERVER)
    return agent.turn(refresh=False).seen is not None


def world_with_a_channel() -> World:
    """A store with nothing but a channel that stands at version 7."""
    world = World()
    move = Entry(Version(7), "promote", "2026-01-02T03:04:05Z", "somebody", "a test")
    data = channel.dump(channel.moved(None, M, "stable", move))
    item = StoredObject("m/channels/stable.json", len(data), '"etag"')
    world.store.objects[item.key] = data
    world.store.listing = Listing({}, {}, 0, (), 1, channels={M: {"stable": item}})
    return world


def test_nothing_is_decided_until_a_listing_is_understood(tmp_path: Path) -> None:
    """Where the channel points is known before anything follows from the listing."""
    world, settings = world_with_a_channel(), one_model(tmp_path, channel="stable")
    with world.agent_at_work(settings, AgentState.fresh(settings, durable=True)) as agent:
        assert not polled(world, agent)
        world.jobs.let_end(JobKind.DOCUMENT)
        agent.turn(refresh=False)
        world.jobs.let_end(JobKind.ASK_SERVER)
        seen = agent.turn(refresh=False).seen

    assert seen is not None
    assert seen.snapshot.models[M].facts.channels == {"stable": 7}


def test_a_document_that_does_not_come_holds_up_nothing_for_long(tmp_path: Path) -> None:
    """After a second the last position counts."""
    world, settings = world_with_a_channel(), one_model(tmp_path, channel="stable")
    with world.agent_at_work(settings, AgentState.fresh(settings, durable=True)) as agent:
        assert not polled(world, agent)
        world.clock.seconds += 1.0
        seen = agent.turn(refresh=False).seen

    assert seen is not None
    assert seen.snapshot.models[M].facts.channels == {}
