"""Packs a version's directory into the archive to publish: in one pass, and always the same bytes."""

from servesync.publishing.pack.packing import Format, Packed, Ranges, describe, pack_tree
from servesync.publishing.pack.tree import Made, Stamp, check_unchanged, survey

__all__ = [
    "Format",
    "Made",
    "Packed",
    "Ranges",
    "Stamp",
    "check_unchanged",
    "describe",
    "pack_tree",
    "survey",
]
