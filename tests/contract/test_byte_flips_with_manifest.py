"""With a manifest nothing gets through: every wrong bit of an archive is found before it is unpacked."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from fixtures_models import KINDS
from servesync.domain import manifest
from servesync.domain.manifest import Archive, Manifest
from servesync.domain.versions import Model, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused
from servesync.fetch import Retries, stream
from servesync.publishing import make_manifest
from servesync.publishing.pack import Format, pack_tree
from servesync.settings import Fetch
from servesync.verify import bundle_extents, verify_structure
from unpack_box import UnpackBox

FLIPS: Final = 400 if os.environ.get("LONG_TESTS") == "1" else 25
FETCH: Final = Fetch(connections=2, part_bytes=64 << 10, memory_bytes=64 << 20)
AT_ONCE: Final = Retries(attempts=4, first_pause_seconds=0.001, longest_pause_seconds=0.002)


def packed(model: Path, archive_format: Format) -> tuple[bytes, Manifest]:
    """Pack a model as it is published."""
    data = bytearray()
    done = pack_tree(model, Version(1), data.extend, bundle_extents(model), archive_format=archive_format)
    archive = Archive(
        key=f"1.{archive_format}", format=archive_format, size=done.size, sha256=done.sha256, parts=done.parts
    )
    return bytes(data), make_manifest(
        Model("m"), Version(1), archive, done.files, verify_structure(model), {"by": "a test"}
    )


def bring(data: bytes, found: Manifest, box: UnpackBox) -> None:
    """Fetch, prove, unpack and compare, as the agent does.

    Raises:
        ReleaseRefused: it is not what the manifest says.
    """
    item = StoredObject(found.archive.key, len(data), "e")

    def read(
        _: StoredObject, offset: int, length: int, buffer: memoryview, _stop: Callable[[], bool]
    ) -> None:
        buffer[:] = data[offset : offset + length]

    manifest.check_identity(found, Model("m"), Version(1), found.archive.key, len(data))
    arrived = bytearray()
    with stream([item], read, FETCH, lambda: False, AT_ONCE, found.archive.proofs) as parts:
        for _, piece in parts:
            arrived += piece
    manifest.compare(found, box.unpack(bytes(arrived)).content)


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_wrong_bit_of_an_archive_gets_through(
    kind: str, archive_format: Format, real_models: Path, tmp_path: Path
) -> None:
    """The range with the wrong bit is named, and nothing of it was unpacked."""
    data, found = packed(real_models / kind, archive_format)
    dice = random.Random(f"{kind} {archive_format}")
    box = UnpackBox(tmp_path)
    bring(data, found, box)

    for place in [0, len(data) - 1, *(dice.randrange(len(data)) for _ in range(FLIPS))]:
        wrong = bytearray(data)
        wrong[place] ^= 1 << dice.randrange(8)
        with pytest.raises(ReleaseRefused) as caught:
            bring(bytes(wrong), found, box)
        assert caught.value.reason is Reason.PART_DIFFERS
        begin = int(str(caught.value.facts["offset"]))
        part = next(part for part in found.archive.parts if part.offset == begin)
        assert part.offset <= place < part.offset + part.size


@pytest.mark.parametrize("kind", KINDS)
def test_no_wrong_bit_of_a_manifest_gets_through(kind: str, real_models: Path) -> None:
    """Whatever it is a part of: digests, sizes, names, labels, the date."""
    _, found = packed(real_models / kind, "tar.zst")
    good = manifest.dump(found)
    dice = random.Random(kind)
    for place in [0, len(good) - 1, *(dice.randrange(len(good)) for _ in range(FLIPS))]:
        wrong = bytearray(good)
        wrong[place] ^= 1 << dice.randrange(8)
        with pytest.raises(ReleaseRefused) as caught:
            manifest.parse(bytes(wrong))
        assert caught.value.reason is Reason.MANIFEST_INVALID
