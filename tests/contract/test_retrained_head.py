"""What TensorFlow saves anew after a head was trained on: most frames of the archive are the old ones."""

from pathlib import Path

from servesync.domain.versions import Version
from servesync.publishing.pack import pack_tree
from servesync.verify import bundle_extents


def digests_of_frames(model: Path, number: int) -> list[str]:
    """Pack a version and return the digest of every frame."""
    packed = pack_tree(model, Version(number), lambda _: None, bundle_extents(model))
    return [part.sha256 for part in packed.parts]


def test_nine_frames_of_ten_are_shared(retrained: Path) -> None:
    """Three tensors of sixty changed (5 %): at least 90 % of the new frames are in the old version."""
    old = set(digests_of_frames(retrained / "1", 1))
    new = digests_of_frames(retrained / "2", 2)

    share = sum(digest in old for digest in new) / len(new)
    assert share >= 0.9, f"{share:.3f} of {len(new)} frames"
