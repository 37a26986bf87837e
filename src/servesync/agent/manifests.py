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

ReadWhole = Callable[[StoredObject], bytes]
"""Returns all bytes of a small object."""


def read_manifest(release: Release, item: StoredObject, read_whole: ReadWhole) -> Manifest:
    """Return the manifest `item` of `release`; `read_whole` raises what it raises.

    Raises:
        ReleaseRefused: it is no manifest, that of another release, or a withdrawal. Its bytes have no proof
            but what they say of themselves, so what does not parse may have been damaged on the way
            (`in_transit`).
    """
    if item.size > manifest.MAX_MANIFEST_BYTES:
        text = f"{item.key!a} has {item.size} bytes, over {manifest.MAX_MANIFEST_BYTES}: it is no manifest"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    data = read_whole(item)
    try:
        if channel.is_withdrawal(data):
            raise channel.withdrawn(channel.parse_withdrawal(data, release.model, release.version))
        found = None if release.layout is Layout.DIRECTORY else manifest.parse(data)
    except ReleaseRefused as error:
        error.in_transit = error.reason is Reason.MANIFEST_INVALID
        raise
    if found is None:
        text = f"{item.key!a} stands beside a directory, of which only archives can have one: remove it"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    (archive,) = release.objects
    name = archive.key.rpartition("/")[2]
    manifest.check_identity(found, release.model, release.version, name, archive.size)
    return found


@dataclass(frozen=True)
class ManifestReader:
    """Reads manifests from a store."""

    store: StorePort
    settings: Fetch
    should_stop: Callable[[], bool]

    def __call__(self, release: Release, item: StoredObject) -> Manifest:
        """Return the manifest `item` of `release`.

        Raises:
            ReleaseRefused: see `read_manifest`.
            StoreError, TransferError: the store did not give its bytes.
            Stopped: the agent is to stop.
        """
        return read_manifest(release, item, self._read_whole)

    def _read_whole(self, item: StoredObject) -> bytes:
        return read_whole(item, self.store.read, self.settings, self.should_stop)
