"""What TensorFlow saves anew after a head was trained on: most frames of the archive are the old ones."""

from pathlib import Path

from servesync.domain.manifest import Part
from servesync.domain.versions import Version
from servesync.publishing.pack import pack_tree
from servesync.verify import bundle_extents


def packed(model: Path, number: int) -> tuple[Part, ...]:
    """Pack a version and return the parts of its archive."""
    return pack_tree(model, Version(number), lambda _: None, bundle_extents(model)).parts


def test_nine_frames_of_ten_are_shared(retrained: Path) -> None:
    """Three tensors of sixty changed (5 %): at least 90 % of the new frames are in the old version."""
    old = {part.sha256 for part in packed(retrained / "1", 1)}
    new = [part.sha256 for part in packed(retrained / "2", 2)]

    share = sum(digest in old for digest in new) / len(new)
    assert share >= 0.9, f"{share:.3f} of {len(new)} frames"


def test_most_bytes_lie_in_pieces_of_the_old_version(retrained: Path) -> None:
    """At least 92 %: an instance that has the old version need not fetch them."""
    old = {piece.sha256 for part in packed(retrained / "1", 1) for piece in part.content or ()}
    new = [piece for part in packed(retrained / "2", 2) for piece in part.content or ()]

    share = sum(piece.size for piece in new if piece.sha256 in old) / sum(piece.size for piece in new)
    assert share >= 0.92, f"{share:.3f} of the bytes in {len(new)} pieces"
