"""Whether instances could take a version: asked before a channel, and with it a fleet, is brought to it."""

from collections.abc import Callable

from servesync.domain import channel, manifest
from servesync.domain.channel import Withdrawal
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Store
from servesync.store import S3Store


def check_installable(
    release: Release, store: Store, reader: S3Store, read: Callable[[StoredObject, int], bytes]
) -> None:
    """Make sure that a release is neither withdrawn nor unfinished, and that its manifest is its own.

    What only its bytes can tell is not looked at.

    Raises:
        ReleaseRefused: an instance would refuse it for the same reason.
        StoreError, TransferError: the store did not answer.
    """
    item = release.manifest
    if item is not None:
        _check_manifest(release, read(item, manifest.MAX_MANIFEST_BYTES))
        return
    if store.require_manifest:
        text = f"{release.model} {release.version} has no manifest, and store.require_manifest asks for one"
        raise ReleaseRefused(Reason.RELEASE_UNPROVEN, text)
    if release.layout is Layout.ARCHIVE and reader.describe(release.objects[0]).manifest_to_come:
        text = (
            f"{release.objects[0].key!a} was published with a manifest, which is not there (yet): if it "
            "stays away, run `servesync publish` again"
        )
        raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)


def _check_manifest(release: Release, data: bytes) -> None:
    check_not_withdrawn(release, data)
    if release.layout is Layout.DIRECTORY:
        text = f"{release.model} {release.version} is a directory, which can have no manifest: remove that"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    (archive,) = release.objects
    found, name = manifest.parse(data), archive.key.rpartition("/")[2]
    manifest.check_identity(found, release.model, release.version, name, archive.size)


def check_not_withdrawn(release: Release, data: bytes) -> None:
    """Make sure that what stands in the place of a manifest is no withdrawal, sound or not.

    Raises:
        ReleaseRefused: `VERSION_WITHDRAWN`; or `MANIFEST_INVALID`, for a withdrawal that is not sound.
    """
    if channel.is_withdrawal(data):
        raise channel.withdrawn(channel.parse_withdrawal(data, release.model, release.version))


def sound_withdrawal(data: bytes, model: Model, version: Version) -> Withdrawal | None:
    """Return the withdrawal of a version; None if it is none, or none that instances would heed."""
    try:
        return channel.parse_withdrawal(data, model, version)
    except ReleaseRefused:
        return None
