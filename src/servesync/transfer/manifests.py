"""Reads the manifest of one release, and refuses one that belongs to another release."""

from collections.abc import Callable

from servesync.domain import channel, manifest
from servesync.domain.manifest import Manifest
from servesync.domain.versions import Layout, Release, StoredObject
from servesync.errors import Reason, ReleaseRefused

ReadWhole = Callable[[StoredObject], bytes]
"""Returns all bytes of a small object."""


def read_manifest(release: Release, item: StoredObject, read_whole: ReadWhole) -> Manifest:
    """Return the manifest `item` of `release`. Raises as `check_size`, `read_whole` and `manifest_of` do."""
    check_size(item)
    return manifest_of(release, item, read_whole(item))


def check_size(item: StoredObject) -> None:
    """Make sure that an object may be a manifest, before it is read.

    Raises:
        ReleaseRefused: it is too large for one.
    """
    if item.size > manifest.MAX_MANIFEST_BYTES:
        text = f"{item.key!a} has {item.size} bytes, over {manifest.MAX_MANIFEST_BYTES}: it is no manifest"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)


def manifest_of(release: Release, item: StoredObject, data: bytes) -> Manifest:
    """Return the manifest `item` of `release` from its bytes.

    Raises:
        ReleaseRefused: it is no manifest, that of another release, or a withdrawal. Its bytes have no proof
            but what they say of themselves, so what does not parse may have been damaged on the way
            (`in_transit`).
    """
    try:
        channel.check_not_withdrawn(data, release.model, release.version)
        if release.layout is not Layout.DIRECTORY:
            return manifest.parse_for(release, data)
    except ReleaseRefused as error:
        error.in_transit = error.reason is Reason.MANIFEST_INVALID
        raise
    text = f"{item.key!a} stands beside a directory, of which only archives can have one: remove it"
    raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
