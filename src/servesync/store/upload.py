"""Uploads one new object in one pass: in one request if the object is small, else in parts."""

import base64
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from isal.isal_zlib import crc32

from servesync.errors import Reason, StoreError, SyncError, TransferError
from servesync.store.bucket_writer import AlreadyThere, ObjectAttributes, S3Bucket, base64_crc32

MOST_PARTS: Final = 10_000
AT_ONCE: Final = 4


class _Part(NamedTuple):
    """One part that the store has accepted."""

    number: int
    etag: str
    checksum: str


class Upload:
    """One object that is being written.

    The store gets the CRC32 of every part and of the whole. If it does not know them, it gets the MD5 of
    every part.
    """

    def __init__(self, bucket: S3Bucket, key: str, part_bytes: int, attributes: ObjectAttributes) -> None:
        self._bucket = bucket
        self._key = key
        self._where = bucket.where(key)
        self._part_bytes = part_bytes
        self._attributes = attributes
        self._waiting: list[bytes | memoryview] = []
        self._left = part_bytes
        """How many bytes the next part still needs."""
        self._crc = 0
        self._size = 0
        self._id = ""
        self._parts: list[Future[_Part]] = []
        self._slots = threading.Semaphore(AT_ONCE)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which nobody changes afterwards; wait while enough parts are being sent."""
        self._crc = crc32(data, self._crc)
        self._size += len(data)
        rest = memoryview(data)
        while len(rest) >= self._left:
            self._waiting.append(rest[: self._left])
            rest = rest[self._left :]
            self._send(self._next_part())
        if rest:
            self._waiting.append(rest)
            self._left -= len(rest)

    def _next_part(self) -> bytes:
        """Return what waits, in one piece: boto3 makes a copy of all but `bytes`."""
        waiting, self._waiting, self._left = self._waiting, [], self._part_bytes
        return b"".join(waiting)

    def finish(self) -> None:
        """Send what is left and make the object visible.

        Raises:
            AlreadyThere: another object has the key, or none has although the store reported success.
            StoreError, TransferError: the store refused or did not answer.
        """
        if not self._id:
            self._bucket.put_new(self._key, self._next_part(), self._attributes)
            self._pool.shutdown()
            return
        if self._waiting:
            self._send(self._next_part())
        parts = [part.result() for part in self._parts]
        self._bucket.written(self._key, self._size)
        try:
            self._complete(parts)
        except (AlreadyThere, StoreError, TransferError) as error:
            self._bucket.resolve_ambiguous_write(self._key, error)
        self._id = ""
        self._pool.shutdown()

    def abort(self) -> None:
        """Remove the parts that were sent; the rest stays invisible until a lifecycle rule removes it."""
        self._pool.shutdown(cancel_futures=True)
        if self._id:
            with suppress(SyncError, AlreadyThere):
                self._bucket.abort(self._key, self._id)

    # -- the three kinds of requests ------------------------------------------------------------------

    def _begin(self) -> None:
        metadata = self._bucket.sign(self._key, self._attributes.metadata)

        def create() -> None:
            checksum: dict[str, Any] = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
            with self._bucket.asking(self._key) as client:
                answer = client.create_multipart_upload(
                    **self._where,
                    ContentType=self._attributes.content_type,
                    Metadata=metadata,
                    **(checksum if self._bucket.has_checksums else {}),
                )
            self._id = answer["UploadId"]

        # in a thread of its own, which `abort` waits for: a signal meanwhile must not lose the upload's id
        self._pool.submit(self._bucket.with_checksums_or_not, create).result()

    def _send(self, piece: bytes) -> None:
        if len(self._parts) >= MOST_PARTS:
            text = f"{self._key!a}: more than {MOST_PARTS} parts of {self._part_bytes} bytes"
            raise StoreError(Reason.RELEASE_TOO_BIG, text)
        if not self._id:
            self._begin()
        for part in self._parts:
            if part.done():
                part.result()  # the first failure ends the upload
        self._slots.acquire()
        self._parts.append(self._pool.submit(self._send_part, len(self._parts) + 1, piece))

    def _send_part(self, number: int, piece: bytes) -> _Part:
        try:
            proof: Any = self._bucket.proof(piece)
            with self._bucket.asking(self._key) as client:
                answer = client.upload_part(
                    **self._where, UploadId=self._id, PartNumber=number, Body=piece, **proof
                )
            return _Part(number, answer["ETag"], base64_crc32(piece))
        finally:
            self._slots.release()

    def _complete(self, parts: list[_Part]) -> None:
        """Make the object visible; leave out, one by one, the features that the store does not know."""

        def complete(condition: dict[str, Any]) -> None:
            with self._bucket.asking(self._key) as client:
                answer = client.complete_multipart_upload(
                    **self._where,
                    UploadId=self._id,
                    MultipartUpload={"Parts": self._named(parts)},
                    **self._of_the_whole(),
                    **condition,
                )
            if not answer.get("ETag") and self._bucket.is_ours(self._key) is False:
                raise AlreadyThere(self._key)  # the answer was empty, and our object is not there

        try:
            self._bucket.with_checksums_or_not(lambda: complete({"IfNoneMatch": "*"}))
        except StoreError as error:
            again = partial(self._bucket.with_checksums_or_not, lambda: complete({}))
            self._bucket.retry_unconditional(self._key, error, again)

    def _named(self, parts: list[_Part]) -> Any:  # noqa: ANN401 (boto3's own types)
        return [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({"ChecksumCRC32": part.checksum} if self._bucket.has_checksums else {})
            for part in parts
        ]

    def _of_the_whole(self) -> dict[str, Any]:
        if not self._bucket.has_checksums:
            return {}
        whole = base64.b64encode(self._crc.to_bytes(4, "big")).decode()
        return {"ChecksumCRC32": whole, "ChecksumType": "FULL_OBJECT"}
