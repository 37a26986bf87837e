"""Compares what a model answered with what was expected, element by element."""

import base64
import math
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Json: TypeAlias = Any
NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
SHOWN_CHARACTERS: Final = 100


def decoded(value: Json, *, text: bool) -> Json:
    """Return nested lists with bytes for strings (if `text`), else with floats for `"NaN"` and the like.

    Text may have been read with `surrogateescape`: the server writes strings that are not UTF-8 as they are.
    """
    if isinstance(value, list):
        return [decoded(item, text=text) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    if isinstance(value, str):
        return value.encode(errors="surrogateescape") if text else float(value)
    return value


def worst(found: Json, expected: Json, absolute: float, relative: float) -> dict[str, Json] | None:
    """Return the element that is farthest off, and how many are too far; None if all is well.

    NaN is right only where NaN is expected, and an infinity only where the same one is. All other numbers
    may differ by `absolute + relative * |expected|` if they are floats, and not at all otherwise.
    """
    shapes = _shape(found), _shape(expected)
    if shapes[0] != shapes[1]:
        return _difference([], (f"the shape {shapes[0]}", f"the shape {shapes[1]}"), None, 0.0, 1)
    wrong = 0
    most = -1.0
    result = None
    for place, have, wanted in _pairs(found, expected, ()):
        off, allowed = _distance(have, wanted, absolute, relative)
        if off > allowed:
            wrong += 1
            if off > most:
                most, result = off, (list(place), (_shown(have), _shown(wanted)), off, allowed)
    if result is None:
        return None
    place_list, both, off, allowed = result
    return _difference(place_list, both, off if math.isfinite(off) else None, allowed, wrong)


def _difference(
    place: list[int], both: tuple[str, str], off: float | None, allowed: float, wrong: int
) -> dict[str, Json]:
    found, expected = both
    return {
        "place": place,
        "found": found,
        "expected": expected,
        "difference": off,
        "allowed": allowed,
        "wrong": wrong,
    }


def _distance(have: Json, wanted: Json, absolute: float, relative: float) -> tuple[float, float]:
    """Return how far off an element is, and how far it may be."""
    if not isinstance(have, float):
        same = have == wanted
        is_number = isinstance(have, int) and not isinstance(have, bool)
        return (0.0 if same else float(abs(have - wanted)) if is_number else math.inf), 0.0
    wanted = float(wanted)
    allowed = absolute + relative * abs(wanted) if math.isfinite(wanted) else 0.0
    if have == wanted or (math.isnan(have) and math.isnan(wanted)):
        return 0.0, allowed
    off = abs(have - wanted)
    return (off if math.isfinite(off) else math.inf), allowed


def _pairs(
    found: Json, expected: Json, place: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], Json, Json]]:
    if not isinstance(found, list):
        yield place, found, expected
        return
    for index, (have, wanted) in enumerate(zip(found, expected, strict=True)):
        yield from _pairs(have, wanted, (*place, index))


def _shape(value: Json) -> list[int]:
    """Return the sizes of nested lists that are even, as a tensor's are."""
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return sizes


def _shown(value: Json) -> str:
    return repr(value)[:SHOWN_CHARACTERS]
