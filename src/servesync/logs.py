"""Structured logs on standard output: one JSON object a line, or a readable form for people.

Where standard output is systemd's journal, its priority precedes each line; the journal takes that off.
Only the daemon and the commands log; steps return or raise. `Event` names every event that ops may
rely on; `docs/events.md` describes each.
"""

import logging
import os
import queue
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partialmethod
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from servesync.errors import readable
from servesync.library_messages import handle_library_warnings
from servesync.redaction import redact, safe_text, traceback_of


class Event(StrEnum):
    """The events of the log; a name never changes its meaning."""

    AGENT_STARTED = "agent_started"
    AGENT_STOPPED = "agent_stopped"
    POLL_FINISHED = "poll_finished"
    POLL_FAILED = "poll_failed"
    FETCH_PROGRESS = "fetch_progress"
    FETCH_CANCELLED = "fetch_cancelled"
    MIRROR_SET_ASIDE = "mirror_set_aside"
    VERSION_FETCHED = "version_fetched"
    VERSION_VERIFIED = "version_verified"
    VERSION_INSTALLED = "version_installed"
    VERSION_AVAILABLE = "version_available"
    VERSION_TRIED = "version_tried"
    VERSION_REFUSED = "version_refused"
    VERSION_QUARANTINED = "version_quarantined"
    VERSION_PRUNED = "version_pruned"
    VERSION_RESTORED = "version_restored"
    VERSION_DAMAGED = "version_damaged"
    VERSION_FOREIGN = "version_foreign"
    RECORD_UNREADABLE = "record_unreadable"
    ACTION_FAILED = "action_failed"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_ANSWERS = "server_answers"
    SETTINGS_RELOADED = "settings_reloaded"
    SETTINGS_REJECTED = "settings_rejected"
    VARIABLES_SKIPPED = "variables_skipped"
    WATCH_UNAVAILABLE = "watch_unavailable"
    STORE_EMPTY = "store_empty"
    NEWEST_HELD = "newest_held"
    VERSION_CHANGED_IN_STORE = "version_changed_in_store"
    RESERVE_GAVE_WAY = "reserve_gave_way"
    VERSION_SCRUBBED = "version_scrubbed"
    VERSION_DOUBTED = "version_doubted"
    VERSION_RETRIED = "version_retried"
    UNSAFE_OPERATIONS = "unsafe_operations"
    VERSION_NOT_LOADED = "version_not_loaded"
    CHANNEL_MOVED = "channel_moved"
    CHANNEL_REFUSED = "channel_refused"
    VERSION_WITHDRAWN = "version_withdrawn"
    TOO_MANY_MODELS = "too_many_models"
    MODELS_CONFIG_RELOADED = "models_config_reloaded"
    MODELS_CONFIG_NOT_RELOADED = "models_config_not_reloaded"
    MODELS_CONFIG_WRITTEN = "models_config_written"
    MODELS_CONFIG_FAILED = "models_config_failed"
    LABEL_WAITING = "label_waiting"
    VERSION_SET_ASIDE = "version_set_aside"
    MEMORY_SHORT = "memory_short"
    MEMORY_BUDGET = "memory_budget"
    ADMIN_LISTENING = "admin_listening"
    ADMIN_UNAVAILABLE = "admin_unavailable"
    DRAINING = "draining"
    DRAINING_ENDED = "draining_ended"
    LOG_LINES_DROPPED = "log_lines_dropped"
    LIBRARY_MESSAGE = "library_message"
    SLOW_TURN = "slow_turn"
    INTERNAL_ERROR = "internal_error"


