"""Publishes versions: the one part of servesync that writes into the store."""

from servesync.publishing.existing import manifest_of_file, manifest_of_object
from servesync.publishing.model_releases import MoveDone
from servesync.publishing.moves import channels, default_who, promote, rollback, withdraw
from servesync.publishing.release import publish_tree
from servesync.publishing.request import Published, Request, make_manifest, store_at

__all__ = [
    "MoveDone",
    "Published",
    "Request",
    "channels",
    "default_who",
    "make_manifest",
    "manifest_of_file",
    "manifest_of_object",
    "promote",
    "publish_tree",
    "rollback",
    "store_at",
    "withdraw",
]
