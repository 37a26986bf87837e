"""Makes sure that the bytes of a manifest are those of one release."""

from servesync import channel, manifest
from servesync.errors import Reason, ReleaseRefused
from servesync.manifest import Manifest
from servesync.plan.versions import Layout, Release, StoredObject


def check_size(item: StoredObject) -> None:
    """Make sure that an object may be a manifest, before it is read.

    Raises:
        ReleaseRefused: it is too large for one.
    """
    if item.size > manifest.MAX_MANIFEST_BYTES:
        text = f"{item.key!a} has {item.size} bytes, over {manifest.MAX_MANIFEST_BYTES}: it is no manifest"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)


def manifest_of(release: Release, data: bytes) -> Manifest:
    """Return the manifest of `release` from its bytes.

    Raises:
        ReleaseRefused: they are no manifest, that of another release, or a withdrawal.
    """
    if channel.is_withdrawal(data):
        raise channel.withdrawn(channel.parse_withdrawal(data, release.model, release.version))
    if release.layout is Layout.DIRECTORY:
        key = release.manifest.key if release.manifest else ""
        text = f"{key!a} stands beside a directory, of which only archives can have one: remove it"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    found = manifest.parse(data)
    (archive,) = release.objects
    name = archive.key.rpartition("/")[2]
    manifest.check_identity(found, release.model, release.version, name, archive.size)
    return found
