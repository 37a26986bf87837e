"""Says what is wrong with a credential without showing it."""

import unicodedata
from collections.abc import Callable
from typing import Final

_NAMES: Final = {
    "\n": "a line feed",
    "\r": "a carriage return",
    "\t": "a tab",
    "\0": "a NUL",
    " ": "a space",
    "\x7f": "a DEL",
}
_BY_CATEGORY: Final = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Zs": "a space that is not ASCII",
}
_OTHER: Final = "a character that is not ASCII"
_LINE_ENDS: Final = "\r\n"
_ECHO: Final = "; was it made with `echo`? Use `printf %s`"
_WRAPPED: Final = "; it must be one line"


def flaw_of(value: object) -> str:
    """Return what is wrong with a value for a header, which must be visible ASCII; "" if nothing is."""
    return _flaw(value, lambda sign: not "!" <= sign <= "~")


def flaw_of_secret(value: object) -> str:
    """Return what is wrong with a secret key, or "": it is never sent, so inside, more is allowed."""
    if isinstance(value, str) and value != value.strip():
        inside = value.strip()
        return flaw_of(value.replace(inside, "x" * len(inside), 1))  # only its ends are checked
    return _flaw(value, lambda sign: sign < " " or sign == "\x7f")


def _flaw(value: object, is_wrong: Callable[[str], bool]) -> str:
    if not isinstance(value, str):
        return "is no text"
    if not value:
        return "is empty"
    wrong = [place for place, sign in enumerate(value) if is_wrong(sign)]
    if not wrong:
        return ""
    place = wrong[0]
    sign = value[place]
    name = _NAMES.get(sign) or _BY_CATEGORY.get(unicodedata.category(sign), _OTHER)
    if place >= len(value.rstrip()):
        return f"ends with {name}{_ECHO if sign in _LINE_ENDS else ''}"
    if not value[: place + 1].strip():
        return f"begins with {name}"
    return f"holds {name} (character {place + 1} of {len(value)}){_WRAPPED if sign in _LINE_ENDS else ''}"
