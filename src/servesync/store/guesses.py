"""Guesses what somebody meant: a `key_pattern` that serves a key, or a number for a version without one.

A pattern is proposed only if it would serve the next version, too: a date or `1.2.0` changes in more than one
place, so for these a number is named instead.
"""

import re
from collections.abc import Container, Sequence
from typing import Final

from servesync.domain.paths import FOLDERS, MODEL_FILES
from servesync.domain.versions import MAX_VERSION, Model, Version, parse_version
from servesync.store.keys import ARCHIVE_ENDINGS, KeyPattern

_NUMBERED: Final = re.compile(r"(?P<prefix>[A-Za-z][A-Za-z_.-]*|[_-])?(?P<digits>[0-9]{1,19})", re.ASCII)
_DATE: Final = re.compile(
    r"(?<![0-9])(?:19|20)[0-9]{2}(?P<mark>[-_./])[01][0-9](?P=mark)[0-3][0-9](?:[T_.-]?[0-9][0-9:._-]*Z?)?"
    r"|(?<![0-9])(?:19|20)[0-9]{6}[T_.-][0-9][0-9:._-]*Z?",
    re.ASCII,
)
_SEMANTIC: Final = re.compile(r"[vV]?([0-9]{1,6})\.([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:[-+.].*)?", re.ASCII)
_INSIDE: Final = re.compile(
    r"(?P<stem>.+)/(?:saved_model\.pb(?:txt)?|variables/.+|assets/.+|assets\.extra/.+)", re.DOTALL
)
_HASH: Final = re.compile("[0-9a-f]{7,64}", re.ASCII)
_NOT_IN_PATTERNS: Final = frozenset("{}*?\\")
SHOWN_CHARACTERS: Final = 200
_YEARS: Final = range(1970, 2101)
_COMMON_NAMES: Final = frozenset({"model", "models", "data", "export", "saved_model", "savedmodel"})
"""A folder with such a name is not taken for a model: it probably has this name for every model."""


def date_in(key: str) -> str | None:
    """Return the date in a key as the number to publish under, and None if there is none."""
    found = _DATE.search(key)
    digits = re.sub("[^0-9]", "", found[0]) if found else ""
    return digits if digits and int(digits) <= MAX_VERSION else None


def number_for(word: str) -> str | None:
    """Return a number that grows as dates or semantic versions such as `word` do; None if it is neither.

    `word` stands in place of the number. If it is several folders, the last one may be a semantic version.
    """
    semantic = _SEMANTIC.fullmatch(word.rpartition("/")[2])
    number = date_in(word)
    if number is None and semantic:
        major, minor, patch = (int(part or 0) for part in semantic.groups())
        number = str(major * 1_000_000 + minor * 1_000 + patch)
    return number


def pattern_for_word(pattern: str, key: str, word: str) -> str | None:
    """Return the pattern that serves `key`, which has `word` in place of the number, and its successors."""
    found = _NUMBERED.fullmatch(word)
    if found is None or _HASH.fullmatch(word):
        return None
    better = pattern.replace("{version}", f"{found['prefix'] or ''}{{version}}")
    return better if KeyPattern(better).parse(key) is not None else None


def pattern_inside(pattern: str, tail: str, model: Model, version: Version) -> str | None:
    """Return the pattern that serves what lies in the folder `tail` of a version, in this and in others."""
    names = tail.split("/")
    others = [int(name) for name in names if parse_version(name) not in {None, version}]
    if others not in ([], [0], [1]) or (others and version in _YEARS):  # a time, or a date in folders
        return None
    better = f"{pattern}/{'/'.join(_general(name, model, version) for name in names)}"
    key = f"{KeyPattern(pattern).stem(model, version)}/{tail}/saved_model.pb"
    parsed = KeyPattern(better).parse(key) if _may_be_in_a_pattern(tail) else None
    return better if parsed and (parsed.model, parsed.version) == (model, version) else None


def _may_be_in_a_pattern(text: str) -> bool:
    return text.isprintable() and _NOT_IN_PATTERNS.isdisjoint(text) and "" not in text.split("/")


def setting(pattern: str) -> str:
    """Return the line of a settings file that sets a pattern: quoted YAML, escaped like all foreign text."""
    escaped = pattern.replace('"', '\\"').encode("ascii", "backslashreplace").decode()
    return f'store.key_pattern: "{escaped}"'


def _general(name: str, model: Model, version: Version) -> str:
    """Return the name of a folder with placeholders where it names the model or the version."""
    if model not in _COMMON_NAMES:
        name = re.sub(rf"(?<![A-Za-z0-9]){re.escape(model)}(?![A-Za-z0-9])", "{model}", name)
    return re.sub(rf"(?<![0-9])0*{version}$", "{version}", name)


def pattern_of_key(key: str, wanted: Container[str]) -> str | None:
    """Return the pattern that serves a key with more folders than usual; None unless it has one number."""
    stem = stem_of(key)
    names = stem.split("/") if stem else []
    if len(names) < 2 or not _may_be_in_a_pattern(stem):  # noqa: PLR2004 (a model and a version)
        return None
    at = next((place for place, name in enumerate(names) if name in wanted), 0)
    numbered = [place for place, name in enumerate(names) if place != at and re.search("[0-9]", name)]
    found = _NUMBERED.fullmatch(names[numbered[0]]) if len(numbered) == 1 else None
    if found is None:
        return None
    names[numbered[0]] = f"{found['prefix'] or ''}{{version}}"
    names[at] = "{model}"
    better = "/".join(names)
    return better if KeyPattern(better).parse(key) is not None else None


def stem_of(key: str) -> str:
    """Return the key of an archive without its ending, or of the folder of a SavedModel; empty if neither."""
    ending = next((ending for ending in ARCHIVE_ENDINGS if key.endswith(ending)), None)
    if ending is not None:
        return key.removesuffix(ending)
    found = _INSIDE.fullmatch(key)
    return found["stem"] if found else ""


def find_deeper(source: str, pattern: str, model: Model, version: Version, paths: Sequence[str]) -> str:
    """Return what to do about a version's folder whose model lies deeper; empty if there is no model in it.

    `source`: the key of the folder. `paths`: those of its files, relative to it.
    """
    folders = (path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] in MODEL_FILES)
    models = list(dict.fromkeys(folders))
    archives = [p for p in paths if p.endswith(ARCHIVE_ENDINGS) and p.partition("/")[0] not in FOLDERS]
    if not models and not archives:
        return ""
    least = min(path.count("/") for path in models or archives)
    first, *more = (path for path in models or archives if path.count("/") == least)
    place = ascii(source + first)[:SHOWN_CHARACTERS]
    what = f"its model deeper, in {place}" if models else f"no saved_model.pb, but the archive {place}"
    text = f"{source!a} has {what}"
    if more:
        return f"{text}, and {len(more)} more like it: publish each as a model of its own (servesync publish)"
    inside = first if models else stem_of(first)
    publishing = f"publish that as version {version} (servesync publish)"
    if better := pattern_inside(pattern, inside, model, version):
        return f"{text}: set {setting(better)} if all versions are stored so, or {publishing}"
    if date := date_in(f"{version:04d}/{inside}"):
        publishing = f"publish it under one number, such as {date}"
    return f"{text}: no store.key_pattern serves that and other versions: {publishing}"
