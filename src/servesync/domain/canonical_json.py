"""Strict, canonical JSON documents that carry their own digest, so that damage shows.

The form: keys sorted, no white space, ASCII, a line feed at the end; `digest` is the SHA-256 of that form
without `digest` itself. What is read may come from anybody: its size, depth and numbers are bounded before
they cost anything, and no key may stand twice.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

MAX_DEPTH: Final = 8
MAX_DIGITS: Final = 19

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""The last quote may be missing: were it not so, each quote of an open string would be tried to the end."""


class NotCanonical(ValueError):
    """The bytes are no canonical document; the text says where they go wrong."""


def load(data: bytes, max_bytes: int, *schemas: str) -> tuple[dict[str, Any], str]:
    """Return the document in `data`, with tuples for arrays, and the digest that it gives itself.

    This does not check the digest and the form; call `check` after the content has been validated, so that
    an invalid value is reported by its location and not as a wrong digest.

    Raises:
        NotCanonical: too large, too deep, no JSON object, or of none of `schemas`.
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
    if not isinstance(found, dict) or found.get("schema") not in schemas:
        raise NotCanonical(f"its schema is not {' or '.join(map(ascii, schemas))}")
    digest = found.pop("digest", None)
    return {name: _tuples(value) for name, value in found.items()}, str(digest)


def check(data: bytes, plain: Mapping[str, Any], digest: str) -> None:
    """Make sure that `data` is the canonical form of `plain`, and `digest` the one of `plain`.

    Raises:
        NotCanonical: it is not.
    """
    if digest != _digest(plain):
        raise NotCanonical("digest: it is not that of the rest")
    if dump(plain) != data:
        raise NotCanonical("it is not in canonical form")


def dump(plain: Mapping[str, Any]) -> bytes:
    """Return the canonical form of a document, with its digest."""
    return _canonical({**plain, "digest": _digest(plain)})


def error_location(error: ValidationError) -> str:
    """Return a text that names the first invalid location of a document, and how many more there are."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(name)[:60] for name in first["loc"]) or "the whole"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ascii(f"{where}: {first['msg'][:200]}{more}")[1:-1]


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
