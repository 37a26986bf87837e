"""What wakes the deciding thread: the clock, the file system, a signal. They only wake, none decides."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from apscheduler.schedulers.background import BackgroundScheduler
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer as WatchdogObserver
from watchdog.observers.api import BaseObserver

from servesync.logs import Event, get_logger
from servesync.settings import Poll

CHANGES: Final = frozenset({"created", "deleted", "modified", "moved"})


def jitter_of(poll: Poll) -> float:
    """Return the jitter in seconds: at most half of the interval, so that polls keep coming."""
    return min(poll.jitter_seconds, poll.interval_seconds / 2)


def longest_wait(poll: Poll) -> float:
    """Return after how many seconds the store is listed even if the timer has not fired.

    The timer follows the wall clock: if that is set back, the timer stops for as long.
    """
    return poll.interval_seconds + 2 * jitter_of(poll) + 1.0


class Woken(NamedTuple):
    """Why the deciding thread was woken: list the store, read the settings; `asked`: by an operator.

    `hurry`: retry failed work at once. `refresh`: something has changed on the disk.
    """

    poll: bool
    reload: bool
    asked: bool
    hurry: bool
    refresh: bool


def _taken(event: threading.Event) -> bool:
    """Return whether an event was set, and clear it if so."""
    was_set = event.is_set()
    if was_set:
        event.clear()
    return was_set


class Wake:
    """Wakes the deciding thread, and keeps the reasons until it takes them."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._poll = threading.Event()
        self._reload = threading.Event()
        self._asked = threading.Event()
        self._hurry = threading.Event()
        self._refresh = threading.Event()
        self.stop = threading.Event()

    def poll(self) -> None:
        """List the store now."""
        self._poll.set()
        self._event.set()

    def hurry(self) -> None:
        """List the store now and retry failed work at once, since an operator says so."""
        self._hurry.set()
        self.poll()

    def reload(self, *, asked: bool = False) -> None:
        """Read the settings again; `asked`: because an operator said so."""
        if asked:
            self._asked.set()
        self._reload.set()
        self._event.set()

    def refresh(self) -> None:
        """Read shelf and server again."""
        self._refresh.set()
        self._event.set()

    def result(self) -> None:
        """Take in the message of a job."""
        self._event.set()

    def end(self) -> None:
        """Stop as soon as possible."""
        self.stop.set()
        self._event.set()

    def clear(self) -> "Woken":
        """Return why the thread was woken, and reset that; to be called before anything is read."""
        self._event.clear()
        return Woken(
            poll=_taken(self._poll),
            reload=_taken(self._reload),
            asked=_taken(self._asked),
            hurry=_taken(self._hurry),
            refresh=_taken(self._refresh),
        )

    def wait(self, seconds: float | None) -> None:
        """Sleep until woken, at most `seconds`."""
        self._event.wait(seconds)


class _Changes(FileSystemEventHandler):
    """Wakes on changes only, not when the server opens its files."""

    def __init__(self, wake: Wake, settings_file: Path | None) -> None:
        self._wake = wake
        self._settings_file = settings_file

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the deciding thread; never blocks."""
        if event.event_type not in CHANGES:
            return
        if self._settings_file is not None:
            # "..data" is the link that Kubernetes swaps when a ConfigMap changes
            names = {Path(os.fsdecode(path)).name for path in (event.src_path, event.dest_path)}
            if names & {self._settings_file.name, "..data"}:
                self._wake.reload()
        elif event.event_type != "modified" or not event.is_directory:
            self._wake.refresh()


class Triggers:
    """Timer and watchers of a running agent."""

    def __init__(self, wake: Wake, settings_file: Path) -> None:
        self._wake = wake
        self._settings_file = settings_file
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._watcher: BaseObserver | None = None
        self._seen: tuple[int, ...] | None = None

    def start(self, poll: Poll, shelves: Iterable[Path]) -> None:
        """Start timer and watchers, or set them anew; without watchers the timer alone does the work."""
        self._scheduler.add_job(
            self._tick,
            "interval",
            seconds=poll.interval_seconds,
            jitter=jitter_of(poll),
            id="poll",
            replace_existing=True,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        self._start_scheduler()
        self._stop_watcher()
        self._watch(shelves)

    def _start_scheduler(self) -> None:
        """Start the timer; if no thread can start, the deciding thread keeps time by itself."""
        if self._scheduler.running:
            return
        try:
            self._scheduler.start()
        except RuntimeError as error:
            text = f"no timer can be started ({error}): the store is listed all the same, a little later"
            get_logger().warning(Event.WATCH_UNAVAILABLE, because=text)

    def _tick(self) -> None:
        """List the store, and see whether the settings have changed where no watcher notices it.

        There may be no watcher; and the file may be reached by a link, or lie in a folder that was replaced.
        """
        before, self._seen = self._seen, self._identity()
        if self._seen != before:
            self._wake.reload()
        self._wake.poll()

    def _identity(self) -> tuple[int, ...]:
        """Return what changes with the settings file; nothing while it cannot be found."""
        try:
            found = self._settings_file.stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _watch(self, shelves: Iterable[Path]) -> None:
        watcher: BaseObserver | None = None
        folder = self._settings_file.parent
        try:
            watcher = WatchdogObserver()  # takes one of the kernel's inotify instances, if one is left
            watcher.daemon = True
            watcher.schedule(_Changes(self._wake, self._settings_file), str(folder))
            for shelf in shelves:
                watcher.schedule(_Changes(self._wake, None), str(shelf), recursive=True)
            watcher.start()
        except (OSError, RuntimeError) as error:
            text = f"changes of files are noticed at the next poll only: {error}"
            get_logger().warning(Event.WATCH_UNAVAILABLE, because=text)
            if watcher is not None:
                watcher.unschedule_all()  # ends what was started of it
            return
        self._watcher = watcher

    def _stop_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.join(timeout=5)
            self._watcher = None

    def stop(self) -> None:
        """Stop timer and watchers."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._stop_watcher()
