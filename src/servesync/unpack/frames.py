"""Parts of an archive that can be decompressed alone: whole Zstandard frames (RFC 8878), in any order.

A part is decompressed only after its SHA-256 has been compared, and then by the rules of `zstd_stream`. Where
its frames end is found out here, and not by the library; nothing may follow the last one.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Final

import zstandard

from servesync.domain.parts import MAX_FRAME_BYTES
from servesync.errors import Reason, ReleaseRefused
from servesync.unpack import zstd_stream
from servesync.unpack.source import ByteSource

MAX_FRAMES: Final = 4096
"""A part holds one frame as a rule; each costs some time, however small it is."""

LEAST: Final = 2
MOST: Final = 4
"""Each takes memory for a decompressed part, 4 MiB as a rule, beside the buffers of `fetch.memory_bytes`."""

_WINDOW: Final = threading.Lock()
"""Held while a frame is decoded that does not give its length: its window takes up to 128 MiB."""

_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_POLL_SECONDS: Final = 0.2


class _Waiting:
    """A thread that waits for a decoder; it alone is woken when it gets one."""

    def __init__(self, user: object, turn: int) -> None:
        self.user = user
        self.turn = turn
        self.has_place = False
        self._woken = threading.Lock()
        self._woken.acquire()

    def wake(self) -> None:
        self._woken.release()

    def wait(self) -> bool:
        return self._woken.acquire(timeout=_POLL_SECONDS)


class Decoders:
    """A few contexts of Zstandard, each with a buffer for one decompressed part; safe in several threads."""

    def __init__(self) -> None:
        """Take nothing yet. As many parts are decompressed at a time as there are processors to do it."""
        self._free: list[Decoder] = []
        self._places = min(MOST, max(LEAST, len(os.sched_getaffinity(0))))
        self._queue: list[_Waiting] = []
        self._lock = threading.Lock()

    @contextmanager
    def one(self, user: object, turn: int, check: Callable[[], None]) -> Iterator["Decoder"]:
        """Lend a decoder when one is free: to users as they come, to what one user asks for by its `turn`.

        `check` is called while there is none, and may raise.
        """
        self._wait(_Waiting(user, turn), check)
        decoder = None
        try:
            with self._lock:
                decoder = self._free.pop() if self._free else None
            decoder = decoder or Decoder()
            yield decoder
        finally:
            self._leave(decoder)

    def _wait(self, mine: _Waiting, check: Callable[[], None]) -> None:
        """Return when there is a place."""
        with self._lock:
            self._queue.append(mine)
            self._admit()
        try:
            while not mine.wait():
                check()
        except BaseException:
            with self._lock:
                if not mine.has_place:
                    self._queue.remove(mine)
            if mine.has_place:
                self._leave(None)
            raise

    def _leave(self, decoder: "Decoder | None") -> None:
        """Give a place to whoever is next."""
        with self._lock:
            self._places += 1
            if decoder is not None:
                self._free.append(decoder)
            self._admit()

    def _admit(self) -> None:
        """Wake those for whom there is a place: of the user that waits longest the lowest turn.

        It needs the lock.
        """
        while self._places and self._queue:
            user = self._queue[0].user
            first = min((one for one in self._queue if one.user is user), key=attrgetter("turn"))
            self._queue.remove(first)
            self._places -= 1
            first.has_place = True
            first.wake()

    def drop(self) -> None:
        """Give the memory back of those that nobody uses now; more of them are made when they are needed."""
        with self._lock:
            self._free.clear()


class Decoder:
    """One context and its buffer, which takes only as much memory as was ever written to it."""

    def __init__(self) -> None:
        self._buffer = memoryview(mmap.mmap(-1, MAX_FRAME_BYTES, flags=_PRIVATE))
        self._library = _library()

    def decode(self, stored: memoryview, most: int) -> memoryview:
        """Return what a part holds; the view is valid until the next call.

        `most`: so many bytes, at most `MAX_FRAME_BYTES`, may come of it.

        Raises:
            ReleaseRefused: it is damaged, unusual as `zstd_stream.unzstd` says, or holds more than `most`.
        """
        done = 0
        for begin, end in _frames(stored):
            done += self._frame(stored[begin:end], self._buffer[done:most], most)
        return self._buffer[:done]

    def room(self, size: int) -> memoryview:
        """Return room for a piece that is not compressed; the view is valid until the next call.

        Raises:
            ValueError: it has more than `MAX_FRAME_BYTES`.
        """
        if size > len(self._buffer):
            raise ValueError(size)
        return self._buffer[:size]

    def _frame(self, frame: memoryview, into: memoryview, most: int) -> int:
        size = zstandard.get_frame_parameters(frame[: zstd_stream.MAX_HEADER_BYTES]).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            with _WINDOW:
                return _decode(_library(), frame, into, most)
        if size > len(into):
            raise _too_big(most)
        done = _decode(self._library, frame, into, most)
        if done != size:
            raise zstd_stream.corrupt("a frame does not have the length that its header gives")
        return done


def _decode(library: zstandard.ZstdDecompressor, frame: memoryview, into: memoryview, most: int) -> int:
    """Decompress one whole frame; a content size that fits lets the library write to `into` at once."""
    done = 0
    try:
        with library.stream_reader(frame) as reader:
            while done < len(into) and (count := reader.readinto(into[done:])):
                done += count
            if done == len(into) and reader.read(1):
                raise _too_big(most)
    except zstandard.ZstdError as error:
        raise zstd_stream.corrupt(f"a frame cannot be decoded ({error})") from error
    return done


def _library() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=zstd_stream.MAX_WINDOW_BYTES)


def _frames(stored: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where each frame of a part begins and ends, without those that are skippable.

    Raises:
        ReleaseRefused: it does not consist of whole frames that may be decompressed here.
    """
    source = ByteSource([stored])
    count = 0
    while count == 0 or not source.at_end():
        count += 1
        begin = source.consumed
        if count > MAX_FRAMES:
            raise zstd_stream.corrupt(f"a part has more than {MAX_FRAMES} frames")
        if zstd_stream.pass_frame(source):
            yield begin, source.consumed
        elif source.consumed == begin:
            text = "a part of the archive is no Zstandard frame, or other data follows its last one"
            raise ReleaseRefused(Reason.ARCHIVE_TRAILING_DATA, f"{text}; pack the version again")


def _too_big(most: int) -> ReleaseRefused:
    text = f"a part unpacks to more than the {most} bytes that its manifest says: publish under a new number"
    return ReleaseRefused(Reason.ARCHIVE_TOO_BIG, text, limit_bytes=most)
