"""Detects error pages that arrive in place of an object's bytes, with its ETag and of the right length."""

import hashlib
from typing import Final

from servesync.domain.lookalikes import is_page
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, TransferError
from servesync.store.keys import ARCHIVE_ENDINGS

_GRAPH: Final = "saved_model.pb"
_VARIABLES: Final = "variables/"
_HEAD_BYTES: Final = 512
_NO_TEXT: Final = b"\0"
"""The header of a tar pads its fields with this byte, whatever its first member is called."""
_TYPES_OF_PAGES: Final = ("text/html", "application/xhtml", "text/xml", "application/xml")


def check_no_page(doing: str, item: StoredObject, offset: int, data: memoryview, content_type: str) -> None:
    """Make sure that the bytes of a range are not a page that a proxy sent instead.

    An asset may be a page, so assets are not checked. Nor is an object whose ETag proves that it is a page.

    Raises:
        TransferError: `TRANSFER_BROKEN`: the caller may read the range again.
    """
    head = bytes(data[:_HEAD_BYTES])
    typed = content_type.lower().startswith(_TYPES_OF_PAGES)
    looks_so = _begins_as_page(item, head) if offset == 0 else typed and _is_page_in_place(item, head)
    if not looks_so or _NO_TEXT in head or _is_proven(item, data):
        return
    text = (
        "an HTML, XML or JSON page came in its place: something between here and the store answers; if the "
        "object itself is that page, publish under a new number"
    )
    raise TransferError(Reason.TRANSFER_BROKEN, f"{doing}: {text}; servesync tries again")


def _begins_as_page(item: StoredObject, head: bytes) -> bool:
    """Tell whether the first bytes of an object are a page's; no archive and no graph begins with these."""
    is_binary = item.path == _GRAPH or (not item.path and item.key.endswith(ARCHIVE_ENDINGS))
    return _is_page_in_place(item, head) or (is_binary and head.lstrip()[:1] in {b"<", b"{"})


def _is_page_in_place(item: StoredObject, head: bytes) -> bool:
    """Tell whether bytes begin as a page does, and more than one, in an object that is no asset."""
    return is_page(head) and (item.path in {"", _GRAPH} or item.path.startswith(_VARIABLES))


def _is_proven(item: StoredObject, data: memoryview) -> bool:
    """Tell whether `data` is the whole object: most ETags are the MD5 of its bytes."""
    if len(data) != item.size:
        return False
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == item.etag.strip('"')
