"""Tells people how far a long transfer has come: a bar on a terminal, a log line now and then elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from servesync.domain.versions import Release
from servesync.logs import Event, get_logger

LINE_EVERY_SECONDS: Final = 10.0


class Report(Protocol):
    """Takes the number of stored bytes that have been worked off so far."""

    def __call__(self, done_bytes: int, /) -> None:
        """Report that `done_bytes` of the release are done."""


class Reporter(Protocol):
    """Opens a report for one release."""

    def __call__(self, release: Release, /) -> AbstractContextManager[Report]:
        """Return the report, to be closed when the transfer ends in whatever way."""


def for_stream(stream: TextIO) -> Reporter:
    """Return the kind of report that suits `stream`: a bar if it is a terminal, else log lines."""
    return _Bar(Console(file=stream)) if stream.isatty() else _lines


@contextmanager
def _lines(release: Release) -> Iterator[Report]:
    log = get_logger()
    last = time.monotonic()

    def report(done_bytes: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_SECONDS:
            last = now
            log.info(Event.FETCH_PROGRESS, bytes=done_bytes, total_bytes=release.stored_bytes)

    yield report


class _Bar:
    """One line a transfer; the display is there as long as any is under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._open = 0
        self._progress: Progress | None = None

    @contextmanager
    def __call__(self, release: Release) -> Iterator[Report]:
        progress = self._begin()
        task = progress.add_task(f"{release.model} {release.version}", total=release.stored_bytes)

        def report(done_bytes: int) -> None:
            progress.update(task, completed=done_bytes)

        try:
            yield report
        finally:
            progress.remove_task(task)
            self._end(progress)

    def _begin(self) -> Progress:
        with self._lock:
            if self._progress is None:
                self._progress = self._display()
                self._progress.start()
            self._open += 1
            return self._progress

    def _end(self, progress: Progress) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._progress = None
                progress.stop()

    def _display(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=self._console, transient=True)
