"""Writes releases into the store; it never replaces one, and an interrupted write leaves nothing visible.

Every write of a new object has the condition `If-None-Match: *`, every replacement (of a channel, or of a
manifest by a withdrawal) `If-Match`. A store that does not know a condition ignores it, or answers 501 and
gets the write without it. So the publisher also reads the key before and after it writes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

from servesync.errors import Reason, StoreError, SyncError, TransferError
from servesync.settings import Store
from servesync.store.bucket_writer import NOT_IMPLEMENTED, AlreadyThere, Changed, ObjectAttributes, S3Bucket
from servesync.store.upload import Upload

PART_BYTES: Final = 8 << 20
PARTS: Final = 9_000
"""An object whose size is known before gets at most so many parts; stores take 10,000."""


class S3Writer(S3Bucket):
    """Puts new objects into one bucket; used by one thread."""

    def __init__(self, store: Store, part_bytes: int = PART_BYTES) -> None:
        super().__init__(store)
        self._part_bytes = part_bytes

    def __enter__(self) -> Self:
        """Return the writer, whose connections are closed on leaving."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self.close()

    def replace(self, key: str, data: bytes, etag: str, attributes: ObjectAttributes) -> None:
        """Replace the object that has this ETag by one small object.

        Raises:
            Changed: the key has another object, or none; if an answer was lost, it may be this new object.
            StoreError, TransferError: the store refused or did not answer; either object may be there.
        """
        request: dict[str, Any] = {
            **self.where(key),
            "Body": data,
            "ContentType": attributes.content_type,
            "Metadata": attributes.metadata,
        }
        try:
            self.put(key, data, request, IfMatch=etag)
        except AlreadyThere as error:  # here the answer means that If-Match does not hold
            raise Changed(key) from error
        except TransferError as error:
            if error.reason is Reason.OBJECT_GONE:
                raise Changed(key) from error
            raise
        except StoreError as error:
            if error.facts.get("status") != NOT_IMPLEMENTED:
                raise
            self.unconditional = True
            self.put(key, data, request)

    @contextmanager
    def upload_new(
        self, key: str, attributes: ObjectAttributes, thought_bytes: int = 0
    ) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Lend a function that takes the object's bytes in order; leaving the context makes it visible.

        Leaving it by an exception, `KeyboardInterrupt` too, makes nothing visible and removes the parts sent.
        Up to five parts are held in memory: of `part_bytes` each, and of a multiple of that if an object of
        about `thought_bytes` needs it, since some stores want all parts of one size. The store gets the CRC32
        of every part, and of the whole, or else the MD5 of every part.

        Raises:
            AlreadyThere: somebody has written the key or is writing it, or has ended this upload.
            StoreError, TransferError: the store refused or did not answer.
        """
        part_bytes = self._part_bytes * max(1, -(-thought_bytes // (self._part_bytes * PARTS)))
        upload = Upload(self, key, part_bytes, attributes)
        try:
            yield upload.write
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def remove_leftovers(self, key: str) -> None:
        """Remove the parts of others' unfinished uploads to a key that has an object: they can never end.

        Parts that the store refuses to list or to remove stay invisible until a lifecycle rule removes them.
        """
        with suppress(SyncError, AlreadyThere):
            with self.asking(key) as client:
                listed = client.list_multipart_uploads(**self.bucket, Prefix=key)
            for upload in listed.get("Uploads", []):
                if upload.get("Key") == key:
                    self.abort(key, upload["UploadId"])
