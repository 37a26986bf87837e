"""Protocol Buffers' text format, as far as configuration files use it: messages, strings, integers, words.

Source: the specification on protobuf.dev, "Text Format Language". No schema is known here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_DEPTH: Final = 100
_CLOSING: Final = {"{": "}", "<": ">"}
_PUNCTUATION: Final = frozenset("}>[]:;,")
_TOKEN: Final = re.compile(
    r"""(?:\s|\#[^\n]*+)*+
    (?P<token>[A-Za-z_][A-Za-z0-9_]*
      |-?(?:0[xX][0-9a-fA-F]+|[0-9]+)(?![A-Za-z0-9_.])
      |"(?:[^"\\\n]|\\.)*"
      |'(?:[^'\\\n]|\\.)*'
      |[{}<>\[\]:;,])""",
    re.VERBOSE | re.ASCII,
)
_BLANK: Final = re.compile(r"(?:\s|#[^\n]*+)*+", re.ASCII)
_ESCAPE: Final = re.compile(rb"\\(?:x(?P<hex>[0-9a-fA-F]{1,2})|(?P<octal>[0-7]{1,3})|(?P<plain>.))")
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_FIRST_SHOWN: Final = 0x20
_LAST_SHOWN: Final = 0x7E


class BadText(ValueError):
    """The text does not follow the format."""


@dataclass(frozen=True)
class Word:
    """A bare word: the name of an enum's value, or true and false."""

    text: str


Scalar: TypeAlias = str | int | Word
Message: TypeAlias = "list[tuple[str, Scalar | Message]]"
Value: TypeAlias = "Scalar | Message"


def parse(text: str) -> Message:
    """Return the fields of the outermost message, in order; a list's elements become fields of their own.

    Raises:
        BadText: the text does not follow the format.
    """
    reader = _Reader(list(_tokens(text)))
    found = reader.fields(depth=0)
    if not reader.at_end:
        raise BadText(f"unexpected {reader.take()}")
    return found


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while match := _TOKEN.match(text, position):
        yield match["token"]
        position = match.end()
    rest = _BLANK.match(text, position)
    if rest is None or rest.end() != len(text):
        raise BadText(f"cannot read {text[position : position + 20]!r}")


class _Reader:
    """Walks over the tokens once."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0

    @property
    def at_end(self) -> bool:
        return self._position == len(self._tokens)

    def take(self) -> str:
        if self.at_end:
            raise BadText("the text ends too early")
        self._position += 1
        return self._tokens[self._position - 1]

    def accept(self, *tokens: str) -> bool:
        """Take the next token if it is one of these."""
        found = not self.at_end and self._tokens[self._position] in tokens
        self._position += found
        return found

    def _sees(self, matches: Callable[[str], bool]) -> bool:
        return not self.at_end and matches(self._tokens[self._position])

    def fields(self, depth: int) -> Message:
        """Read fields up to a closing bracket, which is left, or the end."""
        if depth > MAX_DEPTH:
            raise BadText(f"messages are nested more than {MAX_DEPTH} deep")
        found: Message = []
        while self._sees(lambda token: token not in _CLOSING.values()):
            name = self.take()
            if not name.replace("_", "a").isalnum() or name[0].isdigit():
                raise BadText(f"expected the name of a field, got {name}")
            has_colon = self.accept(":")
            if has_colon and self.accept("["):
                found += [(name, value) for value in self._list(depth)]
            else:
                found.append((name, self._value(name, depth, only_message=not has_colon)))
            self.accept(";", ",")
        return found

    def _list(self, depth: int) -> Iterator[Value]:
        if self.accept("]"):
            return
        while True:
            yield self._value("an element", depth, only_message=False)
            if self.accept("]"):
                return
            if not self.accept(","):
                raise BadText(f"expected , or ] in a list, got {self.take()}")

    def _value(self, name: str, depth: int, *, only_message: bool) -> Value:
        token = self.take()
        if token in _CLOSING:
            inner = self.fields(depth + 1)
            if not self.accept(_CLOSING[token]):
                raise BadText(f"{name} is not closed")
            return inner
        if only_message or token in _PUNCTUATION:
            raise BadText(f"{name} has no value")
        if token[0] in "\"'":
            data = _unescaped(token)
            while self._sees(lambda token: token[0] in "\"'"):
                data += _unescaped(self.take())
            return _decoded(data)
        return Word(token) if token[0].isalpha() or token[0] == "_" else _integer(token)


def _integer(token: str) -> int:
    digits = token.lstrip("-")
    if digits[:2].lower() == "0x":
        return int(token, 16)
    if digits.startswith("0") and digits.strip("0"):
        if not set(digits) <= set("01234567"):
            raise BadText(f"not an octal number: {token}")
        return int(token, 8)
    if len(digits) > 20:  # noqa: PLR2004 (more digits than any 64-bit number has)
        raise BadText("a number has more than 64 bits")
    return int(token)


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadText("a string is not UTF-8") from None


def _unescaped(token: str) -> bytes:
    def replaced(match: re.Match[bytes]) -> bytes:
        if match["hex"]:
            return bytes([int(match["hex"], 16)])
        if match["octal"]:
            return bytes([int(match["octal"], 8) & 0xFF])
        return _ESCAPES.get(match["plain"], match["plain"])

    return _ESCAPE.sub(replaced, token[1:-1].encode(errors="surrogateescape"))


def quoted(text: str) -> str:
    """Return `text` as a string of the format, in quotes, in ASCII: other bytes of its UTF-8 are octal."""
    plain = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    shown = (
        plain.get(chr(byte)) or (chr(byte) if _FIRST_SHOWN <= byte <= _LAST_SHOWN else f"\\{byte:03o}")
        for byte in text.encode()
    )
    return f'"{"".join(shown)}"'
