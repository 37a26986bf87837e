"""Computes the checksum that the store keeps of a whole object again, over the bytes as they arrive.

Source: "Checking object integrity in Amazon S3": values are base64 of the big-endian checksum. Only
full-object checksums count; a composite one (`...-12`) is a checksum of the parts' checksums, and depends on
how the object was uploaded.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from awscrt.checksums import crc32c, crc64nvme
from isal.isal_zlib import crc32

from servesync.errors import Reason, ReleaseRefused


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC in the form of hashlib."""

    def __init__(self, extend: Callable[[Any, int], int], size: int) -> None:
        self._extend = extend
        self._size = size
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._extend(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


_ALGORITHMS: Final[Mapping[str, Callable[[], _Hash]]] = {
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumCRC64NVME": lambda: _Crc(crc64nvme, 8),
    "ChecksumCRC32C": lambda: _Crc(crc32c, 4),
    "ChecksumCRC32": lambda: _Crc(crc32, 4),
    "ChecksumSHA1": lambda: hashlib.sha1(usedforsecurity=False),
}
"""By their names in S3's answers, the strongest first."""


@dataclass(frozen=True, slots=True)
class ObjectChecksum:
    """The store's checksum of a whole object: `algorithm` as S3 calls it (`CRC32`), `digest` as bytes."""

    algorithm: str
    digest: bytes

    def start(self) -> "Running":
        """Begin to compute the same checksum over the object's bytes."""
        return Running(self, _ALGORITHMS[f"Checksum{self.algorithm}"]())


class Running:
    """A checksum that is being computed."""

    def __init__(self, expected: ObjectChecksum, running: _Hash) -> None:
        self._expected = expected
        self._running = running

    def update(self, piece: memoryview) -> None:
        """Add the next bytes."""
        self._running.update(piece)

    def check(self, key: str) -> None:
        """Compare the checksums after the last byte.

        Raises:
            ReleaseRefused: `OBJECT_CHECKSUM`: the bytes that were read are not those that were uploaded.
        """
        if self._running.digest() != self._expected.digest:
            text = (
                f"{key!a}: the bytes do not match the {self._expected.algorithm} that the store keeps of the "
                "object: publish under a new number"
            )
            raise ReleaseRefused(Reason.OBJECT_CHECKSUM, text, key=key)


def checksum_of(answer: Mapping[str, Any]) -> ObjectChecksum | None:
    """Return the full-object checksum in an answer to HeadObject; None if it has none that we know."""
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for name, start in _ALGORITHMS.items():
        try:
            digest = base64.b64decode(str(answer.get(name, "")), validate=True)
        except (binascii.Error, ValueError):  # a composite one has "-12" at its end
            continue
        if len(digest) == len(start().digest()):
            return ObjectChecksum(name.removeprefix("Checksum"), digest)
    return None
