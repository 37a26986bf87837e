"""Writes objects into one bucket, and recognizes the objects that it has written itself.

The answer to a write can be lost although the store has written the object. The repeated request then fails,
because the key has an object: our own. So every new object carries a random nonce in its metadata, and after
a failed write the writer reads the metadata and compares the nonce.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isal.isal_zlib import crc32

from servesync.errors import Reason, StoreError, SyncError, TransferError
from servesync.settings import Fetch, Store
from servesync.store.bounds import Bounds
from servesync.store.client import Clients, bucket_of, connect
from servesync.store.errors_s3 import Operation, translated
from servesync.store.heads import head_object

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PRECONDITION_FAILED: Final = 412
CONFLICT: Final = 409
NOT_IMPLEMENTED: Final = 501
NO_SUCH_UPLOAD: Final = "NoSuchUpload"
NOT_KNOWN: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "MalformedXML"})
"""The codes with which stores refuse a checksum, or a type of checksum, that they do not know."""
WRITE_NONCE: Final = "servesync-write"
"""The metadata key of the nonce."""
WRITING: Final = Bounds(read_seconds=60.0, answer_seconds=300.0, list_attempts=5)
_OPEN: Final = frozenset({Reason.STORE_UNREACHABLE, Reason.STORE_FAILED, Reason.TRANSFER_BROKEN})
"""After these errors, the store may have written the object or not."""


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """The metadata and headers that are stored with an object."""

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class AlreadyThere(Exception):
    """The store refused to write: the key has an object, somebody else writes it, or ended this upload.

    The answer does not say which; read the object to find out.
    """


class Changed(Exception):
    """The object is no longer the one that was read; nothing was written."""


class S3Bucket:
    """One bucket; connections are opened by the first request.

    `unconditional`: an object was written without a condition, since the store knows no conditional writes.
    `has_checksums`: the store has not refused a CRC32 as unknown so far.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.bucket = bucket_of(store)
        """The arguments with which boto3 names the bucket."""
        self._clients: Clients | None = None
        self._nonces: dict[str, tuple[str, int]] = {}
        self.unconditional = False
        self.has_checksums = True

    def where(self, key: str) -> dict[str, Any]:
        """Return the arguments with which boto3 names an object."""
        return self.bucket | {"Key": key}

    @contextmanager
    def asking(self, key: str) -> Iterator["S3Client"]:
        """Lend the client, and translate its errors; a refused condition becomes `AlreadyThere`."""
        try:
            with translated(f"writing {key!a:.200}", Operation.WRITE):
                yield self._connected().listing
        except (StoreError, TransferError) as error:
            refused = error.facts.get("status") in {PRECONDITION_FAILED, CONFLICT}
            if refused or error.facts.get("code") == NO_SUCH_UPLOAD:
                raise AlreadyThere(key) from error
            raise

    def close(self) -> None:
        """Close all connections."""
        if self._clients is not None:
            self._clients.http.close()
            self._clients = None

    def _connected(self) -> Clients:
        if self._clients is None:
            self._clients = connect(self._store, Fetch(), WRITING)
        return self._clients

    # -- objects of our own ---------------------------------------------------------------------------

    def sign(self, key: str, metadata: Mapping[str, str]) -> dict[str, str]:
        """Return the metadata of a new object with a nonce that no other writer uses."""
        nonce = secrets.token_hex(16)
        self._nonces[key] = (nonce, -1)
        return {**metadata, WRITE_NONCE: nonce}

    def written(self, key: str, size: int) -> None:
        """Note how many bytes the new object has."""
        self._nonces[key] = (self._nonces[key][0], size)

    def is_ours(self, key: str, *, patient: bool = True) -> bool | None:
        """Return whether this writer has written the object under `key`.

        None means unknown: this writer wrote nothing, or the store refuses to show the metadata, or keeps
        none. `patient`: repeat the request if the store does not answer.
        """
        if key not in self._nonces:
            return None
        nonce, size = self._nonces[key]
        try:
            with translated(f"looking at {key!a:.200}", Operation.READ):
                clients = self._connected()
                client = clients.listing if patient else clients.reading
                answer = head_object(client, self.where(key))
        except SyncError as error:
            return False if error.reason is Reason.OBJECT_GONE else None
        stored = {name.lower(): value for name, value in answer["Metadata"].items()}.get(WRITE_NONCE)
        if answer["ContentLength"] != size:
            return False
        return None if stored is None else stored == nonce

    def resolve_ambiguous_write(self, key: str, error: AlreadyThere | SyncError) -> None:
        """Return if the store has written the object although the request failed; else raise `error`."""
        patient = isinstance(error, AlreadyThere)
        is_open = patient or (isinstance(error, SyncError) and error.reason in _OPEN)
        if not (is_open and self.is_ours(key, patient=patient)):
            raise error

    def is_free(self, key: str) -> bool:
        """Return whether `key` has no object; for a store that does not know conditional writes.

        Raises:
            StoreError: the store refused the request, or did not answer.
        """
        try:
            with translated(f"looking at {key!a:.200}", Operation.READ):
                head_object(self._connected().listing, self.where(key))
        except TransferError as error:
            if error.reason is Reason.OBJECT_GONE:
                return True
            raise
        return False

    def put_new(self, key: str, data: bytes, attributes: ObjectAttributes) -> None:
        """Write one new object in one request; a lost answer is no error if the object was written.

        Raises:
            AlreadyThere: somebody else, as far as can be told, has written the key, or is writing it.
            StoreError, TransferError: the store refused or did not answer; the object may be there or not.
        """
        request: dict[str, Any] = {
            **self.where(key),
            "Body": data,
            "ContentType": attributes.content_type,
            "Metadata": self.sign(key, attributes.metadata),
        }
        self.written(key, len(data))
        try:
            try:
                self.put(key, data, request, IfNoneMatch="*")
            except StoreError as error:
                self.retry_unconditional(key, error, partial(self.put, key, data, request))
        except (AlreadyThere, StoreError, TransferError) as error:
            self.resolve_ambiguous_write(key, error)

    def put(self, key: str, data: bytes, request: Mapping[str, Any], **condition: str) -> None:
        """Write one object in one request, with a checksum of its bytes."""

        def put() -> None:
            with self.asking(key) as client:
                proven: Any = {**request, **self.proof(data), **condition}
                client.put_object(**proven)

        self.with_checksums_or_not(put)

    def abort(self, key: str, upload_id: str) -> None:
        """Remove the parts of an upload."""
        with self.asking(key) as client:
            client.abort_multipart_upload(**self.where(key), UploadId=upload_id)

    def proof(self, data: bytes) -> dict[str, str]:
        """Return the checksum of `data` as an argument: its CRC32, or its MD5 if the store knows no CRC32."""
        if self.has_checksums:
            return {"ChecksumCRC32": base64_crc32(data)}
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(md5).decode()}

    def with_checksums_or_not(self, ask: Callable[[], None]) -> None:
        """Call `ask`; call it again without checksums if the store refuses something as unknown."""
        try:
            ask()
        except StoreError as error:
            if not (self.has_checksums and _is_not_known(error)):
                raise
            self.has_checksums = False
            try:
                ask()
            except StoreError:
                self.has_checksums = True  # the store does not know something else
                raise

    def retry_unconditional(self, key: str, error: StoreError, write: Callable[[], None]) -> None:
        """Call `write`, which sends no condition, if the store knows no `If-None-Match` and the key is free.

        Raises:
            AlreadyThere: the key has an object; nothing was written.
            StoreError: `error`, if the store refused something else; or what `write` raises.
        """
        if error.facts.get("status") != NOT_IMPLEMENTED:
            raise error
        if not self.is_free(key):
            raise AlreadyThere(key) from error
        self.unconditional = True
        write()


def _is_not_known(error: StoreError) -> bool:
    return error.facts.get("status") == NOT_IMPLEMENTED or error.facts.get("code") in NOT_KNOWN


def base64_crc32(data: bytes) -> str:
    """Return the CRC32 of an object or a part as S3 writes it."""
    return base64.b64encode(crc32(data).to_bytes(4, "big")).decode()
