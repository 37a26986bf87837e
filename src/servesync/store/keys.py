"""From a key to the version that it belongs to, by `store.key_pattern`."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from servesync.plan.versions import Layout, Model, Release, Version, parse_model, parse_version

ARCHIVE_ENDINGS: Final = (".tar.gz", ".tgz", ".tar.zst", ".tar")
_MODEL: Final = r"(?P<model>[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})"
_VERSION: Final = r"(?P<version>[0-9]{1,40})"
MANIFEST_ENDING: Final = ".manifest.json"
_ARCHIVE: Final = "(?P<archive>" + "|".join(re.escape(ending) for ending in ARCHIVE_ENDINGS) + ")"
_REST: Final = rf"{_ARCHIVE}|(?P<manifest>{re.escape(MANIFEST_ENDING)})|/(?P<path>.*)"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a key says: a version's archive, its manifest, or one file (`path`) of a version's directory."""

    model: Model
    version: Version
    kind: "KeyKind"
    path: str = ""


class KeyKind(Enum):
    """What an object is to its version."""

    ARCHIVE = "archive"
    MANIFEST = "manifest"
    MEMBER = "member"


class KeyPattern:
    """A compiled `store.key_pattern`; keys are given without the store's prefix."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        stem = re.escape(pattern).replace(r"\{model\}", _MODEL).replace(r"\{version\}", _VERSION)
        self._stem = re.compile(f"{stem}(?:{_REST})", re.ASCII | re.DOTALL)

    def stem(self, model: Model, version: Version) -> str:
        """Return the key of a version without its ending."""
        return self._text.replace("{model}", model).replace("{version}", str(version))

    def parse(self, key: str) -> ParsedKey | None:
        """Return what `key` says, or None if it is no part of a release."""
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
    item = release.objects[0]
    return item.key.removesuffix(item.path).removesuffix("/") + MANIFEST_ENDING


def manifest_key(archive_key: str) -> str:
    """Return the key of the manifest that belongs to an archive: the same stem, another ending."""
    ending = next(ending for ending in ARCHIVE_ENDINGS if archive_key.endswith(ending))
    return archive_key.removesuffix(ending) + MANIFEST_ENDING
