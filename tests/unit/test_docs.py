"""The documents name what the code has, in both directions."""

import re
from dataclasses import fields
from pathlib import Path

from servesync.admin.agent_status import Activity
from servesync.admin.report import report
from servesync.doctor import Check
from servesync.errors import Reason
from servesync.logs import Event
from servesync.settings import Admin
from status_box import full_status

DOCS = Path(__file__).parents[2] / "docs"


def test_every_event_is_documented() -> None:
    """`docs/events.md` has one row for each event, and no other."""
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "events.md").read_text(), re.MULTILINE)

    assert sorted(Event) == sorted(rows)


def test_every_reason_is_documented() -> None:
    """`docs/reasons.md` has one heading for each reason, and no other."""
    headings = re.findall(r"^### `(\w+)`$", (DOCS / "reasons.md").read_text(), re.MULTILINE)

    assert sorted(Reason) == sorted(headings)


def test_every_check_of_the_doctor_is_documented() -> None:
    """`docs/doctor.md` has one row for each id, and no other."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \|", (DOCS / "doctor.md").read_text(), re.MULTILINE)

    assert sorted(Check) == sorted(rows)


def test_every_field_of_the_status_is_documented() -> None:
    """`docs/admin.md` names each field of `/status`, down to those of a version."""
    found = report(full_status(), Admin())
    (model,) = found["models"].values()
    (version, *_) = model["versions"].values()
    activity = [item.name for item in fields(Activity)]
    named = set(re.findall(r"`(\w+)`", (DOCS / "admin.md").read_text()))

    nested = [*found["store"], *found["server"], *found["disk"], *found["memory"], *activity]
    assert {*found, *model, *version, *nested} - {"models"} <= named
