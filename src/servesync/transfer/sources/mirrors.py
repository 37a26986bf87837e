"""The mirrors of the settings, in their order; one that fails is set aside, and the log says so once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from servesync.domain.versions import StoredObject
from servesync.logs import Event, get_logger
from servesync.store import Bounds, Mirror, MirrorFailed
from servesync.store.mirror import BOUNDS

FIRST_ASIDE_SECONDS: Final = 60.0
LONGEST_ASIDE_SECONDS: Final = 900.0
MOST_ASKED: Final = 2


@dataclass(slots=True)
class _State:
    """`aside_until`: by the monotonic clock. `failures`: one after the other."""

    mirror: Mirror
    aside_until: float = 0.0
    failures: int = 0


class Mirrors:
    """Lends the mirrors that may be asked now. All transfers of one agent share it; any thread may use it."""

    def __init__(self, urls: Sequence[str], connections: int, bounds: Bounds = BOUNDS) -> None:
        """Open nothing yet. `bounds`: how much patience there is with each."""
        self._states = [_State(Mirror(url, connections, bounds)) for url in urls]
        self._lock = threading.Lock()

    def read(
        self,
        item: StoredObject,
        offset: int,
        buffer: memoryview,
        sha256: str,
        is_right: Callable[[], bool],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Fill `buffer` from the first mirror that sends what is right; False: none did.

        At most two are asked: a part must not wait for long before the store is.

        `is_right`: tells whether the buffer holds what it should.

        Raises:
            Stopped: `should_stop` returned True.
        """
        for state in islice(self._usable(), MOST_ASKED):
            began = time.monotonic()
            try:
                state.mirror.read(item, offset, buffer, sha256, should_stop)
            except MirrorFailed as error:
                self._set_aside(state, str(error), began)
                continue
            if is_right():
                state.failures = 0
                return True
            self._set_aside(state, "it sent other bytes than the manifest says", began)
        return False

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for state in self._states:
            state.mirror.close()

    def _usable(self) -> Iterator[_State]:
        for state in self._states:
            if time.monotonic() >= state.aside_until:
                yield state

    def _set_aside(self, state: _State, why: str, began: float) -> None:
        """Ask a mirror nothing for a while. Requests that were under way fail with it, and count once."""
        with self._lock:
            now = time.monotonic()
            if began < state.aside_until:
                return
            seconds = min(LONGEST_ASIDE_SECONDS, FIRST_ASIDE_SECONDS * 2.0 ** min(state.failures, 10))
            state.failures += 1
            state.aside_until = now + seconds
        get_logger().warning(
            Event.MIRROR_SET_ASIDE, mirror=state.mirror.name, because=why, seconds=round(seconds)
        )
