"""What vouches for the stored bytes of a release, known before the first of them arrives."""

from collections.abc import Sequence
from dataclasses import dataclass

from servesync.domain.manifest import Manifest
from servesync.domain.versions import Proof, ProvenBy
from servesync.store import Running


@dataclass(frozen=True, slots=True)
class Proofs:
    """A manifest, the store's checksum of the archive, which is made as the bytes arrive, or neither."""

    manifest: Manifest | None = None
    checksum: Running | None = None

    @property
    def parts(self) -> Sequence[Proof]:
        """The ranges of the archive that are proven one by one; none without a manifest."""
        return self.manifest.archive.proofs if self.manifest else ()

    @property
    def kind(self) -> ProvenBy:
        """What shows that the bytes are those that were published."""
        if self.manifest:
            return ProvenBy.MANIFEST
        return ProvenBy.STORE_CHECKSUM if self.checksum else ProvenBy.NOTHING
