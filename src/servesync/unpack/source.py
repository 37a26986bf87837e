"""Exact and bounded reads over a stream of chunks; a chunk is not used once the next one is requested."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from servesync.errors import Reason, ReleaseRefused, TransferError

Chunk: TypeAlias = bytes | memoryview

PIECE_BYTES: Final = 1 << 20
"""No piece that the decoders hand on is longer, so that what waits to be written stays small."""

_COPIED_BYTES: Final = 256 * 1024


def measured(chunks: Iterable[Chunk], expected: int, what: str) -> Iterator[Chunk]:
    """Yield `chunks`, and prove that together they have the `expected` number of bytes.

    Raises:
        TransferError: there are more or fewer; that is the transfer's fault and not the release's.
    """
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > expected:
            break
        yield chunk
    if seen != expected:
        raise TransferError(
            Reason.TRANSFER_BROKEN,
            f"{what}: the store listed {expected} bytes but {'more' if seen > expected else seen} arrived;"
            " it is downloaded again",
            expected_bytes=expected,
            seen_bytes=seen,
        )


class ByteSource:
    """A stream of chunks that is read in pieces of any length."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._at = 0
        self.consumed = 0
        """Bytes handed out so far."""

    def some(self, limit: int) -> memoryview:
        """Return the next 1 to `limit` bytes without a copy; empty only at the end of the stream.

        The view may lie in a chunk: it is valid until the next call of any method.
        """
        self._advance()
        piece = self._chunk[self._at : self._at + limit]
        self._at += len(piece)
        self.consumed += len(piece)
        return piece

    def read(self, count: int, inside: str) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            ReleaseRefused: the stream ends before; the text says it ends inside `inside`.
        """
        data = self._up_to(count)
        if len(data) < count:
            raise ends_inside(inside)
        return data

    def exactly(self, count: int, inside: str) -> Iterator[memoryview]:
        """Yield the next `count` bytes piece by piece, each valid until the next is requested.

        Raises:
            ReleaseRefused: the stream ends before; the text says it ends inside `inside`.
        """
        while count:
            piece = self.some(min(count, PIECE_BYTES))
            if not piece:
                raise ends_inside(inside)
            count -= len(piece)
            yield piece

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end of the stream, and leave them unread."""
        data = self._up_to(count)
        self.push_back(data)
        return data

    def push_back(self, data: bytes) -> None:
        """Put `data`, the bytes that were returned last, back to be returned again."""
        self.consumed -= len(data)
        if len(data) <= self._at:
            self._at -= len(data)
        else:  # they began in an earlier chunk, which may be gone
            self._chunk = memoryview(data + self._chunk[self._at :])
            self._at = 0

    def at_end(self) -> bool:
        """Tell whether every byte was handed out."""
        self._advance()
        return self._at == len(self._chunk)

    def _up_to(self, count: int) -> bytes:
        data = bytes(self.some(count))
        while len(data) < count and (more := self.some(count - len(data))):
            data += more
        return data

    def _advance(self) -> None:
        """Take the next chunk if the last one is used up."""
        if self._at < len(self._chunk):
            return
        self._chunk, self._at = memoryview(b""), 0  # asking for the next one may overwrite it
        for chunk in self._chunks:
            if len(chunk):
                self._chunk, self._at = memoryview(chunk).cast("B"), 0
                return


def owned_pieces(source: ByteSource) -> Iterator[bytes]:
    """Yield copies of all bytes: unlike chunks, they stay as they are while the next ones arrive."""
    while piece := source.some(_COPIED_BYTES):
        yield bytes(piece)


def ends_inside(inside: str) -> ReleaseRefused:
    """Return the refusal of an archive that ends too early."""
    return ReleaseRefused(
        Reason.ARCHIVE_TRUNCATED,
        f"the archive ends inside {inside}; pack it again and check that the upload was complete",
    )
