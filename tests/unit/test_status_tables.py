"""`servesync status` for people: what it prints of an agent's own JSON."""

import io
from typing import Any

from rich.console import Console

from servesync.admin import AgentStatus, Stage
from servesync.admin.report import report
from servesync.cli.status import show_status
from servesync.domain.versions import Version
from servesync.settings import Admin
from status_box import M, full_status


def shown(status: dict[str, Any]) -> list[str]:
    """Return the lines that are printed."""
    console = Console(file=io.StringIO(), width=200)
    show_status(status, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def now_of(agent_status: AgentStatus) -> list[str]:
    """Return the lines that say what goes on."""
    return [line for line in shown(report(agent_status, Admin())) if line.startswith("now ")]


def test_every_transfer_has_a_line() -> None:
    """With its stage, and how far it has come where that is counted."""
    agent_status = full_status()
    assert now_of(agent_status) == ["now     waiting"]
    with (
        agent_status.stage(Stage.FETCH, M, Version(7), 1_000_000) as count,
        agent_status.stage(Stage.VERIFY, M, Version(8)),
        agent_status.stage(Stage.LIST),
    ):
        count(250_000)
        assert now_of(agent_status) == ["now     fetch m 7: 25 % of 1.0 MB", "now     verify m 8"]
    with agent_status.stage(Stage.LIST):
        assert now_of(agent_status) == ["now     list the store"]


def test_a_held_newest_version_is_said_at_the_top() -> None:
    """Before the tables, as everything that does not work."""
    lines = shown(report(full_status(), Admin()))
    assert "m: release_ambiguous: version 2, the newest, is held: two archives" in lines[:3]
