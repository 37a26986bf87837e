"""What the stand-in has in memory, and how changes wait for requests."""

import threading

import pytest

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.loader import Loaded
from servesync.demo.standin.table import ServingTable

SECONDS = 30


def table_with(*versions: int) -> ServingTable:
    """Return a table with versions of the model m."""
    table = ServingTable()
    for version in versions:
        table.put("m", version, Loaded({}, session=None))
    return table


def version_of(table: ServingTable, version: int | None = None, label: str | None = None) -> int:
    """Return which version answers; the label `stable` is 3."""
    return table.use("m", version, label, {"stable": 3}, lambda number, _: number)


def test_the_highest_answers_unless_another_is_named() -> None:
    """By number or by label."""
    table = table_with(3, 10, 9)

    assert (version_of(table), version_of(table, 9), version_of(table, label="stable")) == (10, 9, 3)


@pytest.mark.parametrize(
    ("version", "label", "code"),
    [
        (None, None, Code.NOT_FOUND),
        (9, None, Code.NOT_FOUND),
        (None, "stable", Code.NOT_FOUND),
        (None, "no_such", Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_in_memory_does_not_answer(version: int | None, label: str | None, code: Code) -> None:
    """A label outlives its version; what was removed is gone."""
    table = table_with(3)
    table.remove("m", 3)

    with pytest.raises(RequestFailed) as caught:
        version_of(table, version, label)
    assert caught.value.code is code


def test_a_change_waits_for_the_requests_before_it() -> None:
    """A request that hangs holds up a change, and no other request; a later one is not waited for."""
    table = table_with(1)
    begun, go_on, changed = threading.Event(), threading.Event(), threading.Event()

    def hang(number: int, _: Loaded) -> int:
        begun.set()
        assert go_on.wait(SECONDS)
        return number

    def change() -> None:
        table.put("m", 2, Loaded({}, session=None))
        changed.set()

    hanging = threading.Thread(target=table.use, args=("m", None, None, {}, hang))
    hanging.start()
    assert begun.wait(SECONDS)
    changing = threading.Thread(target=change)
    changing.start()
    while version_of(table) != 2:
        pass  # usable before the change is done, as with the real server
    assert not changed.is_set()

    go_on.set()
    changing.join(SECONDS)
    hanging.join(SECONDS)
    assert changed.is_set()
