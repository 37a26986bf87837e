"""What has left the shelf and is still in the server's memory, in made-up time."""

from dataclasses import replace

import pytest

from servesync.domain.versions import Model, Version
from servesync.planning.facts import Condition, Facts, Latest, Served, Server, ServerState, Shelved
from servesync.planning.unloading import Unloading

V1, V2 = Version(1), Version(2)
UP = Served(ServerState.AVAILABLE)
FOUND = Facts(
    model=Model("m"),
    policy=Latest(1),
    offered={},
    held={},
    shelf={V2: Shelved(Condition.GOOD)},
    server=Server(versions={V1: UP, V2: UP}),
)


@pytest.mark.parametrize(
    ("state", "counts"),
    [(ServerState.UNLOADING, True), (ServerState.AVAILABLE, True), (ServerState.END, False)],
)
def test_what_left_counts_until_the_server_says_end(state: ServerState, counts: bool) -> None:  # noqa: FBT001
    """What lies on the shelf is another matter."""
    found = replace(FOUND, server=Server(versions={V1: Served(state), V2: UP}))

    assert (V1 in Unloading().of(found, 0.0)) is counts


@pytest.mark.parametrize(("after", "counts"), [(29.0, True), (31.0, False)])
def test_a_server_that_fell_silent_unloads_nothing_for_ever(after: float, counts: bool) -> None:  # noqa: FBT001
    """It has no port before its first load: what it waits for must come."""
    unloading = Unloading()
    unloading.of(FOUND, 0.0)

    assert (V1 in unloading.of(replace(FOUND, server=Server()), after)) is counts


@pytest.mark.parametrize(("after", "counts"), [(4.0, True), (6.0, False)])
def test_a_server_that_cannot_be_asked_unloads_for_a_moment(after: float, counts: bool) -> None:  # noqa: FBT001
    """By what lay on the shelf before."""
    unloading = Unloading()
    both = {V1: Shelved(Condition.GOOD), V2: Shelved(Condition.GOOD)}
    unasked = replace(FOUND, server=Server(asked=False), shelf=both)
    unloading.of(unasked, 0.0)
    gone = replace(unasked, shelf={V2: both[V2]})
    assert unloading.of(gone, 1.0) == {V1}

    assert (V1 in unloading.of(gone, 1.0 + after)) is counts


def test_a_model_that_is_gone_is_forgotten() -> None:
    """Nothing of it counts when it comes again."""
    unloading = Unloading()
    unloading.of(FOUND, 0.0)
    unloading.forget(FOUND.model)

    assert unloading.of(replace(FOUND, server=Server()), 1.0) == frozenset()
