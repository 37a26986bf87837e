"""What the bucket offers: one listing for all models, and ranged reads bound to one identity."""

from servesync.store.bounds import Bounds
from servesync.store.checksums import Running
from servesync.store.listing import Listing, Settling
from servesync.store.port import StorePort
from servesync.store.s3 import S3Store

__all__ = ["Bounds", "Listing", "Running", "S3Store", "Settling", "StorePort"]
