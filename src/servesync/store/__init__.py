"""Reads the bucket: one listing for all models, and ranged reads of exactly the objects that were listed."""

from servesync.store.bounds import Bounds
from servesync.store.bucket_writer import AlreadyThere, Changed, ObjectAttributes
from servesync.store.checksums import Running
from servesync.store.errors_s3 import Operation
from servesync.store.explain import KeyProblem, explain
from servesync.store.identity import Caller, Signing, authority, caller, is_aws, proxy_of, signs_with
from servesync.store.keys import MANIFEST_ENDING, KeyPattern, manifest_key, manifest_key_at
from servesync.store.listing import Listing, Settling
from servesync.store.mirror import Mirror, MirrorFailed
from servesync.store.oddities import misplaced_bucket, odd_advice
from servesync.store.port import StorePort
from servesync.store.probe import Answer, Probe
from servesync.store.s3 import MANIFEST_TO_COME, S3Store
from servesync.store.writer import S3Writer

__all__ = [
    "MANIFEST_ENDING",
    "MANIFEST_TO_COME",
    "AlreadyThere",
    "Answer",
    "Bounds",
    "Caller",
    "Changed",
    "KeyPattern",
    "KeyProblem",
    "Listing",
    "Mirror",
    "MirrorFailed",
    "ObjectAttributes",
    "Operation",
    "Probe",
    "Running",
    "S3Store",
    "S3Writer",
    "Settling",
    "Signing",
    "StorePort",
    "authority",
    "caller",
    "explain",
    "is_aws",
    "manifest_key",
    "manifest_key_at",
    "misplaced_bucket",
    "odd_advice",
    "proxy_of",
    "signs_with",
]
