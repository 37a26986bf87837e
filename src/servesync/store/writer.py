"""Writes releases into the store: none is ever replaced, and what is interrupted leaves nothing visible.

Every write of something new asks for `If-None-Match: *`, every replacement (of a channel, or of a manifest by
a withdrawal) for `If-Match`. A store that does not know the condition ignores it, so the publisher
also looks before it writes.
"""

import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from isal.isal_zlib import crc32

from servesync.errors import Reason, StoreError, SyncError, TransferError
from servesync.settings import Fetch, Store
from servesync.store.bounds import Bounds
from servesync.store.client import Clients, connect
from servesync.store.errors_s3 import Operation, translated

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART_BYTES: Final = 16 << 20
MOST_PARTS: Final = 10_000
PRECONDITION_FAILED: Final = 412
CONFLICT: Final = 409
AT_ONCE: Final = 4
WRITING: Final = Bounds(read_seconds=60.0, answer_seconds=300.0, list_attempts=5)


@dataclass(frozen=True, slots=True)
class About:
    """What is stored with an object besides its bytes."""

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class AlreadyThere(Exception):
    """The key has an object already; nothing was written."""


class Changed(Exception):
    """The object is no longer the one that was read; nothing was written."""


class _Door:
    """The way to one bucket, opened when it is first needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clients: Clients | None = None

    def where(self, key: str) -> dict[str, Any]:
        owner = self._store.expected_bucket_owner
        return {"Bucket": self._store.bucket, "Key": key} | ({"ExpectedBucketOwner": owner} if owner else {})

    @contextmanager
    def asking(self, key: str) -> Iterator["S3Client"]:
        """Lend the client; a failed condition is `AlreadyThere`, everything else one of our errors."""
        doing = f"writing {key!a:.200}"
        try:
            with translated(doing, Operation.WRITE):
                if self._clients is None:
                    self._clients = connect(self._store, Fetch(), WRITING)
                yield self._clients.listing
        except TransferError as error:
            if error.facts.get("status") == PRECONDITION_FAILED:
                raise AlreadyThere(key) from error
            raise
        except StoreError as error:
            if error.facts.get("status") == CONFLICT:
                text = f"{doing}: somebody else writes it at this moment; run the command again"
                raise StoreError(Reason.STORE_FAILED, text) from error
            raise

    def close(self) -> None:
        if self._clients is not None:
            self._clients.http.close()
            self._clients = None


class S3Writer:
    """Puts new objects into one bucket; used by one thread."""

    def __init__(self, store: Store, part_bytes: int = PART_BYTES) -> None:
        self._door = _Door(store)
        self._part_bytes = part_bytes

    def __enter__(self) -> Self:
        """Return the writer, whose connections are closed on leaving."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._door.close()

    def put_new(self, key: str, data: bytes, about: About) -> None:
        """Write one object in one request.

        Raises:
            AlreadyThere: the key is taken.
            StoreError, TransferError: the store refused or did not answer; the object may be there or not.
        """
        _put_new(self._door, key, data, about)

    def replace(self, key: str, data: bytes, etag: str, about: About) -> None:
        """Write one small object in the place of the one that has this ETag.

        Raises:
            Changed: another one is there, or none.
            StoreError, TransferError: the store refused or did not answer; either object may be there.
        """
        try:
            with self._door.asking(key) as client:
                client.put_object(
                    **self._door.where(key),
                    Body=data,
                    IfMatch=etag,
                    ContentType=about.content_type,
                    Metadata=about.metadata,
                    ChecksumCRC32=_crc32(data),
                )
        except AlreadyThere as error:  # the same status says that the condition does not hold
            raise Changed(key) from error
        except TransferError as error:
            if error.reason is Reason.OBJECT_GONE:
                raise Changed(key) from error
            raise

    @contextmanager
    def upload_new(self, key: str, about: About) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Lend a function that takes the object's bytes in order; leaving the context makes it visible.

        Leaving it by an exception, `KeyboardInterrupt` too, makes nothing visible and removes what was sent.
        Up to five parts of `part_bytes` are held in memory. The store gets the CRC32 of every part, and of
        the whole.

        Raises:
            AlreadyThere: the key is taken; nothing was written.
            StoreError, TransferError: the store refused or did not answer.
        """
        upload = _Upload(self._door, key, self._part_bytes, about)
        try:
            yield upload.write
            upload.finish()
        except BaseException:
            upload.abort()
            raise


def _put_new(door: _Door, key: str, data: bytes, about: About) -> None:
    with door.asking(key) as client:
        client.put_object(
            **door.where(key),
            Body=data,
            IfNoneMatch="*",
            ContentType=about.content_type,
            Metadata=about.metadata,
            ChecksumCRC32=_crc32(data),
        )


class _Upload:
    """One object that is being written: in one request if it is small, else in parts."""

    def __init__(
        self,
        door: _Door,
        key: str,
        part_bytes: int,
        about: About,
    ) -> None:
        self._door = door
        self._key = key
        self._where = door.where(key)
        self._part_bytes = part_bytes
        self._about = about
        self._buffer = bytearray()
        self._crc = 0
        self._id = ""
        self._parts: list[Future[dict[str, Any]]] = []
        self._slots = threading.Semaphore(AT_ONCE)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; waits while enough parts are under way."""
        self._crc = crc32(data, self._crc)
        self._buffer += data
        while len(self._buffer) >= self._part_bytes:
            piece = bytes(self._buffer[: self._part_bytes])
            del self._buffer[: self._part_bytes]
            self._send(piece)

    def finish(self) -> None:
        """Send what is left and make the object visible."""
        if not self._id:
            _put_new(self._door, self._key, bytes(self._buffer), self._about)
            self._pool.shutdown()
            return
        if self._buffer:
            self._send(bytes(self._buffer))
        parts: Any = [part.result() for part in self._parts]
        try:
            with self._door.asking(self._key) as client:
                client.complete_multipart_upload(
                    **self._where,
                    UploadId=self._id,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                    ChecksumCRC32=base64.b64encode(self._crc.to_bytes(4, "big")).decode(),
                    ChecksumType="FULL_OBJECT",
                )
        except (TransferError, StoreError) as error:
            if error.facts.get("code") != "NoSuchUpload":
                raise
            # an earlier attempt went through, and its answer was lost: whoever is there may be us
            self._id = ""
            raise AlreadyThere(self._key) from error
        self._id = ""
        self._pool.shutdown()

    def abort(self) -> None:
        """Remove the parts that were sent; what cannot be removed is invisible, and a lifecycle rule's."""
        self._pool.shutdown(cancel_futures=True)
        if self._id:
            with suppress(SyncError, AlreadyThere), self._door.asking(self._key) as client:
                client.abort_multipart_upload(**self._where, UploadId=self._id)

    def _send(self, piece: bytes) -> None:
        if len(self._parts) >= MOST_PARTS:
            text = f"{self._key!a}: more than {MOST_PARTS} parts of {self._part_bytes} bytes"
            raise StoreError(Reason.RELEASE_TOO_BIG, text)
        if not self._id:
            with self._door.asking(self._key) as client:
                self._id = client.create_multipart_upload(
                    **self._where,
                    ContentType=self._about.content_type,
                    Metadata=self._about.metadata,
                    ChecksumAlgorithm="CRC32",
                    ChecksumType="FULL_OBJECT",
                )["UploadId"]
        for part in self._parts:
            if part.done():
                part.result()  # the first failure ends the upload
        self._slots.acquire()
        self._parts.append(self._pool.submit(self._send_part, len(self._parts) + 1, piece))

    def _send_part(self, number: int, piece: bytes) -> dict[str, Any]:
        try:
            checksum = _crc32(piece)
            with self._door.asking(self._key) as client:
                answer = client.upload_part(
                    **self._where,
                    UploadId=self._id,
                    PartNumber=number,
                    Body=piece,
                    ChecksumCRC32=checksum,
                )
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}
        finally:
            self._slots.release()


def _crc32(data: bytes) -> str:
    return base64.b64encode(crc32(data).to_bytes(4, "big")).decode()
