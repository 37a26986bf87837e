"""Turns the bytes of a release into a tree of files, in one pass, and refuses whatever is in doubt."""

from servesync.unpack.archive import Unpacked, unpack_archive
from servesync.unpack.formats import RATIO_FLOOR_BYTES
from servesync.unpack.frame_layout import FoundFrame, Place, frame_layout
from servesync.unpack.objects import unpack_objects
from servesync.unpack.paths import check_paths

__all__ = [
    "RATIO_FLOOR_BYTES",
    "FoundFrame",
    "Place",
    "Unpacked",
    "check_paths",
    "frame_layout",
    "unpack_archive",
    "unpack_objects",
]
