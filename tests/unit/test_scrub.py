"""When versions on the shelf are read again."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from servesync.agent.scrub import due
from servesync.domain.versions import Model, Version
from servesync.install import Record
from servesync.settings import Scrub

M = Model("m")
NOON = datetime(2026, 1, 8, 12, 0, tzinfo=UTC)


def record(at: str, scrubbed_at: str = "", state: str = "installed") -> Record:
    """One that was installed, and perhaps scrubbed, at these times."""
    found = {"identity": "i", "at": at, "state": state, "files": (), "scrubbed_at": scrubbed_at or None}
    return Record.model_validate(found)


OLD = record("2026-01-01T00:00:00+00:00")
OLDER = record("2025-12-31T00:00:00+00:00")
FRESH = record("2025-12-31T00:00:00+00:00", "2026-01-08T00:00:00+00:00")
UNDER_WAY = record("2025-01-01T00:00:00+00:00", state="installing")


def test_the_one_that_has_waited_longest_is_next() -> None:
    """A scrub counts, an installation under way is left alone."""
    records = [(M, Version(number), item) for number, item in enumerate((OLD, OLDER, FRESH, UNDER_WAY))]

    assert due(records, Scrub(), NOON) == (M, 1)
    assert due(records[2:], Scrub(), NOON) is None
    assert due(records, Scrub(interval_hours=None), NOON) is None
    assert due([], Scrub(), NOON) is None


@pytest.mark.parametrize(
    ("between", "hour", "is_time"),
    [
        (None, 3, True),
        ("02:00-05:00", 3, True),
        ("02:00-05:00", 5, False),
        ("02:00-05:00", 1, False),
        ("22:00-04:00", 23, True),
        ("22:00-04:00", 3, True),
        ("22:00-04:00", 12, False),
    ],
)
def test_only_at_its_time_of_day(between: str | None, hour: int, *, is_time: bool) -> None:
    """Also over midnight."""
    settings = Scrub(between_utc=between)

    assert (due([(M, Version(1), OLDER)], settings, NOON.replace(hour=hour)) is not None) == is_time


@pytest.mark.parametrize("between", ["2-5", "02:00", "25:00-26:00", "02:00-05:00 ", ""])
def test_a_time_of_day_has_one_form(between: str) -> None:
    """Whatever else is named at once."""
    with pytest.raises(ValidationError, match="HH:MM-HH:MM"):
        Scrub(between_utc=between)
