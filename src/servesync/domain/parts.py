"""The archive of a release in its parts, and the pieces of files in these, as a manifest describes them.

What can be proven, part by part and piece by piece, can come from anywhere.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from servesync.domain.canonical_json import Sha256, Strict
from servesync.domain.versions import MAX_VERSION, Proof

MAX_ITEMS: Final = 100_000
MAX_PART_BYTES: Final = 64 << 20
MAX_FRAME_BYTES: Final = 16 << 20
"""A part that gives pieces may decompress to so many bytes: it is held in memory as a whole."""

SCHEMA_1: Final = "servesync.manifest/1"
SCHEMA_2: Final = "servesync.manifest/2"
Schema: TypeAlias = Literal["servesync.manifest/1", "servesync.manifest/2"]

Bytes = Annotated[int, Field(ge=0, le=MAX_VERSION)]


class Piece(Strict):
    """`size` bytes of one file of the version, from `offset` on.

    `at`: where they begin in the decompressed part; `sha256`: theirs. Schema 1 has neither.
    """

    path: str
    offset: Bytes
    size: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    at: Annotated[int, Field(ge=0, le=MAX_FRAME_BYTES)] | None = None
    sha256: Sha256 | None = None


class Part(Strict):
    """One range of the archive, and its SHA-256.

    `content`: if the part can be decompressed alone, the pieces of files that it then gives, in order,
    besides headers and padding of the archive. `unpacked_size`: how many bytes it then gives, all of them
    counted; None without content, and in schema 1.
    """

    offset: Bytes
    size: Annotated[int, Field(ge=1, le=MAX_PART_BYTES)]
    sha256: Sha256
    content: tuple[Piece, ...] | None = None
    unpacked_size: Annotated[int, Field(ge=0, le=MAX_FRAME_BYTES)] | None = None

    def check_schema_2(self) -> None:
        """Make sure that the pieces can be cut out of the decompressed part, and be proven one by one.

        Raises:
            ValueError: they cannot.
        """
        if (self.content is None) != (self.unpacked_size is None):
            raise ValueError("content and unpacked_size go together")
        end = 0
        for piece in self.content or ():
            if piece.sha256 is None or piece.at is None:
                raise ValueError(
                    f"a piece of {piece.path[:100]!a} has no sha256, or does not say where it is"
                )
            if piece.at < end:
                raise ValueError(f"a piece of {piece.path[:100]!a} begins before the last one ends")
            end = piece.at + piece.size
        if self.unpacked_size is not None and end > self.unpacked_size:
            raise ValueError("its pieces are more than its bytes")

    def check_schema_1(self) -> None:
        """Make sure that nothing is said that a reader of schema 1 does not know.

        Raises:
            ValueError: something is.
        """
        known = self.unpacked_size is None and not any(
            piece.sha256 or piece.at is not None for piece in self.content or ()
        )
        if not known:
            raise ValueError(f"it says what {SCHEMA_1} does not know")


class Archive(Strict):
    """The archive: the last part of its key, and the parts that cover it in order, without a gap.

    The key follows from `store.key_pattern`; it is the name of no file anywhere.
    """

    key: str
    format: Literal["tar.zst", "tar.gz", "tar"]
    size: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    sha256: Sha256
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=MAX_ITEMS)]

    @field_validator("key")
    @classmethod
    def _check_key(cls, value: str) -> str:
        if not value or "/" in value:
            raise ValueError("must be the last part of a key, without a folder")
        return value

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        end = 0
        for number, part in enumerate(self.parts):
            if part.offset != end:
                raise ValueError(f"parts.{number} begins at byte {part.offset}, not at {end}")
            end += part.size
            if part.unpacked_size is not None and self.format != "tar.zst":
                raise ValueError(f"parts.{number} is no frame: only those of tar.zst have an unpacked_size")
        if end != self.size:
            raise ValueError(f"the parts end at byte {end}, the archive at {self.size}")
        return self

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """The parts as the fetching of the archive needs them."""
        return tuple(Proof(part.offset, part.size, part.sha256) for part in self.parts)
