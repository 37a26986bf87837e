"""Explains why a key names no version by `store.key_pattern`: what was probably meant, and what to change."""

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from servesync.store.guesses import (
    number_for,
    pattern_for_word,
    pattern_inside,
    pattern_of_key,
    setting,
    stem_of,
)
from servesync.store.keys import (
    ARCHIVE_ENDINGS,
    MANIFEST_ENDING,
    MODEL,
    KeyKind,
    KeyPattern,
    ParsedKey,
    stem_regex,
)

USUAL_PATTERNS: Final = (
    "{model}/{version}",
    "{model}/v{version}",
    "{model}/modelv{version}",
    "{model}/model-{version}",
    "{model}-{version}",
    "{model}-v{version}",
    "{model}_{version}",
    "{model}_v{version}",
)
_ENDINGS: Final = ", ".join(ARCHIVE_ENDINGS)
_RELEASE_ENDINGS: Final = (*ARCHIVE_ENDINGS, MANIFEST_ENDING)
_NO_ENDING: Final = r"(?:\.[A-Za-z0-9]{1,10}){1,3}"
_PARTLY_UPLOADED: Final = re.compile(r".*\.(part|partial|tmp|filepart|crdownload)", re.DOTALL)
_MOST_FOLDERS: Final = 8
_known: Final = lru_cache(maxsize=100)(KeyPattern)
"""Every key of a bucket is explained by the same few patterns."""


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """The reason why a key is no release: a word for its kind, and a sentence that says what to change."""

    kind: str
    text: str


def explain(pattern: str, key: str, wanted: Container[str] = ()) -> KeyProblem | None:
    """Return why `key` (without the store's prefix) is no part of a release; None if it is one.

    Where several explanations are possible, one that leads to a `wanted` model is preferred.
    An archive inside of a version's folder parses as one of the version's files, but is explained, too.
    """
    known = _known(pattern)
    parsed = known.parse(key)
    if parsed is not None:
        return _one_too_deep(pattern, parsed) if parsed.kind is KeyKind.MEMBER else None
    return (
        _no_number(pattern, key)
        or _other_ending(pattern, key)
        or _beside_the_model(pattern, key)
        or _not_twice_the_same(pattern, key)
        or _date_or_release_name(key)
        or _extra_folder(known, key, wanted)
        or _no_model(pattern, key)
        or _other_pattern(pattern, key, wanted)
        or _nothing_like_it(pattern, key)
    )


def _one_too_deep(pattern: str, parsed: ParsedKey) -> KeyProblem | None:
    path = parsed.path
    if "/" in path or not path.endswith(_RELEASE_ENDINGS):
        return None
    stem = next(path.removesuffix(ending) for ending in _RELEASE_ENDINGS if path.endswith(ending))
    better = pattern_inside(pattern, stem, parsed.model, parsed.version)
    text = f"an archive inside of the version's folder: its key must be {pattern}{ARCHIVE_ENDINGS[0]}"
    return KeyProblem("archive_in_folder", text + _or_set(better))


def _or_set(better: str | None) -> str:
    return f", or set {setting(better)}" if better else ""


def _fits(pattern: str, model: str, version: str, rest: str, key: str) -> re.Match[str] | None:
    return re.fullmatch(stem_regex(pattern, model, version) + rest, key, re.ASCII | re.DOTALL)


def _other_ending(pattern: str, key: str) -> KeyProblem | None:
    found = _fits(pattern, MODEL, "[0-9]{1,40}", f"(?P<ending>{_NO_ENDING})?", key)
    if found is None:
        return None
    ending = found["ending"]
    if not ending:
        return KeyProblem("no_ending", f"it has no ending; an archive ends in one of {_ENDINGS}")
    if _PARTLY_UPLOADED.fullmatch(ending):
        return KeyProblem("unfinished", f"{ending} looks like an unfinished upload, and is ignored")
    return KeyProblem(
        "ending", f"the ending {ending} is none of {_ENDINGS}, {MANIFEST_ENDING}: pack it with tar"
    )


