"""Turns the bytes of a release into a tree of files, in one pass, and refuses whatever is in doubt."""

from servesync.unpack.archive import Unpacked, unpack_archive
from servesync.unpack.formats import RATIO_FLOOR_BYTES
from servesync.unpack.found_frames import FoundFrame, Place, find_frames
from servesync.unpack.objects import unpack_objects
from servesync.unpack.paths import check_paths

__all__ = [
    "RATIO_FLOOR_BYTES",
    "FoundFrame",
    "Place",
    "Unpacked",
    "check_paths",
    "find_frames",
    "unpack_archive",
    "unpack_objects",
]
