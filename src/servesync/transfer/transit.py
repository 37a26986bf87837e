"""Tells which refusals damage on the way from the store may explain, rather than the release.

A gateway, a cache or a cable that turns a bit looks exactly like a release that was damaged before it was
uploaded, unless a checksum that was made at the other end vouches for the bytes: the manifest's, the store's,
or the one inside a gzip or Zstandard stream. Without one, what damage can bring about is read again before it
counts. What damage does not bring about (a link in an archive, a limit, a missing file) counts at once.
"""

from typing import Final

from servesync.errors import Reason, ReleaseRefused

OF_THE_WAY: Final = frozenset({Reason.PART_DIFFERS, Reason.OBJECT_CHECKSUM})
"""The bytes that arrived differ from those that a checksum or a manifest promises."""

OF_DAMAGED_ARCHIVES: Final = frozenset(
    {
        Reason.ARCHIVE_CORRUPT,
        Reason.ARCHIVE_FORMAT,
        Reason.ARCHIVE_HEADER,
        Reason.ARCHIVE_RATIO,
        Reason.ARCHIVE_TRAILING_DATA,
        Reason.ARCHIVE_TRUNCATED,
        Reason.ARCHIVE_UNCHECKSUMMED,
        Reason.ARCHIVE_WINDOW,
    }
)
"""What turned bits make of an archive: `tests/contract/test_byte_flips.py` meets these and no others."""

OF_DAMAGED_MODELS: Final = frozenset(
    {
        Reason.ASSET_MISSING,
        Reason.GOLDEN_DIFFERS,
        Reason.GOLDEN_INVALID,
        Reason.LOAD_FAILED,
        Reason.SAVED_MODEL_CORRUPT,
        Reason.SAVED_MODEL_NO_SERVE_TAG,
        Reason.SIGNATURE_DIFFERS,
        Reason.TENSOR_CHECKSUM,
        Reason.VARIABLES_INDEX_CORRUPT,
        Reason.VARIABLES_MISSING,
        Reason.WARMUP_INVALID,
    }
)
"""What turned bits make of a model's files. Tensors and their index have checksums, but from whoever exported
the model: they tell damage, not where it came from."""

_OF_DAMAGE: Final = OF_DAMAGED_ARCHIVES | OF_DAMAGED_MODELS


def may_be_transit(error: ReleaseRefused, *, is_confirmed: bool) -> bool:
    """Whether damage in transit may explain a refusal; `is_confirmed`: a checksum has covered all bytes."""
    if error.in_transit or error.reason in OF_THE_WAY:
        return True
    return not is_confirmed and error.reason in _OF_DAMAGE
