"""Finds the versions to request from a listing of the base paths (FileSystemStoragePathSource); pure.

Only the names of entries count: not their kind, and not their content.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from servesync.demo.standin.config import ModelConfig, Policy

_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,400})[ \t\n\v\f\r]*", re.ASCII)


class BasePathMissing(Exception):
    """A base path cannot be listed: the whole poll fails, for every model."""


@dataclass(frozen=True)
class Poll:
    """The result of one poll: for each model version -> path, and lines for the log."""

    wanted: Mapping[str, Mapping[int, str]]
    warnings: tuple[str, ...]


def poll(models: Iterable[ModelConfig], list_names: Callable[[str], Collection[str]]) -> Poll:
    """Return the versions to request; none for a base path without versions.

    Raises:
        BasePathMissing: `list_names` raised OSError for one, which voids the poll for every model.
    """
    wanted: dict[str, Mapping[int, str]] = {}
    warnings: list[str] = []
    for model in models:
        try:
            names = list_names(model.base_path)
        except OSError as error:
            raise BasePathMissing(
                f"Could not find base path {model.base_path} for servable {model.name}: {error.strerror}"
            ) from error
        found = aspired(names, model.policy)
        wanted[model.name] = {number: f"{model.base_path}/{name}" for number, name in found.items()}
        warnings += _warnings(model, names, found)
    return Poll(wanted, tuple(warnings))


def parse_name(name: str) -> int | None:
    """Return the version that a directory entry names: a signed 64-bit decimal, blanks around it allowed."""
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if -(2**63) <= number < 2**63 else None


def aspired(names: Collection[str], policy: Policy) -> Mapping[int, str]:
    """Return the wanted versions, each with the name of its entry.

    If several names have one number, `all` takes the first in the order of their bytes, the others the last.
    `specific` prefers plain decimals if it finds every version under one.
    """
    if policy.kind == "specific" and all(str(number) in names for number in policy.versions):
        return {number: str(number) for number in policy.versions}
    found: dict[int, str] = {}
    for name in sorted(names, key=lambda name: name.encode(errors="surrogateescape")):
        number = parse_name(name)
        if number is None or (policy.kind == "all" and number in found):
            continue
        found[number] = name
    match policy.kind:
        case "all":
            wanted = sorted(found)
        case "specific":
            wanted = [number for number in policy.versions if number in found]
        case "latest":
            wanted = sorted(found)[-policy.count :]
    return {number: found[number] for number in wanted}


def _warnings(model: ModelConfig, names: Collection[str], found: Mapping[int, str]) -> list[str]:
    numbers = Counter(number for name in names if (number := parse_name(name)) is not None)
    texts = [
        f"Duplicate version directories detected. Version {number} will be loaded from {found[number]!a}"
        for number, count in numbers.items()
        if count > 1 and number in found
    ]
    if not found:
        texts.append(f"No versions of servable {model.name} found under base path {model.base_path}")
    texts += [
        f"Version {number} of servable {model.name}, which was requested to be served as a 'specific' "
        "version in the server's config, was not found in the file system"
        for number in model.policy.versions
        if number not in found
    ]
    return texts
