"""The page for people: `/status` as HTML. Every text is escaped; no asset comes from elsewhere."""

import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from servesync.admin.ages import age
from servesync.admin.report import running

SHOWN_EVENTS: Final = 25
MOST_MODELS: Final = 50
SHOWN_IDENTITY: Final = 12

SOURCE_NAMES: Final = {
    "staging": "an interrupted transfer",
    "version": "other versions on this machine",
    "cache": "this machine's cache",
    "mirror": "mirrors",
    "store": "the store",
}

Status = Mapping[str, Any]

if TYPE_CHECKING:
    from jinja2 import Environment


def make_environment() -> "Environment":
    """Return the templates, with escaping of everything on."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 (megabytes, for a page)

    environment = Environment(
        loader=PackageLoader("servesync.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["dollars"] = dollars
    environment.filters["words"] = lambda text: str(text).replace("_", " ")
    environment.globals["SHOWN_EVENTS"] = SHOWN_EVENTS
    environment.globals["SHOWN_IDENTITY"] = SHOWN_IDENTITY
    environment.globals["SOURCE_NAMES"] = SOURCE_NAMES
    environment.globals["age"] = age
    return environment


def percent(part: float, whole: float) -> int:
    """Return a share in whole percent, 0 to 100."""
    return max(0, min(100, round(100 * part / whole))) if whole > 0 else 0


class Page:
    """Renders what `/status` shows; the templates are read when somebody looks for the first time."""

    @cached_property
    def _templates(self) -> "Environment":
        return make_environment()

    def whole(self, status: Status) -> tuple[str, str]:
        """Return the page, and the policy under which a browser may run its one script and style."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return self._templates.get_template("page.html").render(**_values(status), nonce=nonce), policy

    def live(self, status: Status) -> str:
        """Return the part that changes; the page's script puts it in the place of the old one."""
        return self._templates.get_template("live.html").render(**_values(status))


def _values(status: Status) -> dict[str, Any]:
    verdict, tone = verdict_of(status)
    models = sorted(status["models"].items(), key=lambda item: (_is_well(item[1]), item[0]))
    return {
        "s": status,
        "running": running(status),
        "models": models[:MOST_MODELS],
        "more_models": len(models) - len(models[:MOST_MODELS]),
        "verdict": verdict,
        "tone": tone,
        "tones": TONES,
    }


def _is_well(model: Status) -> bool:
    return bool(model["in_place"] and model["served"]) or not model["required"]


def verdict_of(status: Status) -> tuple[str, str]:
    """Return how things are, in one sentence and one colour; an update that is under way is nothing bad."""
    required = [item for item in status["models"].values() if item["required"]]
    without = [item for item in required if not _serves_anything(item, status)]
    behind = [item for item in required if not (item["in_place"] and item["served"])]
    if status["looked_at"] is None:
        return "Starting: nothing has been looked at yet", "busy"
    if not status["alive"]:
        return "The deciding thread gives no sign of life", "bad"
    if without:
        return f"Not served: {len(without)} of {len(required)} required models", "bad"
    if status["draining_since_at"]:
        return "Draining: /readyz sends requests elsewhere", "busy"
    if status["troubles"]:
        return "Everything required is served, but not all is well", "warn"
    if behind:
        count = "one model is" if len(behind) == 1 else f"{len(behind)} models are"
        return f"Everything required is served; {count} not yet as wanted", "busy"
    return "Everything required is served", "good"


def _serves_anything(model: Status, status: Status) -> bool:
    """Whether a proven version is served; where there is no server to ask, lying on the shelf is enough."""
    asked = status["server"]["url"] is not None
    return any(
        item["on_disk"] in {"good", "unrecorded", "checking"} and (item["server"] == "AVAILABLE" or not asked)
        for item in model["versions"].values()
    )


def dollars(amount: float) -> str:
    """Return an amount for people, who do not care for fractions of a cent."""
    return "less than a cent" if 0 < amount < 0.01 else f"${amount:,.2f}"  # noqa: PLR2004 (a cent)


TONES: Final = {
    "serving": "good",
    "waiting": "warn",
    "to_install": "busy",
    "to_repair": "busy",
    "to_prune": "busy",
    "held": "bad",
    "foreign": "bad",
    "missing": "bad",
    "kept": "calm",
    "reserved": "calm",
    "not_wanted": "calm",
    "error": "bad",
    "warning": "warn",
    "info": "calm",
}
"""How a state of a version, or a level of the log, is coloured; it always stands there in words, too."""
