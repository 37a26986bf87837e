"""`servesync status` for people: what it prints of an agent's own JSON."""

import io
from typing import Any

from rich.console import Console

from board_box import M, full_board
from servesync.admin import Board, Stage
from servesync.admin.report import report
from servesync.cli.status import show_status
from servesync.domain.versions import Version
from servesync.settings import Admin


def shown(status: dict[str, Any]) -> list[str]:
    """Return the lines that are printed."""
    console = Console(file=io.StringIO(), width=200)
    show_status(status, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def now_of(board: Board) -> list[str]:
    """Return the lines that say what goes on."""
    return [line for line in shown(report(board, Admin())) if line.startswith("now ")]


def test_every_transfer_has_a_line() -> None:
    """With its stage, and how far it has come where that is counted."""
    board = full_board()
    assert now_of(board) == ["now     waiting"]
    with (
        board.stage(Stage.FETCH, M, Version(7), 1_000_000) as count,
        board.stage(Stage.VERIFY, M, Version(8)),
        board.stage(Stage.LIST),
    ):
        count(250_000)
        assert now_of(board) == ["now     fetch m 7: 25 % of 1.0 MB", "now     verify m 8"]
    with board.stage(Stage.LIST):
        assert now_of(board) == ["now     list the store"]


def test_a_held_newest_version_is_said_at_the_top() -> None:
    """Before the tables, as everything that does not work."""
    lines = shown(report(full_board(), Admin()))
    assert "m: release_ambiguous: version 2, the newest, is held: two archives" in lines[:3]
