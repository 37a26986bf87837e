"""The page's verdict, and that every text on it is text."""

from dataclasses import replace
from typing import Any

import pytest

from servesync.admin import AgentStatus, OnDisk, Snapshot, Stage, Trouble
from servesync.admin.page import Page, dollars, percent, verdict_of
from servesync.admin.report import report, running
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Role
from servesync.settings import Admin, Prices
from status_box import AMBIGUOUS, OUTAGE, full_status, snapshot, version, with_held_newest

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def status_of(seen: Snapshot | None) -> dict[str, Any]:
    """Return what `/status` shows of one look."""
    agent_status = AgentStatus()
    if seen is not None:
        agent_status.publish(seen)
    return report(agent_status, Admin())


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
    agent_status = full_status()
    seen = snapshot({1: version(why=HOSTILE, identity=HOSTILE, proven_by=HOSTILE)})
    (model,) = seen.models.values()
    trouble = replace(OUTAGE, text=HOSTILE)
    hostile = replace(
        seen,
        models={
            HOSTILE: replace(  # type: ignore[dict-item]
                model,
                strange_names=(HOSTILE,),
                trouble=trouble,
                held_newest=replace(AMBIGUOUS, text=HOSTILE),
                policy=HOSTILE,
            )
        },
        settings_trouble=trouble,
        store=replace(seen.store, url=HOSTILE, trouble=trouble, ignored_keys=1, ignored_examples=(HOSTILE,)),
        server=replace(seen.server, url=HOSTILE, trouble=trouble),
    )
    agent_status.publish(hostile)
    agent_status.note(
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
    text, policy = Page().whole(report(agent_status, Admin()))
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "alert(1)" in text
    nonce = policy.partition("nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in text
    assert Page().whole(report(agent_status, Admin()))[1] != policy, "a nonce is used once"


def test_all_that_goes_on_is_shown() -> None:
    """Each transfer has a bar of its own, once its bytes are counted; a listing is told, too."""
    agent_status = full_status()
    with (
        agent_status.stage(Stage.LIST),
        agent_status.stage(Stage.FETCH, Model("a"), Version(7), 200) as seven,
        agent_status.stage(Stage.FETCH, Model("b"), Version(8), 400) as eight,
        agent_status.stage(Stage.VERIFY, Model("c"), Version(9)),
    ):
        seven(100)
        eight(40)
        status = report(agent_status, Admin())
        text = Page().live(status)
    assert status["activity"]["stage"] == "list"
    assert [(item["stage"], item["model"], item["version"]) for item in status["transfers"]] == [
        ("fetch", "a", 7),
        ("fetch", "b", 8),
        ("verify", "c", 9),
    ]
    assert [item["done_bytes"] for item in status["transfers"]] == [100, 40, None]
    assert "Fetched of a 7: 50 percent" in text
    assert "Fetched of b 8: 10 percent" in text
    assert "<strong>verify</strong> c 9" in text
    assert "<strong>list</strong> the store" in text
    assert "Waiting" not in text
    assert "Waiting" in Page().live(report(agent_status, Admin()))


def test_the_page_says_where_bytes_came_from() -> None:
    """Only the sources that gave something, in the order of their price, and what the store sent costs."""
    agent_status = full_status()
    assert "Bytes of releases came from" not in Page().live(report(agent_status, Admin()))

    agent_status.came_from("store", 1_000_000_000)
    agent_status.came_from("version", 9_000_000_000)
    prices = Prices(list_usd_per_1000=0.0, read_usd_per_1000=0.0, transfer_usd_per_gb=1.0)
    status = report(agent_status, Admin(prices=prices))

    assert status["bytes_by_source"] == {
        "staging": 0,
        "version": 9_000_000_000,
        "cache": 0,
        "mirror": 0,
        "store": 1_000_000_000,
    }
    assert "other versions on this machine: 9.0 GB, the store: 1.0 GB" in Page().live(status)
    assert status["cost"]["fetched_bytes"] == 1_000_000_000
    assert status["cost"]["since_start_usd"] == pytest.approx(1.0, abs=0.01)  # and what requests cost


def test_what_goes_on_in_an_older_agent_is_understood() -> None:
    """It names one activity, and no transfers; a newer one's oldest transfer is not told twice."""
    one, other = {"stage": "fetch", "version": 1}, {"stage": "verify", "version": 2}
    assert running({"activity": one}) == [one]
    assert running({"activity": None}) == []
    assert running({"activity": one, "transfers": [one, other]}) == [one, other]


def test_held_newest_versions_and_settings_are_troubles() -> None:
    """In the list of all that does not work, and at the model that it is about."""
    trouble = Trouble(Reason.SETTINGS_INVALID, "line 3: a mistake")
    seen = replace(with_held_newest(snapshot({1: version()})), settings_trouble=trouble)
    status = status_of(seen)
    assert status["troubles"] == [
        {"about": "settings", "reason": "settings_invalid", "text": "line 3: a mistake"},
        {
            "about": "m",
            "reason": "release_ambiguous",
            "text": "version 2, the newest, is held: two archives",
        },
    ]
    held = {"version": 2, "reason": "release_ambiguous", "text": "two archives"}
    assert status["models"]["m"]["held_newest"] == held
    assert verdict_of(status)[1] == "warn"
    text = Page().live(status)
    assert "line 3: a mistake" in text
    assert text.count("the newest, is held") == 2


def test_of_many_models_those_in_trouble_come_first() -> None:
    """And no page has more than one can read."""
    good, bad = snapshot({1: version()}), snapshot()
    (fine,), (missing,) = good.models.values(), bad.models.values()
    agent_status = AgentStatus()
    agent_status.publish(
        replace(good, models={**{Model(f"a{number}"): fine for number in range(100)}, Model("z"): missing})
    )
    text, _ = Page().whole(report(agent_status, Admin()))
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
