"""The running stand-in: polls directories, lets the manager decide, loads, and keeps what serves."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from servesync.demo.standin.config import BadConfig, ModelConfig, parse_config
from servesync.demo.standin.flags import Flags
from servesync.demo.standin.loader import Loaded, LoadFailed, RequestFailed, load, walk_sizes
from servesync.demo.standin.manager import Load, Manager, State, Status, Unload
from servesync.demo.standin.scan import aspired

TICK_SECONDS: Final = 0.1
FAILED_START: Final = 255


def say(text: str) -> None:
    """Write a line as the real server's log would."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Serving:
    """Models, versions, and what is loaded. One lock guards all of it; loads and requests run outside."""

    def __init__(self, flags: Flags, models: list[ModelConfig]) -> None:
        self._flags = flags
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._manager = Manager()
        self._models = {model.name: model for model in models}
        self._loaded: dict[tuple[str, int], Loaded] = {}
        self._requests: set[object] = set()
        self._starting = True
        self._initial = ThreadPoolExecutor(4 * (os.cpu_count() or 1))
        self._loads = ThreadPoolExecutor(max(1, flags.num_load_threads))
        self._unloads = ThreadPoolExecutor(max(1, flags.num_unload_threads))

    # -- threads --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start polling and ticking."""
        for work, seconds in (
            (self._poll, self._flags.file_system_poll_wait_seconds),
            (self._tick, TICK_SECONDS),
        ):
            threading.Thread(target=self._repeat, args=(work, seconds), daemon=True).start()
        if self._flags.model_config_file and self._flags.model_config_file_poll_wait_seconds > 0:
            seconds = self._flags.model_config_file_poll_wait_seconds
            threading.Thread(target=self._repeat, args=(self.read_config, seconds), daemon=True).start()

    @staticmethod
    def _repeat(work: Callable[[], None], seconds: float) -> None:
        while seconds >= 0:
            started = time.monotonic()
            work()
            if seconds == 0:
                return
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))

    def _poll(self) -> None:
        """List every base path; one that is missing ends the whole poll, for all models."""
        with self._lock:
            models = list(self._models.values())
        found: dict[str, Mapping[int, str]] = {}
        for model in models:
            try:
                names = os.listdir(model.base_path)  # noqa: PTH208 (names as the scanner sees them)
            except OSError:
                say(f"Could not find base path {model.base_path} for servable {model.name}")
                return
            wanted = aspired(names, model.policy)
            found[model.name] = {number: f"{model.base_path}/{name}" for number, name in wanted.items()}
        with self._lock:
            for name, versions in found.items():
                self._manager.aspire(name, versions)

    def _tick(self) -> None:
        with self._lock:
            action = self._manager.tick()
        if isinstance(action, Load):
            self._run(self._load, self._load_pool(), action, self._flags.num_load_threads)
        elif isinstance(action, Unload):
            self._run(self._unload, self._unloads, action, self._flags.num_unload_threads)

    def _load_pool(self) -> ThreadPoolExecutor:
        return self._initial if self._starting else self._loads

    def _run(
        self, work: Callable[..., None], pool: ThreadPoolExecutor, action: Load | Unload, threads: int
    ) -> None:
        """With no thread for it, work is done by the manager's own, which then does nothing else."""
        if threads or (self._starting and isinstance(action, Load)):
            pool.submit(work, action)
        else:
            work(action)

    # -- loading and unloading ------------------------------------------------------------------------

    def _load(self, action: Load) -> None:
        attempts = 1 + self._flags.max_num_load_retries
        for attempt in range(attempts):
            try:
                loaded = self._attempt(action)
            except LoadFailed as error:
                say(f"Loading {action.model} version {action.version} failed: {error.code}: {error}")
                with self._lock:
                    over = attempt + 1 == attempts or self._manager.is_cancelled(action.model, action.version)
                    if over:
                        self._manager.failed(action.model, action.version, error.code, str(error))
                        return
                time.sleep(max(0, self._flags.load_retry_interval_micros) / 1e6)
            else:
                with self._lock:
                    self._loaded[action.model, action.version] = loaded
                    self._drain()
                    self._manager.loaded(action.model, action.version)
                say(
                    f"Successfully loaded servable version {{name: {action.model} version: {action.version}}}"
                )
                return

    def _attempt(self, action: Load) -> Loaded:
        path = Path(action.path)
        walk_sizes(action.model, action.version, path)
        time.sleep(self._flags.standin_load_delay_seconds)
        loaded = load(path)
        walk_sizes(action.model, action.version, path)
        return loaded

    def _unload(self, action: Unload) -> None:
        with self._lock:
            gone = self._loaded.pop((action.model, action.version), None)
            self._drain()
            self._manager.unloaded(action.model, action.version)
        del gone
        say(f"Done unloading servable version {{name: {action.model} version: {action.version}}}")

    def _drain(self) -> None:
        """Wait until every request that was under way has ended; the lock is held, and lent meanwhile."""
        before = set(self._requests)
        while before & self._requests:
            self._drained.wait(0.05)

    # -- what the interfaces ask ----------------------------------------------------------------------

    def status(self, model: str, version: int | None) -> dict[int, Status]:
        """Return what was ever seen of a model, or of one version.

        Raises:
            RequestFailed: it was never seen (404).
        """
        with self._lock:
            found = self._manager.statuses(model)
        if version is not None:
            found = {number: status for number, status in found.items() if number == version}
            if not found:
                raise RequestFailed(404, f"Could not find version {version} of model {model}")
        if not found:
            raise RequestFailed(404, f"Could not find any versions of model {model}")
        return found

    def use(
        self, model: str, version: int | None, label: str | None, work: Callable[[int, Loaded], object]
    ) -> object:
        """Run `work` on a loaded version: the named, the labelled, or the highest.

        Raises:
            RequestFailed: there is none.
        """
        token = object()
        with self._lock:
            number = self._choose(model, version, label)
            loaded = self._loaded[model, number]
            self._requests.add(token)
        try:
            return work(number, loaded)
        finally:
            with self._lock:
                self._requests.discard(token)
                self._drained.notify_all()

    def _choose(self, model: str, version: int | None, label: str | None) -> int:
        if label is not None:
            labels = self._models[model].labels if model in self._models else {}
            if label not in labels:
                raise RequestFailed(400, f"Unrecognized servable version label: {label}")
            version = labels[label]
        if version is None:
            serving = [number for name, number in self._loaded if name == model]
            if not serving:
                raise RequestFailed(404, f"Servable not found for request: Latest({model})")
            return max(serving)
        if (model, version) not in self._loaded:
            raise RequestFailed(404, f"Servable not found for request: Specific({model}, {version})")
        return version

    def wait_for_start(self) -> bool:
        """Wait until the start is decided; return whether it succeeded."""
        while True:
            with self._lock:
                decided = self._manager.startup(list(self._models))
                if decided is not None:
                    self._starting = False
                    return decided
            time.sleep(TICK_SECONDS)

    # -- the configuration ----------------------------------------------------------------------------

    def read_config(self) -> None:
        """Read the file again; one that is bad, or labels what does not serve, changes nothing."""
        try:
            models = parse_config(Path(self._flags.model_config_file).read_text())
            self._apply(models)
        except (OSError, BadConfig) as error:
            say(f"Failed to load config file: {error}")

    def _apply(self, models: list[ModelConfig]) -> None:
        with self._lock:
            for model in models:
                self._check_labels(model)
            for gone in self._models.keys() - {model.name for model in models}:
                self._manager.aspire(gone, {})
            self._models = {model.name: model for model in models}

    def _check_labels(self, model: ModelConfig) -> None:
        old = self._models[model.name].labels if model.name in self._models else {}
        for label, version in model.labels.items():
            serves = (
                self._manager.statuses(model.name).get(version, Status(State.END)).state is State.AVAILABLE
            )
            unchanged_or_new = old.get(label, version) == version
            if not serves and not (
                unchanged_or_new and self._flags.allow_version_labels_for_unavailable_models
            ):
                raise BadConfig(
                    f"version {version} of {model.name} is not available, cannot have the label {label}"
                )
