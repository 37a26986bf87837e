"""From the bytes of a release to a tree of files: one pass, nothing outside `into`, nothing half believed."""

from servesync.unpack.archive import Unpacked, unpack_archive
from servesync.unpack.formats import RATIO_FLOOR_BYTES
from servesync.unpack.objects import unpack_objects
from servesync.unpack.paths import check_paths

__all__ = ["RATIO_FLOOR_BYTES", "Unpacked", "check_paths", "unpack_archive", "unpack_objects"]
