"""Checks that instances could install a version, before a channel moves a whole fleet to it."""

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
    """Make sure that a release is complete and not withdrawn, and that its manifest belongs to it.

    The bytes of the release itself are not read.

    Raises:
        ReleaseRefused: an instance would refuse the release for the same reason.
        StoreError, TransferError: the store did not answer.
    """
    listed = release.manifest
    if listed is not None:
        _check_manifest(release, read(listed, manifest.MAX_MANIFEST_BYTES))
        return
    if store.require_manifest:
        text = f"{release.model} {release.version} has no manifest, and store.require_manifest asks for one"
        raise ReleaseRefused(Reason.RELEASE_UNPROVEN, text)
    if release.layout is Layout.ARCHIVE and reader.describe(release.objects[0]).manifest_to_come:
        text = (
            f"{release.objects[0].key!a} was published with a manifest, which is missing (so far): if it "
            "stays missing, run `servesync publish` again"
        )
        raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)


def _check_manifest(release: Release, data: bytes) -> None:
    channel.check_not_withdrawn(data, release.model, release.version)
    if release.layout is Layout.DIRECTORY:
        text = f"{release.model} {release.version} is a directory, which can have no manifest: remove that"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    manifest.parse_for(release, data)


def sound_withdrawal(data: bytes, model: Model, version: Version) -> Withdrawal | None:
    """Return the withdrawal of a version; None if `data` is no valid one: instances ignore those."""
    try:
        return channel.parse_withdrawal(data, model, version)
    except ReleaseRefused:
        return None
