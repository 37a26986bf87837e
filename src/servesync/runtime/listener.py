"""The thread that answers probes and people; the agent works on even if this thread fails."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp

from servesync.admin import AgentStatus
from servesync.admin.app import Parts, build_app
from servesync.admin.serving import Running, bind
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerError, internal_error
from servesync.log_throttle import LogThrottle
from servesync.logs import Event, get_logger, lines_dropped
from servesync.planning.facts import Served
from servesync.serving import connect
from servesync.settings import Admin, Settings

AGAIN_SECONDS: Final = 30.0
STOP_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 3.0
FRESH_SECONDS: Final = 1.0


class AskedNow:
    """Asks the model server for `/readyz`, since the last answer of the deciding thread may be old.

    One thread asks at a time; an answer counts for a second, so that probes cost the server nothing.
    """

    def __init__(self, interfaces: tuple[str | None, str | None]) -> None:
        self._server = connect(*interfaces, ANSWER_SECONDS)
        self._lock = threading.Lock()
        self._known: dict[Model, tuple[float, Mapping[Version, Served] | str]] = {}

    def __call__(self, model: Model, /) -> Mapping[Version, Served] | str:
        """Return what the server says of each version of `model`, or why it says nothing."""
        with self._lock:
            at, said = self._known.get(model, (float("-inf"), ""))
            if time.monotonic() - at < FRESH_SECONDS:
                return said
            found = self._ask(model)
            self._known[model] = (time.monotonic(), found)
            return found

    def _ask(self, model: Model) -> Mapping[Version, Served] | str:
        if self._server is None:
            return {}
        try:
            return self._server.status(model)
        except ServerError as error:
            return str(error)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._server is not None:
                self._server.close()


class Listener:
    """Answers on `admin.port` while the agent runs; if the port is taken, it tries again."""

    def __init__(self, agent_status: AgentStatus, settings: Settings, sync: Callable[[], None]) -> None:
        self.agent_status = agent_status
        self._settings = settings
        self._asked = AskedNow(settings.serving.interfaces)
        self._throttle = LogThrottle()
        self._ending = False
        self._changed = threading.Event()
        self._running: Running | None = None
        self._lock = threading.Lock()
        parts = Parts(
            agent_status=agent_status,
            settings=lambda: self._settings.admin,
            ask_server=lambda model: self._asked(model),  # noqa: PLW0108 (another one after a reload)
            sync=sync,
            drain=self._drain,
            lines_dropped=lines_dropped,
        )
        self._app: ASGIApp = build_app(parts)
        self._thread = threading.Thread(target=self._run, name="servesync-admin", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def apply(self, settings: Settings) -> None:
        """Use changed settings; a changed address or port is bound within seconds."""
        old, self._settings = self._settings, settings
        self.agent_status.stuck_after_seconds = settings.admin.stuck_after_seconds
        if settings.serving.interfaces != old.serving.interfaces:
            asked, self._asked = self._asked, AskedNow(settings.serving.interfaces)
            threading.Thread(target=asked.close, daemon=True).start()  # it may wait for an answer
        if (settings.admin.host, settings.admin.port) != (old.admin.host, old.admin.port):
            self._interrupt()

    def stop(self) -> None:
        """End, within a second or two."""
        self._ending = True
        self._interrupt()
        self._thread.join(STOP_SECONDS)

    def _drain(self, wanted: bool) -> None:  # noqa: FBT001 (whether it begins or ends)
        status = self.agent_status
        if wanted == (status.draining_since_at is not None):
            return
        status.draining_since_at = time.time() if wanted else None
        threading.Thread(target=self._asked.close, daemon=True).start()  # it may wait for an answer
        event = Event.DRAINING if wanted else Event.DRAINING_ENDED
        get_logger().info(event, because=f"{'POST' if wanted else 'DELETE'} /drain")

    def _interrupt(self) -> None:
        with self._lock:
            self._changed.set()
            if self._running is not None:
                self._running.stop()

    def _run(self) -> None:
        while not self._ending:
            self._changed.clear()
            admin = self._settings.admin
            if admin.port is None or not self._answer(admin, admin.port):
                self._changed.wait(AGAIN_SECONDS)

    def _answer(self, admin: Admin, port: int) -> bool:
        """Answer until interrupted; return whether that was possible."""
        try:
            running = Running(self._app, bind(admin.host, port))
            with self._lock:
                self._running = running
                if self._changed.is_set():
                    running.stop()
            self._throttle = LogThrottle()
            get_logger().info(Event.ADMIN_LISTENING, url=running.url)
            running.run()
        except OSError as error:
            self._say_unavailable(f"{admin.host} port {port}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 (no bug here may silence the probes for good)
            self._say_unavailable(str(internal_error(error)))
        else:
            return self._ending or self._changed.is_set()
        finally:
            with self._lock:
                self._running = None
        return False

    def _say_unavailable(self, because: str) -> None:
        repeats = self._throttle.count(because)
        if repeats is not None:
            get_logger().error(
                Event.ADMIN_UNAVAILABLE,
                reason=Reason.ADMIN_UNAVAILABLE,
                because=f"probes, metrics and the page cannot be asked: {because}",
                retry_in_seconds=AGAIN_SECONDS,
                repeats=repeats,
            )
