"""Which versions a listing of a base path asks for (FileSystemStoragePathSource); pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from servesync.demo.standin.config import Policy

_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)


def parse_name(name: str) -> int | None:
    """Return the version that a directory entry names: a signed 64-bit decimal, blanks around it allowed."""
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if -(2**63) <= number < 2**63 else None


def aspired(names: Iterable[str], policy: Policy) -> Mapping[int, str]:
    """Return what is wanted, as version -> entry name.

    Of several names of one number, `all` keeps the first in the order of bytes and the others the last.
    """
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
        case _:
            wanted = sorted(found)[-policy.count :]
    return {number: found[number] for number in wanted}
