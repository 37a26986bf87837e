"""Error pages that arrive in place of an object's bytes, with its ETag and of the right length."""

import hashlib
from typing import Final

from servesync.errors import Reason, TransferError
from servesync.lookalikes import is_page
from servesync.plan.versions import StoredObject
from servesync.store.keys import ARCHIVE_ENDINGS

_GRAPH: Final = "saved_model.pb"
_VARIABLES: Final = "variables/"
_TAR_HEADER_BYTES: Final = 512
_TAR_MAGIC: Final = slice(257, 262)
_TYPES_OF_PAGES: Final = ("text/html", "application/xhtml", "text/xml", "application/xml")


def check_no_page(doing: str, item: StoredObject, offset: int, data: memoryview, content_type: str) -> None:
    """Make sure that what arrived for a range is no page that something on the way sent instead.

    An asset may be a page, so nothing is said of one; nor if the ETag proves that the object itself is one.

    Raises:
        TransferError: `TRANSFER_BROKEN`, which is tried again.
    """
    head = bytes(data[:_TAR_HEADER_BYTES])
    typed = content_type.lower().startswith(_TYPES_OF_PAGES)
    if not (_is_page_for(item, head) and (offset == 0 or typed)) or _is_proven(item, data):
        return
    text = (
        "an HTML, XML or JSON page came in its place: something between here and the store answers; if the "
        "object itself is that page, publish under a new number"
    )
    raise TransferError(Reason.TRANSFER_BROKEN, f"{doing}: {text}; tried again")


def _is_page_for(item: StoredObject, head: bytes) -> bool:
    if not item.path:
        if head[_TAR_MAGIC].startswith(b"ustar"):  # whatever its first member is called
            return False
        is_archive = item.key.endswith(ARCHIVE_ENDINGS)
        return is_page(head) or (is_archive and head.lstrip()[:1] in {b"<", b"{"})
    if item.path == _GRAPH:
        return is_page(head) or head.lstrip()[:1] in {b"<", b"{"}
    return item.path.startswith(_VARIABLES) and is_page(head)


def _is_proven(item: StoredObject, data: memoryview) -> bool:
    """Tell whether these are all bytes of the object, by an ETag that is their MD5, as most are."""
    if len(data) != item.size:
        return False
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == item.etag.strip('"')
