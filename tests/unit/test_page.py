"""The page's verdict, and that every text on it is text."""

from dataclasses import replace
from typing import Any

import pytest

from board_box import OUTAGE, full_board, snapshot, version
from servesync.admin import Board, OnDisk, Snapshot
from servesync.admin.page import Page, dollars, percent, verdict_of
from servesync.admin.report import report
from servesync.plan.facts import Role
from servesync.plan.versions import Model
from servesync.settings import Admin

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def status_of(seen: Snapshot | None) -> dict[str, Any]:
    """Return what `/status` shows of one look."""
    board = Board()
    if seen is not None:
        board.publish(seen)
    return report(board, Admin())


def test_one_sentence_says_how_things_are() -> None:
    """Nothing known, nothing served, an update under way, an outage, all well: five colours of it."""
    update = snapshot({1: version(), 2: version(Role.TO_INSTALL, OnDisk.ABSENT)})
    (model,) = update.models.values()
    updating = replace(update, models={"m": replace(model, in_place=False)})  # type: ignore[dict-item]
    found = {
        name: verdict_of(status_of(seen))[1]
        for name, seen in {
            "unknown": None,
            "nothing": snapshot(),
            "only foreign": snapshot({1: version(Role.FOREIGN, OnDisk.FOREIGN)}),
            "update": updating,
            "outage": snapshot({1: version()}, store_trouble=OUTAGE),
            "good": snapshot({1: version()}),
        }.items()
    }
    assert found == {
        "unknown": "busy",
        "nothing": "bad",
        "only foreign": "bad",
        "update": "busy",
        "outage": "warn",
        "good": "good",
    }


def test_every_text_is_text() -> None:
    """Whatever a publisher, a server or a store says: it becomes no element and no attribute."""
    board = full_board()
    seen = snapshot({1: version(why=HOSTILE, identity=HOSTILE, proven_by=HOSTILE)})
    (model,) = seen.models.values()
    trouble = replace(OUTAGE, text=HOSTILE)
    hostile = replace(
        seen,
        models={HOSTILE: replace(model, strange_names=(HOSTILE,), trouble=trouble, policy=HOSTILE)},  # type: ignore[dict-item]
        store=replace(seen.store, url=HOSTILE, trouble=trouble, ignored_keys=1, ignored_examples=(HOSTILE,)),
        server=replace(seen.server, url=HOSTILE, trouble=trouble),
    )
    board.publish(hostile)
    board.note(
        {
            "timestamp": "2026-01-01T00:00:00Z",
            "level": "error",
            "event": HOSTILE,
            "model": HOSTILE,
            "version": 1,
            "reason": HOSTILE,
            "because": HOSTILE,
            "repeats": 4,
        }
    )
    text, policy = Page().whole(report(board, Admin()))
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "alert(1)" in text
    nonce = policy.partition("nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in text
    assert Page().whole(report(board, Admin()))[1] != policy, "a nonce is used once"


def test_of_many_models_those_in_trouble_come_first() -> None:
    """And no page has more than one can read."""
    good, bad = snapshot({1: version()}), snapshot()
    (fine,), (missing,) = good.models.values(), bad.models.values()
    board = Board()
    board.publish(
        replace(good, models={**{Model(f"a{number}"): fine for number in range(100)}, Model("z"): missing})
    )
    text, _ = Page().whole(report(board, Admin()))
    assert text.count("<article") == 50
    assert text.index('aria-label="model z"') < text.index('aria-label="model a0"')
    assert "and 51 more" in text


@pytest.mark.parametrize(("part", "whole", "share"), [(1, 3, 33), (5, 0, 0), (9, 3, 100), (-1, 3, 0)])
def test_a_share_is_a_share(part: float, whole: float, share: int) -> None:
    """Never outside of 0 to 100, whatever the numbers are."""
    assert percent(part, whole) == share


def test_cents_are_the_smallest() -> None:
    """Fractions of them are nobody's concern."""
    assert [dollars(amount) for amount in (0, 0.001, 12.963, 1234.5)] == [
        "$0.00",
        "less than a cent",
        "$12.96",
        "$1,234.50",
    ]
