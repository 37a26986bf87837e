"""What stands where a model's bytes should be, told by how it begins: framing, pointers, pages."""

import re
from dataclasses import dataclass
from typing import Final

_CHUNK: Final = re.compile(rb"[0-9a-fA-F]{1,16}(?:;chunk-signature=[0-9a-f]{64})?\r\n")
_PAGE: Final = re.compile(rb"\s*(?:<!doctype\s+html|<html\b|<\?xml\b|<error\b)", re.IGNORECASE)
LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class Lookalike:
    """What it is, and what to do about it."""

    name: str
    advice: str


FRAMED: Final = Lookalike(
    "content with the framing of its upload (aws-chunked) left in it",
    "the store, or a proxy before it, does not know that framing: upload it again through a newer one, or "
    "with AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
)
POINTER: Final = Lookalike(
    "a Git LFS pointer, and not the file itself",
    "run git lfs pull where the model comes from, then publish it under a new number",
)


def lookalike(head: bytes) -> Lookalike | None:
    """Return what bytes are that begin so; None if nothing of that kind.

    Only for bytes that are known not to be what they should be: a text may begin as a frame does.
    """
    if head.startswith(LFS_POINTER):
        return POINTER
    return FRAMED if _CHUNK.match(head) else None


def is_page(head: bytes) -> bool:
    """Tell whether bytes begin as an HTML or XML page does, such as a proxy's or a store's error."""
    return _PAGE.match(head) is not None
