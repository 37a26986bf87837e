"""The way into one bucket for whoever writes, and how a writer knows its own objects again.

An answer can be lost though the write went through: whoever repeats the request is then told that the key is
taken, by itself. So every new object carries a random word in its metadata, and a failed write looks for it.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
"""What stores answer to a checksum, or a type of checksum, that they do not know."""
WORD: Final = "servesync-write"
"""The metadata key of the random word."""
WRITING: Final = Bounds(read_seconds=60.0, answer_seconds=300.0, list_attempts=5)
_OPEN: Final = frozenset({Reason.STORE_UNREACHABLE, Reason.STORE_FAILED, Reason.TRANSFER_BROKEN})
"""After these a write may have gone through or not."""


@dataclass(frozen=True, slots=True)
class About:
    """What is stored with an object besides its bytes."""

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class AlreadyThere(Exception):
    """The key has an object already, somebody is writing it, or has ended this upload; nothing was written.

    Which of them it is only a look at the store tells.
    """


class Changed(Exception):
    """The object is no longer the one that was read; nothing was written."""


class Door:
    """One bucket, opened when it is first needed.

    `unconditional`: the store has refused a condition as unknown, and something was written without.
    `has_checksums`: it has not refused a CRC32 as unknown.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clients: Clients | None = None
        self._words: dict[str, tuple[str, int]] = {}
        self.unconditional = False
        self.has_checksums = True

    def where(self, key: str) -> dict[str, Any]:
        """Return bucket and key as boto3 wants them."""
        return self.bucket | {"Key": key}

    @property
    def bucket(self) -> dict[str, Any]:
        """The bucket, as boto3 wants it."""
        return bucket_of(self._store)

    @contextmanager
    def asking(self, key: str) -> Iterator["S3Client"]:
        """Lend the client; that others are there is `AlreadyThere`, everything else one of our errors."""
        try:
            with translated(f"writing {key!a:.200}", Operation.WRITE):
                yield self._connected().listing
        except (StoreError, TransferError) as error:
            taken = error.facts.get("status") in {PRECONDITION_FAILED, CONFLICT}
            if taken or error.facts.get("code") == NO_SUCH_UPLOAD:
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
        """Return the metadata of a new object, with a word that no other writer has."""
        word = secrets.token_hex(16)
        self._words[key] = (word, -1)
        return {**metadata, WORD: word}

    def written(self, key: str, size: int) -> None:
        """Note how many bytes the new object has."""
        self._words[key] = (self._words[key][0], size)

    def is_ours(self, key: str, *, patient: bool = True) -> bool | None:
        """Tell whether the object under `key` is the one that was written here.

        None: nobody can tell, as nothing was, or as the store does not let us look, or keeps no metadata.
        `patient`: ask again if the store does not answer.
        """
        if key not in self._words:
            return None
        word, size = self._words[key]
        try:
            with translated(f"looking at {key!a:.200}", Operation.READ):
                clients = self._connected()
                client = clients.listing if patient else clients.reading
                answer = head_object(client, self.where(key))
        except SyncError as error:
            return False if error.reason is Reason.OBJECT_GONE else None
        found = {name.lower(): value for name, value in answer["Metadata"].items()}.get(WORD)
        if answer["ContentLength"] != size:
            return False
        return None if found is None else found == word

    def settle(self, key: str, error: AlreadyThere | SyncError) -> None:
        """Return if a write went through though it ended with `error`; else raise that."""
        if isinstance(error, AlreadyThere):
            patient = True
        elif error.reason in _OPEN:
            patient = False
        else:
            raise error
        if not self.is_ours(key, patient=patient):
            raise error

    def is_free(self, key: str) -> bool:
        """Tell whether there is no object under `key`, for a store that knows no conditions.

        Raises:
            StoreError: the store does not let us look, or did not answer.
        """
        try:
            with translated(f"looking at {key!a:.200}", Operation.READ):
                head_object(self._connected().listing, self.where(key))
        except TransferError as error:
            if error.reason is Reason.OBJECT_GONE:
                return True
            raise
        return False

    def put_new(self, key: str, data: bytes, about: About) -> None:
        """Write one object in one request; raises as `S3Writer.put_new` does."""
        request: dict[str, Any] = {
            **self.where(key),
            "Body": data,
            "ContentType": about.content_type,
            "Metadata": self.sign(key, about.metadata),
        }
        self.written(key, len(data))
        try:
            try:
                self.put(key, data, request, IfNoneMatch="*")
            except StoreError as error:
                self.without_condition(key, error)
                self.put(key, data, request)
        except (AlreadyThere, StoreError, TransferError) as error:
            self.settle(key, error)

    def put(self, key: str, data: bytes, request: Mapping[str, Any], **condition: str) -> None:
        """Write one object in one request, with what proves its bytes on the way."""

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
        """Return what proves the bytes of an object or a part: their CRC32, or else their MD5."""
        if self.has_checksums:
            return {"ChecksumCRC32": base64_crc32(data)}
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(md5).decode()}

    def with_checksums_or_not(self, ask: Callable[[], None]) -> None:
        """Ask; once more without checksums if the store says that it does not know something."""
        try:
            ask()
        except StoreError as error:
            if not (self.has_checksums and _is_not_known(error)):
                raise
            self.has_checksums = False
            try:
                ask()
            except StoreError:
                self.has_checksums = True  # it was something else that it does not know
                raise

    def without_condition(self, key: str, error: StoreError) -> None:
        """Return if a store has refused `If-None-Match` as unknown, and the key is free; else raise.

        Raises:
            AlreadyThere: the key is taken.
            StoreError: `error`, if it says something else.
        """
        if error.facts.get("status") != NOT_IMPLEMENTED:
            raise error
        if not self.is_free(key):
            raise AlreadyThere(key) from error
        self.unconditional = True


def _is_not_known(error: StoreError) -> bool:
    return error.facts.get("status") == NOT_IMPLEMENTED or error.facts.get("code") in NOT_KNOWN


def base64_crc32(data: bytes) -> str:
    """Return the CRC32 of an object or a part as S3 wants it."""
    return base64.b64encode(crc32(data).to_bytes(4, "big")).decode()
