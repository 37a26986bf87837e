"""Worlds for stories."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from servesync.planning.facts import ServerPolicy
from sim.world import World


class NewWorld(Protocol):
    """Makes a world; `models`: what is asked for, by name."""

    def __call__(self, models: dict[str, dict[str, Any]] | None = None, **more: Any) -> World:
        """Return a world, in which no agent works yet."""


@pytest.fixture
def new_world() -> Iterator[NewWorld]:
    """Return what makes worlds; all end with the test."""
    with ExitStack() as stack:

        def make(models: dict[str, dict[str, Any]] | None = None, **more: Any) -> World:
            return stack.enter_context(World(models or {"m": {"latest": 1}}, **more))

        yield make


@pytest.fixture
def serving_one(new_world: NewWorld) -> World:
    """A world that serves version 1 of `m`, and wants the latest."""
    world = new_world()
    world.publish(1)
    world.rest()
    return world


@pytest.fixture
def beside_latest(new_world: NewWorld) -> World:
    """The same beside a server with its default policy."""
    world = new_world(told=ServerPolicy.LATEST)
    world.publish(1)
    world.rest()
    return world
