"""Strict, canonical JSON documents that carry their own digest, so that damage shows.

The form: keys sorted, no white space, ASCII, a line feed at the end; `digest` is the SHA-256 of that form
without `digest` itself. What is read may come from anybody: its size, depth and numbers are bounded before
they cost anything, and no key may stand twice.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_DEPTH: Final = 8
MAX_DIGITS: Final = 19
SHA256: Final = r"^[0-9a-f]{64}$"
_TIME: Final = r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z$"

Sha256 = Annotated[str, Field(pattern=SHA256)]
Time = Annotated[str, Field(pattern=_TIME)]
"""UTC, to the second (`2026-01-02T03:04:05Z`)."""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""The last quote may be missing: were it not so, each quote of an open string would be tried to the end."""


class NotCanonical(ValueError):
    """The bytes are no canonical document; the text says where they go wrong."""


class Strict(BaseModel):
    """A document, or a part of one: nothing in it is unknown, and no value is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_Kind = TypeVar("_Kind", bound=Strict)


def parse(kind: type[_Kind], data: bytes, max_bytes: int, *schemas: str) -> _Kind:
    """Return the document in `data`, which is of one of `schemas`.

    Raises:
        NotCanonical: it is no document of this kind; the text names the first place that is wrong.
    """
    plain, digest = load(data, max_bytes, *schemas)
    try:
        found = kind.model_validate(plain)
    except ValidationError as error:
        raise NotCanonical(error_location(error)) from error
    content = _plain(found)
    if digest != _digest(content):
        raise NotCanonical("digest: it is not that of the rest")
    if dump(content) != data:
        raise NotCanonical("it is not in canonical form")
    return found


def load(data: bytes, max_bytes: int, *schemas: str) -> tuple[dict[str, Any], str]:
    """Return the document in `data`, with tuples for arrays, and the digest that it gives itself.

    Neither the digest nor the form is checked: `parse` first validates the content, so that it can report an
    invalid value by its location and not as a wrong digest.

    Raises:
        NotCanonical: too large, too deep, no JSON object, or of another schema.
    """
    if len(data) > max_bytes:
        raise NotCanonical(f"it has more than {max_bytes} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotCanonical(f"byte {error.start} is no UTF-8") from error
    _check_depth(data)
    try:
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise NotCanonical(str(error)[:200]) from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(found, dict) or schema not in schemas:
        newer = " (a newer servesync reads it: update this one)" if _is_newer(schema, schemas) else ""
        raise NotCanonical(f"its schema is not {' or '.join(map(ascii, schemas))}{newer}")
    digest = found.pop("digest", None)
    return {name: _tuples(value) for name, value in found.items()}, str(digest)


def dump(document: Strict | Mapping[str, Any]) -> bytes:
    """Return the canonical form of a document, with its digest."""
    plain = _plain(document) if isinstance(document, Strict) else document
    return _canonical({**plain, "digest": _digest(plain)})


def error_location(error: ValidationError) -> str:
    """Return a text that names the first invalid location of a document, and how many more there are."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(name)[:60] for name in first["loc"]) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ascii(f"{where}: {first['msg'][:200]}{more}")[1:-1]


def _is_newer(schema: object, schemas: Sequence[str]) -> bool:
    """Tell whether a schema has the name of one of `schemas`, and a higher number."""
    if not isinstance(schema, str):
        return False
    name, _, number = schema.rpartition("/")
    numbers = [int(known) for same, _, known in (one.rpartition("/") for one in schemas) if same == name]
    return bool(numbers) and number.isascii() and number.isdecimal() and int(number[:9]) > max(numbers)


def _plain(document: Strict) -> dict[str, Any]:
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(plain)).hexdigest()


def _canonical(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _check_depth(data: bytes) -> None:
    """Count brackets outside of strings, before a parser recurses into them."""
    depth = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise NotCanonical(f"nested deeper than {MAX_DEPTH}")
        elif byte in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:60]!a} is there twice")
    return found


def _integer(text: str) -> int:
    if len(text.removeprefix("-")) > MAX_DIGITS:
        raise ValueError(f"a number with more than {MAX_DIGITS} digits")
    return int(text)


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text[:40]} is no whole number")


def _tuples(value: Any) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Return parsed JSON with tuples for arrays, as strict models want them; its depth is bounded."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value
