"""Why a key names no version by `store.key_pattern`: what somebody probably meant, and what is in the way."""

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from servesync.store.keys import ARCHIVE_ENDINGS, MANIFEST_ENDING, KeyKind, KeyPattern

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
_NO_ENDING: Final = r"(?:\.[A-Za-z0-9]{1,10}){1,3}"
_PARTLY_UPLOADED: Final = re.compile(r".*\.(part|partial|tmp|filepart|crdownload)", re.DOTALL)
_MOST_FOLDERS: Final = 8


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a key is no release: a word for the kind, and a sentence that says what to change."""

    kind: str
    text: str


def explain(pattern: str, key: str, wanted: Container[str] = ()) -> Misfit | None:
    """Return why `key` (without the store's prefix) is no part of a release; None if it is one.

    Where several explanations are possible, one that leads to a `wanted` model is preferred.
    An archive inside of a version's folder parses as one of its files, and is explained all the same.
    """
    known = KeyPattern(pattern)
    parsed = known.parse(key)
    if parsed is not None:
        return _one_too_deep(pattern, parsed.path) if parsed.kind is KeyKind.MEMBER else None
    return (
        _no_number(pattern, key)
        or _other_ending(pattern, key)
        or _extra_folder(known, key, wanted)
        or _no_model(pattern, key)
        or _other_pattern(pattern, key)
        or _nothing_like_it(pattern, key)
    )


def _one_too_deep(pattern: str, path: str) -> Misfit | None:
    if "/" not in path and path.endswith((*ARCHIVE_ENDINGS, MANIFEST_ENDING)):
        text = f"an archive inside of the version's folder: its key must be {pattern}{ARCHIVE_ENDINGS[0]}"
        return Misfit("archive_in_folder", text)
    return None


def _fits(pattern: str, model: str, version: str, rest: str, key: str) -> re.Match[str] | None:
    stem = re.escape(pattern).replace(r"\{model\}", model).replace(r"\{version\}", version)
    return re.fullmatch(stem + rest, key, re.ASCII | re.DOTALL)


def _other_ending(pattern: str, key: str) -> Misfit | None:
    found = _fits(pattern, "[A-Za-z0-9_-][A-Za-z0-9._-]*", "[0-9]{1,40}", f"(?P<ending>{_NO_ENDING})?", key)
    if found is None:
        return None
    ending = found["ending"]
    if not ending:
        return Misfit("no_ending", f"it has no ending; an archive ends in one of {_ENDINGS}")
    if _PARTLY_UPLOADED.fullmatch(ending):
        return Misfit("unfinished", f"{ending} looks like an upload that did not end; it is not taken")
    return Misfit("ending", f"the ending {ending} is none of {_ENDINGS}, {MANIFEST_ENDING}: pack it with tar")


def _no_number(pattern: str, key: str) -> Misfit | None:
    endings = "|".join(re.escape(ending) for ending in (*ARCHIVE_ENDINGS, MANIFEST_ENDING))
    archive = _fits(pattern, "[A-Za-z0-9_-][A-Za-z0-9._-]*", "(?P<word>[^/]+)", f"(?:{endings})", key)
    directory = _fits(
        pattern, "[A-Za-z0-9_-][A-Za-z0-9._-]*", "(?P<word>[^/]+)", r"/(?:saved_model\.pb|variables/.*)", key
    )
    found = archive or directory
    if found is None:
        return None
    word = found["word"]
    if re.fullmatch("[0-9]+", word, re.ASCII):
        return Misfit("number_too_high", f"{word[:40]} is no version: the highest is 9223372036854775807")
    within = re.search("[0-9]+", word, re.ASCII)
    hint = ""
    if within:
        better = pattern.replace("{version}", word[: within.start()] + "{version}" + word[within.end() :])
        if KeyPattern(better).parse(key) is not None:
            hint = f', or set store.key_pattern: "{better}"'
    shown = ascii(word[:40])
    return Misfit("not_a_number", f"{shown} is no number: versions are numbers{hint}")


def _extra_folder(known: KeyPattern, key: str, wanted: Container[str]) -> Misfit | None:
    folders = key.split("/")
    rests = ["/".join(folders[:n] + folders[n + 1 :]) for n in range(min(len(folders) - 1, _MOST_FOLDERS))]
    found = [(place, parsed) for place, rest in enumerate(rests) if (parsed := known.parse(rest)) is not None]
    if not found:
        return None
    place, _ = next((item for item in found if item[1].model in wanted), found[0])
    extra = ascii(folders[place][:80])
    where = "put it at the end of store.url" if place == 0 else "leave it out of the keys"
    return Misfit("extra_folder", f"the folder {extra} is not in store.key_pattern: {where}")


def _no_model(pattern: str, key: str) -> Misfit | None:
    found = _fits(pattern, "(?P<model>[^/]+)", "[0-9]{1,40}", r"(?:\.[a-z.]{2,20}|/.+)", key)
    if found is None:
        return None
    allowed = "1 to 100 of A-Z a-z 0-9 . _ - and no dot first"
    return Misfit("model_name", f"{found['model'][:80]!a} is no model's name: {allowed}")


def _other_pattern(pattern: str, key: str) -> Misfit | None:
    for usual in USUAL_PATTERNS:
        parsed = KeyPattern(usual).parse(key) if usual != pattern else None
        if parsed is not None:
            text = f"it would be {parsed.model} {parsed.version} under the key_pattern {usual!r}"
            return Misfit("other_pattern", f"{text}; store.key_pattern is {pattern!r}")
    return None


def _nothing_like_it(pattern: str, key: str) -> Misfit:
    if key.endswith(ARCHIVE_ENDINGS):
        return Misfit("no_version", f"an archive whose key names no model and version by {pattern!r}")
    return Misfit("other", "nothing that servesync knows; it is left alone")
