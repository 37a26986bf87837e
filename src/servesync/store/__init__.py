"""What the bucket offers: one listing for all models, and ranged reads bound to one identity."""

from servesync.store.bounds import Bounds
from servesync.store.checksums import Running
from servesync.store.keys import KeyPattern, manifest_key, manifest_key_at
from servesync.store.listing import Listing, Settling
from servesync.store.port import StorePort
from servesync.store.s3 import MANIFEST_TO_COME, S3Store
from servesync.store.writer import About, AlreadyThere, Changed, S3Writer

__all__ = [
    "MANIFEST_TO_COME",
    "About",
    "AlreadyThere",
    "Bounds",
    "Changed",
    "KeyPattern",
    "Listing",
    "Running",
    "S3Store",
    "S3Writer",
    "Settling",
    "StorePort",
    "manifest_key",
    "manifest_key_at",
]
