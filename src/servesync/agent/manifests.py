"""Reads the manifest of a release, and makes sure that it is this release's."""

from collections.abc import Callable
from dataclasses import dataclass

from servesync import channel, manifest
from servesync.errors import Reason, ReleaseRefused
from servesync.fetch import read_whole
from servesync.manifest import Manifest
from servesync.plan.versions import Layout, Release, StoredObject
from servesync.settings import Fetch
from servesync.store import StorePort


@dataclass(frozen=True)
class ManifestReader:
    """Reads manifests from a store."""

    store: StorePort
    settings: Fetch
    should_stop: Callable[[], bool]

    def __call__(self, release: Release, item: StoredObject) -> Manifest:
        """Return the manifest `item` of `release`.

        Raises:
            ReleaseRefused: it is no manifest, that of another release, or a withdrawal.
            StoreError, TransferError: the store did not give its bytes.
            Stopped: the agent is to stop.
        """
        if item.size > manifest.MAX_MANIFEST_BYTES:
            text = (
                f"{item.key!a} has {item.size} bytes, over {manifest.MAX_MANIFEST_BYTES}: it is no manifest"
            )
            raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
        data = read_whole(item, self.store.read, self.settings, self.should_stop)
        if channel.is_withdrawal(data):
            raise channel.withdrawn(channel.parse_withdrawal(data, release.model, release.version))
        if release.layout is Layout.DIRECTORY:
            text = f"{item.key!a} stands beside a directory, of which only archives can have one: remove it"
            raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
        found = manifest.parse(data)
        (archive,) = release.objects
        name = archive.key.rpartition("/")[2]
        manifest.check_identity(found, release.model, release.version, name, archive.size)
        return found
