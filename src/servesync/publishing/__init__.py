"""Publishes versions: the one part of servesync that writes into the store."""

from servesync.publishing.existing import manifest_of_file, manifest_of_object
from servesync.publishing.release import publish_tree
from servesync.publishing.request import Published, Request, store_at

__all__ = ["Published", "Request", "manifest_of_file", "manifest_of_object", "publish_tree", "store_at"]