def _no_number(pattern: str, key: str) -> KeyProblem | None:
    endings = "|".join(re.escape(ending) for ending in _RELEASE_ENDINGS)
    archive = _fits(pattern, MODEL, "[^/]+", f"(?:{endings})", key)
    found = archive or _fits(pattern, MODEL, "[^/]+", r"/(?:saved_model\.pb|variables/.*)", key)
    if found is None:
        return None
    word = found["version"]
    if re.fullmatch("[0-9]+", word, re.ASCII):
        return KeyProblem("number_too_high", f"{word[:40]} is no version: the highest is 9223372036854775807")
    number = number_for(word)
    hint = f": publish it as {number}" if number else _or_set(pattern_for_word(pattern, key, word))
    return KeyProblem("not_a_number", f"{word[:40]!a} is no number: versions are numbers{hint}")


def _beside_the_model(pattern: str, key: str) -> KeyProblem | None:
    """Explain a file in a version's folder that lies outside of the inner folder that the pattern names."""
    end = max(pattern.rfind("{model}"), pattern.rfind("{version}"))
    folder, _, inside = pattern[end:].partition("/")
    head = pattern[:end] + folder
    if not inside or _fits(head, MODEL, "[0-9]{1,40}", "/.+", key) is None:
        return None
    text = f"it lies beside the model, which is in {inside!a} by store.key_pattern: it is ignored"
    return KeyProblem("beside", text)


def _not_twice_the_same(pattern: str, key: str) -> KeyProblem | None:
    """Explain a key that would fit if the pattern named model and version once."""
    stem = re.escape(pattern).replace(r"\{model\}", MODEL).replace(r"\{version\}", "[0-9]{1,40}")
    if not re.fullmatch(stem, stem_of(key), re.ASCII):
        return None
    text = (
        f"store.key_pattern {pattern!r} names the model or the version twice, and the key two different ones"
    )
    return KeyProblem("two_names", text)


def _date_or_release_name(key: str) -> KeyProblem | None:
    number = number_for(stem_of(key))
    return KeyProblem("not_a_number", f"versions are numbers: publish it as {number}") if number else None


def _extra_folder(known: KeyPattern, key: str, wanted: Container[str]) -> KeyProblem | None:
    folders = key.split("/")
    rests = ["/".join(folders[:n] + folders[n + 1 :]) for n in range(min(len(folders) - 1, _MOST_FOLDERS))]
    found = [(place, parsed) for place, rest in enumerate(rests) if (parsed := known.parse(rest)) is not None]
    if not found:
        return None
    place, _ = next((item for item in found if item[1].model in wanted), found[0])
    extra = ascii(folders[place][:80])
    better = pattern_of_key(key, wanted) if place else None
    where = f"leave it out of the keys{_or_set(better)}" if place else "put it at the end of store.url"
    return KeyProblem("extra_folder", f"the folder {extra} is not in store.key_pattern: {where}")


def _no_model(pattern: str, key: str) -> KeyProblem | None:
    found = _fits(pattern, "[^/]+", "[0-9]{1,40}", r"(?:\.[a-z.]{2,20}|/.+)", key)
    if found is None:
        return None
    allowed = "1 to 100 of A-Z a-z 0-9 . _ - and no dot first"
    return KeyProblem("model_name", f"{found['model'][:80]!a} is no model's name: {allowed}")


def _other_pattern(pattern: str, key: str, wanted: Container[str]) -> KeyProblem | None:
    archive = stem_of(key) + ARCHIVE_ENDINGS[0]
    usual = (usual for usual in USUAL_PATTERNS if usual != pattern and _known(usual).parse(archive))
    better = next(usual, None) or pattern_of_key(key, wanted)
    parsed = KeyPattern(better).parse(key) if better else None
    if better is None or parsed is None:
        return None
    text = f"it would be {parsed.model} {parsed.version} under {setting(better)}"
    return KeyProblem("other_pattern", f"{text}; store.key_pattern is {pattern!r}")


def _nothing_like_it(pattern: str, key: str) -> KeyProblem:
    if key.endswith(ARCHIVE_ENDINGS):
        return KeyProblem("no_version", f"an archive whose key names no model and version by {pattern!r}")
    return KeyProblem("other", "servesync does not know what it is, and ignores it")
