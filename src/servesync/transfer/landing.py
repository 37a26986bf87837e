"""The tree of a version in frames: every piece lands at its final place, proven, in any order.

Whoever brings a piece is trusted with nothing. A part is decompressed only if its SHA-256 fits, a piece lands
only if its own fits, and the SHA-256 of each file is made from what was written, in order: from the buffer if
the piece is the next one of its file, else read back when the gap before it closes.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from servesync.domain.manifest import File, Manifest, Part, Piece
from servesync.domain.parts import MAX_FRAME_BYTES
from servesync.domain.versions import Content, FileFact, Stamp
from servesync.errors import Reason, TransferError
from servesync.folders import stamp_of
from servesync.settings import Limits
from servesync.transfer.file_hash import FileHash, Write
from servesync.unpack import Unpacked
from servesync.unpack.blank_tree import BlankTree
from servesync.unpack.formats import check_ratio
from servesync.unpack.frame_layout import Wanted, find_pieces, misfit
from servesync.unpack.frames import Decoders
from servesync.unpack.layout import check_version_paths
from servesync.unpack.tree_writer import Wrote

_STRUCTURE_BYTES: Final = 2 << 20
"""A part of schema 1 may hold so much besides pieces: headers and padding."""

_EMPTY: Final = hashlib.sha256().hexdigest()


def can_land(found: Manifest) -> bool:
    """Tell whether a release can be brought part by part: each is a frame that gives pieces of files."""
    return found.archive.format == "tar.zst" and all(
        part.content is not None and most_bytes(part) <= MAX_FRAME_BYTES for part in found.archive.parts
    )


def most_bytes(part: Part) -> int:
    """Return how many bytes a part may decompress to."""
    if part.unpacked_size is not None:
        return part.unpacked_size
    return sum(piece.size for piece in part.content or ()) + _STRUCTURE_BYTES


class Landing:
    """The tree of one version, whose pieces are brought by several threads; a context manager.

    Until `finish` has returned, nothing of the tree counts. When the context is left, nobody writes to the
    tree any more; what was written stays.
    """

    def __init__(  # noqa: PLR0913 (where it goes, what it is, and who is told)
        self,
        into: Path,
        found: Manifest,
        limits: Limits,
        check: Callable[[], None],
        *,
        wrote: Wrote | None = None,
        decoders: Decoders,
        is_kept: bool = False,
    ) -> None:
        """Take the version that `found` describes; `can_land` has said that this is possible.

        `check` is called often, by every thread that brings something, and may raise, to stop early. `wrote`
        is called by all of them, too. `is_kept`: `into` is the tree of an earlier attempt at the same
        manifest, whose bytes may be found right by `land_in_place`; else it is empty.
        """
        self._manifest = found
        self._limits = limits
        self._check = check
        self._decoders = decoders
        self._is_kept = is_kept
        self._tree = BlankTree(into, wrote)
        self._into = into
        self._files = {file.path: file for file in found.files}
        self._hashes: dict[str, FileHash] = {}
        self._missing = {
            (piece.path, piece.offset) for part in found.archive.parts for piece in part.content or ()
        }
        self._landing: set[tuple[str, int]] = set()
        self._sha256: dict[str, str] = {}
        self._stamps: dict[str, Stamp] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Check what the manifest says, and make all directories and files, at their final size.

        Raises:
            ReleaseRefused: as unpacking the archive would be, for its paths, their number, or its ratio.
            Stopped: `check` asked for it.
            OSError: the disk refused, or has not enough space.
            DiskError: this process cannot write such a name in UTF-8.
        """
        found = self._manifest
        check_version_paths(found.version, [file.path for file in found.files], self._limits)
        check_ratio(found.totals.bytes, found.archive.size, self._limits)
        self._tree.__enter__()
        try:
            files = [(tuple(file.path.split("/")), file.size) for file in found.files]
            self._tree.make(files, self._check, is_kept=self._is_kept)
            for file in found.files:
                if not file.size:
                    self._complete(file, _EMPTY)
        except BaseException:
            self._tree.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tree."""
        self._tree.__exit__(kind, error, trace)
        self._decoders.drop()

    # -- what is there --------------------------------------------------------------------------------

    def missing(self, part: Part) -> Sequence[Piece]:
        """Return the pieces of a part that have not landed, in order."""
        with self._lock:
            return [piece for piece in part.content or () if (piece.path, piece.offset) in self._missing]

    def finish(self) -> Unpacked:
        """Return the tree, with what was written to each file. The caller compares it with the manifest.

        Raises:
            ReleaseRefused: a piece was never brought.
        """
        with self._lock:
            lacking = sorted(self._files.keys() - self._sha256.keys())
            if lacking:
                raise misfit(f"{lacking[0][:100]!a} is not complete")
            files = [FileFact(path, self._files[path].size, sha256) for path, sha256 in self._sha256.items()]
            return Unpacked(self._into, Content.of(files), dict(self._stamps), is_checksummed=True)

    # -- landing --------------------------------------------------------------------------------------

    def land_stored(self, part: Part, stored: memoryview) -> None:
        """Land what is missing of a part from its stored bytes; they are proven before anything else.

        Raises:
            TransferError: `TRANSFER_DIFFERS`: these are not the part's bytes. Nothing has landed.
            ReleaseRefused: they are, and are not what the manifest says of them.
            Stopped: `check` asked for it, or the tree is closed.
            OSError: the disk refused.
        """
        if hashlib.sha256(stored).hexdigest() != part.sha256:
            text = f"the part at byte {part.offset} of {self._manifest.archive.key!a} has another SHA-256"
            raise TransferError(Reason.TRANSFER_DIFFERS, text)
        self.land_proven(part, stored)

    def land_proven(self, part: Part, stored: memoryview) -> None:
        """Land what is missing of a part whose SHA-256 has just been compared. Raises as `land_stored`."""
        wanted = {(piece.path, piece.offset) for piece in self.missing(part)}
        if not wanted:
            return
        with self._decoders.one(self, part.offset, self._check) as decoder:
            plain = decoder.decode(stored, most_bytes(part))
            if part.unpacked_size is not None and len(plain) != part.unpacked_size:
                raise misfit(f"it unpacks to {len(plain)} bytes, not to {part.unpacked_size}")
            for piece, begin in zip(part.content or (), self._places(part, plain), strict=True):
                if (piece.path, piece.offset) not in wanted:
                    continue
                self._check()
                data = plain[begin : begin + piece.size]
                if not self._land(piece, data):
                    where = f"bytes {piece.offset} to {piece.offset + piece.size} of {piece.path[:100]!a}"
                    raise misfit(f"{where} have another SHA-256")

    def land_plain(self, piece: Piece, handle: int, offset: int) -> bool:
        """Copy a piece from an open file; return whether what was read there is proven to be the piece.

        Raises:
            Stopped: `check` asked for it, or the tree is closed.
            OSError: the disk refused.
        """
        if not self._is_provable(piece):
            return False
        with self._read(piece, handle, offset) as data:
            return data is not None and self._land(piece, data)

    def land_in_place(self, piece: Piece) -> bool:
        """Take a piece as landed if it is proven to lie where it belongs already; return whether it is.

        Raises as `land_plain` does.
        """
        if not self._is_provable(piece):
            return False
        with (
            self._tree.opened(_parts(piece)) as handle,
            self._read(piece, handle, piece.offset) as data,
        ):
            return data is not None and self._land(piece, data, is_there=True)

    def _is_provable(self, piece: Piece) -> bool:
        """Tell whether a piece can be proven by itself: in schema 1 only one that is its file."""
        return piece.sha256 is not None or piece.size == self._files[piece.path].size

    def _places(self, part: Part, plain: memoryview) -> Sequence[int]:
        """Return where each piece begins in a decompressed part."""
        pieces = part.content or ()
        known = [piece.at for piece in pieces if piece.at is not None]
        if len(known) == len(pieces):
            return known
        files = (self._files[piece.path] for piece in pieces)
        wanted = [Wanted(piece, file.size, file.sha256) for piece, file in zip(pieces, files, strict=True)]
        return find_pieces(plain, wanted)

    @contextmanager
    def _read(self, piece: Piece, handle: int, offset: int) -> Iterator[memoryview | None]:
        """Lend the bytes of an open file that may be a piece; None if there are not as many."""
        with self._decoders.one(self, offset, self._check) as decoder:
            room = decoder.room(piece.size)
            done = 0
            with suppress(OSError):  # the disk has lost it
                while done < piece.size and (count := os.preadv(handle, [room[done:]], offset + done)):
                    done += count
            yield room if done == piece.size else None

    def _land(self, piece: Piece, data: memoryview, *, is_there: bool = False) -> bool:
        """Write a piece to its place, and go on with the hash of its file; False if it is another one.

        `is_there`: `data` was just read from its place.
        """
        file = self._files[piece.path]
        is_whole = piece.size == file.size
        # a piece without a digest comes in a part that was proven, and the hash of its file proves it again
        expected = piece.sha256 or (file.sha256 if is_whole else "")
        sha256 = hashlib.sha256(data).hexdigest() if expected else ""
        if sha256 != expected:
            return False
        with self._claimed(piece) as is_mine:
            if not is_mine:
                return True
            write = _write_nothing if is_there else self._tree.write
            with self._tree.opened(_parts(piece)) as handle:
                if is_whole:
                    write(handle, data, 0)
                    self._complete(file, sha256, handle)
                else:
                    self._hash(file, piece, data, handle, partial(write, handle))
                self._tree.start_writeback(handle, piece.offset, piece.size)
        return True

    def _hash(self, file: File, piece: Piece, data: memoryview, handle: int, write: Write) -> None:
        """Write one of several pieces of a file, and go on with the hash of the file."""
        with self._lock:
            hashed = self._hashes.setdefault(file.path, FileHash(file.size))
        if hashed.take(piece.offset, data, handle, write, self._check):
            self._complete(file, hashed.hexdigest(), handle)
            with self._lock:
                del self._hashes[file.path]

    @contextmanager
    def _claimed(self, piece: Piece) -> Iterator[bool]:
        """Let one thread land a piece; after an error it is missing again."""
        key = (piece.path, piece.offset)
        with self._lock:
            is_mine = key in self._missing and key not in self._landing
            if is_mine:
                self._landing.add(key)
        if not is_mine:
            yield False
            return
        try:
            yield True
            with self._lock:
                self._missing.discard(key)
        finally:
            with self._lock:
                self._landing.discard(key)

    def _complete(self, file: File, sha256: str, handle: int | None = None) -> None:
        """Note the digest and the stamp of a file whose last byte was written."""
        if handle is None:
            with self._tree.opened(tuple(file.path.split("/"))) as opened:
                stamp = stamp_of(os.fstat(opened))
        else:
            stamp = stamp_of(os.fstat(handle))
        with self._lock:
            self._sha256[file.path] = sha256
            self._stamps[file.path] = stamp


def _parts(piece: Piece) -> tuple[str, ...]:
    return tuple(piece.path.split("/"))


def _write_nothing(handle: int, data: memoryview, offset: int) -> None:
    """Take the place of a write where the bytes are there already."""