MOST_LINES_WAITING = 10_000
CHECK_AGAIN_SECONDS = 1.0
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Those of syslog and the journal, by the names of our levels."""

Level = Literal["debug", "info", "warning", "error"]


def configure(level: Level, style: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (None: standard output), other libraries' from WARNING up.

    botocore's own DEBUG output holds session tokens and signatures, so its level does not follow ours.
    """
    stream = stream or sys.stdout
    output = _output(stream)
    final: tuple[structlog.typing.Processor, ...]
    if style == "json":
        final = (structlog.processors.JSONRenderer(ensure_ascii=True, default=str),)
    else:
        final = (_escape, structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _format_exception,
            _order,
            _tell_listener,
            _drop_below(logging.getLevelNamesMapping()[level.upper()]),
            *final,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    handle_library_warnings(_ToStructlog())
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of every request that cannot be parsed
    # watchdog speaks of watches that are replaced, or end, while events are under way: events only wake us
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
    logging.captureWarnings(capture=True)
    threading.excepthook = _say_thread_failed


def _say_thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Write what ended a thread as a line of the log; on standard error it would be many that are no JSON."""
    if failed.exc_value is None or issubclass(failed.exc_type, SystemExit):
        return
    name = failed.thread.name if failed.thread is not None else "?"
    text = f"the thread {name} ended: {safe_text(failed.exc_value)}"
    get_logger().error(Event.LIBRARY_MESSAGE, library="python", message=text, exc_info=failed.exc_value)


class _Output:
    """Writes lines from a thread of its own: a log that nobody reads must neither end nor stop the agent.

    What does not fit into the queue is dropped and counted; the count is written when there is room again.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_journal = _is_journal(stream)
        self._lines: queue.Queue[str] = queue.Queue(MOST_LINES_WAITING)
        self._dropped = 0
        self.dropped_ever = 0
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:  # inherited: a signal that this thread took would end a process whose main thread reads signals
            threading.Thread(target=self._write_on, name="servesync-log", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _put(self, level: Level, line: str) -> None:
        try:
            if self._dropped:
                lost = f'{{"event": "{Event.LOG_LINES_DROPPED}", "lines": {self._dropped}}}'
                self._lines.put_nowait(self._with_priority("warning", lost))
                self._dropped = 0
            self._lines.put_nowait(self._with_priority(level, line))
        except queue.Full:
            self._dropped += 1
            self.dropped_ever += 1

    debug = partialmethod(_put, "debug")
    info = partialmethod(_put, "info")
    warning = partialmethod(_put, "warning")
    error = critical = partialmethod(_put, "error")

    def _with_priority(self, level: Level, text: str) -> str:
        """Put the prefix that the journal reads, and takes off, before each line of `text`."""
        if not self._in_journal:
            return text
        prefix = f"<{PRIORITIES[level]}>"
        return prefix + text.replace("\n", f"\n{prefix}")

    def drain(self, seconds: float) -> None:
        """Wait until everything is written, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _write_on(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._write((line + "\n").encode(errors="backslashreplace"))
            except (OSError, ValueError):  # a closed pipe, a full disk, a closed stream
                self._dropped += 1
            self._lines.task_done()

    def _write(self, data: bytes) -> None:
        """Write past the stream's buffer: its lock, held by a write that hangs, would hang the exit, too."""
        try:
            handle = self._stream.fileno()
        except (OSError, ValueError):
            self._stream.write(data.decode())
            self._stream.flush()
            return
        while data:
            try:
                data = data[os.write(handle, data) :]
            except BlockingIOError:  # whoever made the pipe shares its O_NONBLOCK with us
                select.select([], [handle], [], CHECK_AGAIN_SECONDS)


def _is_journal(stream: TextIO) -> bool:
    """Tell whether `stream` still is what systemd connected to the journal, by `$JOURNAL_STREAM`.

    The variable alone says nothing: a process of a service inherits it, whatever its output is.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_outputs: dict[TextIO, _Output] = {}


def _output(stream: TextIO) -> _Output:
    if stream not in _outputs:
        _outputs[stream] = _Output(stream)
    return _outputs[stream]


def drain(seconds: float = 2.0) -> None:
    """Give the log's reader `seconds` to take what is still to be written; called before the process ends."""
    for output in _outputs.values():
        output.drain(seconds)


def lines_dropped() -> int:
    """Return how many lines have been given up so far because nobody read the log."""
    return sum(output.dropped_ever for output in _outputs.values())


Listener = Callable[[Mapping[str, object]], None]
_listeners: list[Listener] = []


def set_listener(listener: Listener | None) -> None:
    """Show every line, whatever its level, to `listener` as well, in the thread that logs; None ends that."""
    _listeners[:] = [] if listener is None else [listener]


def _tell_listener(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    for listener in _listeners:
        listener(line)
    return line


def _escape(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Escape what a terminal would obey; tracebacks keep their lines."""
    for key, value in line.items():
        if isinstance(value, str):
            line[key] = "\n".join(map(readable, value.split("\n"))) if key == "exception" else readable(value)
    return line


def _drop_below(level: int) -> structlog.typing.Processor:
    """Return the processor that ends lines below `level`: here, so that the listener has seen them."""
    levels = logging.getLevelNamesMapping()

    def drop(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        if levels.get(str(line.get("level", "")).upper(), logging.ERROR) < level:
            raise structlog.DropEvent
        return line

    return drop


def get_logger() -> FilteringBoundLogger:
    """Return the logger of the agent."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def _order(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Put what people look for first to the left."""
    first = ("timestamp", "level", "event", "model", "version", "reason")
    return {key: line[key] for key in first if key in line} | dict(line)


def _format_exception(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Put the traceback of `exc_info` into the line, without what libraries say in it."""
    found = line.pop("exc_info", None)
    error = sys.exception() if found is True else found
    if isinstance(error, BaseException):
        line["exception"] = "\n".join(traceback_of(error))
    return line


class _ToStructlog(logging.Handler):
    """Turns a library's message into one of our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, without its traceback: library tracebacks may hold request headers."""
        get_logger().warning(Event.LIBRARY_MESSAGE, library=record.name, message=redact(record.getMessage()))
