"""Finds the version to which a key belongs, by `store.key_pattern`."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Final

from servesync.domain.versions import Layout, Model, Release, Version, parse_model, parse_version

ARCHIVE_ENDINGS: Final = (".tar.gz", ".tgz", ".tar.zst", ".tar")
FOLDER_ENDING: Final = "_$folder$"
"""What Hadoop and EMR put in place of a folder, as an empty object."""

MODEL: Final = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"
VERSION: Final = "[0-9]{1,40}"
MANIFEST_ENDING: Final = ".manifest.json"
_ARCHIVE: Final = "(?P<archive>" + "|".join(re.escape(ending) for ending in ARCHIVE_ENDINGS) + ")"
_REST: Final = rf"{_ARCHIVE}|(?P<manifest>{re.escape(MANIFEST_ENDING)})|/(?P<path>.*)"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """The meaning of a key: a version's archive, its manifest, or one file (`path`) of its directory."""

    model: Model
    version: Version
    kind: "KeyKind"
    path: str = ""


class KeyKind(Enum):
    """What an object is to its version."""

    ARCHIVE = "archive"
    MANIFEST = "manifest"
    MEMBER = "member"


@lru_cache(maxsize=100)
def stem_regex(pattern: str, model: str = MODEL, version: str = VERSION) -> str:
    """Return the regular expression of a key without its ending; its groups are `model` and `version`.

    `model`, `version`: the expressions for the placeholders. A second `{model}` must be the same model, a
    second `{version}` the same number, with leading zeros or without.
    """
    again = r"0{0,39}(?P=number)"
    if pattern.count("{version}") > 1 and version == VERSION:
        version = "0{0,39}(?P<number>0|[1-9][0-9]{0,39})"
    elif pattern.count("{version}") > 1:
        again = "(?P=version)"
    stem = re.escape(pattern)
    stem = stem.replace(r"\{model\}", f"(?P<model>{model})", 1).replace(r"\{model\}", "(?P=model)")
    return stem.replace(r"\{version\}", f"(?P<version>{version})", 1).replace(r"\{version\}", again)


class KeyPattern:
    """A compiled `store.key_pattern`; keys are given without the store's prefix."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self._stem = re.compile(f"{stem_regex(pattern)}(?:{_REST})", re.ASCII | re.DOTALL)

    @cached_property
    def _folders(self) -> tuple[re.Pattern[str], ...]:
        names = self.text.split("/")
        folders = ("/".join(names[: depth + 1]) for depth in range(len(names)))
        return tuple(re.compile(stem_regex(folder), re.ASCII | re.DOTALL) for folder in folders)

    def is_marker(self, key: str, size: int | None) -> bool:
        """Tell whether a key is an empty object with which some tool marks a folder."""
        if size:
            return False
        if key == "" or key.endswith(("/", FOLDER_ENDING)):
            return True
        is_empty = size == 0  # without a listed size it may be anything
        return is_empty and self.parse(key) is None and any(folder.fullmatch(key) for folder in self._folders)

    def stem(self, model: Model, version: Version) -> str:
        """Return the key of a version without its ending."""
        return self.text.replace("{model}", model).replace("{version}", str(version))

    def parse(self, key: str) -> ParsedKey | None:
        """Return the meaning of `key`; None if it belongs to no release."""
        match = self._stem.fullmatch(key)
        if match is None:
            return None
        model, version = parse_model(match["model"]), parse_version(match["version"])
        if model is None or version is None:
            return None
        if match["archive"]:
            return ParsedKey(model, version, KeyKind.ARCHIVE)
        if match["manifest"]:
            return ParsedKey(model, version, KeyKind.MANIFEST)
        return ParsedKey(model, version, KeyKind.MEMBER, match["path"])


def manifest_key_at(release: Release) -> str:
    """Return the key under which a release has its manifest, or would have it."""
    if release.layout is Layout.ARCHIVE:
        return manifest_key(release.objects[0].key)
    first = release.objects[0]
    return first.key.removesuffix(first.path).removesuffix("/") + MANIFEST_ENDING


def manifest_key(archive_key: str) -> str:
    """Return the key of the manifest that belongs to an archive: the same stem, another ending."""
    ending = next(ending for ending in ARCHIVE_ENDINGS if archive_key.endswith(ending))
    return archive_key.removesuffix(ending) + MANIFEST_ENDING
