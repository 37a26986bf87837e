"""The running stand-in: polls directories, lets the manager decide, and carries out its decisions."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from servesync.demo.standin.codes import Code, LoadFailed, RequestFailed
from servesync.demo.standin.config import BadConfig, ModelConfig, check_change, read_config
from servesync.demo.standin.flags import Flags
from servesync.demo.standin.loader import Loaded, load, reserve, walk_sizes
from servesync.demo.standin.manager import Job, Load, Manager, Options, Reserve, Unload
from servesync.demo.standin.monitor import State, Status
from servesync.demo.standin.scan import BasePathMissing, poll
from servesync.demo.standin.table import ServingTable
from servesync.demo.standin.warmup import warm_up
from servesync.verify.warmup import WARMUP

ABORTS: Final = "assets.extra/standin_aborts"
"""For tests: loading a version with this file aborts the process."""
TICK_SECONDS: Final = 0.1
Answer = TypeVar("Answer")


def say(text: str) -> None:
    """Write a line as the real server's log would."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Serving:
    """Models, versions, and the threads that poll, tick and load. One lock guards manager and models."""

    def __init__(self, flags: Flags, models: list[ModelConfig]) -> None:
        self._flags = flags
        self._lock = threading.Lock()
        self._config_lock = threading.Lock()
        self._table = ServingTable()
        self._models = {model.name: model for model in models}
        self._manager = Manager(self._options(load_threads=4 * (os.cpu_count() or 1)))
        self._monitor = self._manager.monitor

    def _options(self, load_threads: int) -> Options:
        return Options(
            max_num_load_retries=self._flags.max_num_load_retries,
            load_retry_interval_seconds=self._flags.load_retry_interval_micros / 1e6,
            load_threads=load_threads,
            unload_threads=self._flags.num_unload_threads,
        )

    # -- starting -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start polling and ticking."""
        self._repeat(self._poll, self._flags.file_system_poll_wait_seconds)
        self._repeat(self._tick, TICK_SECONDS)

    def wait_for_start(self) -> list[str]:
        """Wait, without a limit, until every model has a resolved version; return the models that failed.

        Until then, loads have many threads. If no model failed, the configuration is watched from then on.
        """
        failed = self._wait_for(list(self._models))
        if failed:
            return failed
        while True:
            with self._lock:
                if not self._manager.is_loading:
                    self._manager.options = self._options(self._flags.num_load_threads)
                    break
            time.sleep(TICK_SECONDS)
        if self._flags.model_config_file and self._flags.model_config_file_poll_wait_seconds > 0:
            self._repeat(self._reload, self._flags.model_config_file_poll_wait_seconds)
        return []

    def _wait_for(self, names: list[str]) -> list[str]:
        """Wait until models have a resolved version; return those whose highest has ended."""
        while True:
            with self._lock:
                outcome = self._monitor.outcome(names)
            if outcome is not None:
                return [name for name, status in outcome.items() if status.state is State.END]
            time.sleep(TICK_SECONDS)

    @staticmethod
    def _repeat(work: Callable[[], None], seconds: float) -> None:
        """Call `work` every `seconds` in a thread of its own: once for 0, never for less."""

        def run() -> None:
            while seconds >= 0:
                started = time.monotonic()
                work()
                if seconds == 0:
                    return
                time.sleep(max(0.0, seconds - (time.monotonic() - started)))

        threading.Thread(target=run, name=work.__name__, daemon=True).start()

    # -- polling and loading --------------------------------------------------------------------------

    def _poll(self) -> None:
        with self._lock:
            models = dict(self._models)
        try:
            found = poll(models.values(), os.listdir)
        except BasePathMissing as error:
            say(f"FileSystemStoragePathSource encountered a filesystem access error: {error}")
            return
        for warning in found.warnings:
            say(warning)
        with self._lock:
            for name, versions in found.wanted.items():
                if self._models.get(name) is models[name]:  # not reconfigured during the listing
                    self._manager.aspire(name, versions)

    def _tick(self) -> None:
        with self._lock:
            jobs = self._manager.tick(time.monotonic())
        self._start_jobs(jobs)

    def _start_jobs(self, jobs: list[Job]) -> None:
        """Carry out each job in a thread of its own; the manager limits their number."""
        for job in jobs:
            threading.Thread(
                target=self._carry_out, args=(job,), name=type(job).__name__, daemon=True
            ).start()

    def _carry_out(self, job: Job) -> None:
        servable = f"{{name: {job.model} version: {job.version}}}"
        try:
            self._do(job)
        except LoadFailed as error:
            say(f"Loading servable: {servable} failed: {error.code}: {error}")
        else:
            say(f"{type(job).__name__} of servable version {servable} is done")
        with self._lock:
            jobs = self._manager.due(time.monotonic())
        self._start_jobs(jobs)

    def _do(self, job: Job) -> None:
        """Do one job and report it to the manager.

        Raises:
            LoadFailed: an attempt failed; the manager knows.
        """
        try:
            if isinstance(job, Reserve):
                reserve(job.model, job.version, Path(job.path))
            elif isinstance(job, Load):
                self._load(job)
            else:
                self._table.remove(job.model, job.version)
        except LoadFailed as error:
            if not isinstance(job, Unload):
                with self._lock:
                    self._manager.failed(job, error, time.monotonic())
            raise
        with self._lock:
            self._manager.succeeded(job)

    def _load(self, job: Load) -> None:
        path = Path(job.path)
        time.sleep(self._flags.standin_load_delay_seconds)
        if (path / ABORTS).exists():
            say(f"{path} has {ABORTS}: aborting, as a graph can that has a failing check in its init op")
            os.abort()
        loaded = load(path)
        if requests := warm_up(path, loaded):
            text = f"Finished reading warmup data for model at {path / WARMUP}"
            say(f"{text}. Number of warmup records read: {requests}.")
        walk_sizes(path)
        with self._lock:
            is_kept = self._manager.keep(job)
        if is_kept:
            self._table.put(job.model, job.version, loaded)

    # -- what the interfaces ask ----------------------------------------------------------------------

    def status(self, model: str, version: int | None) -> dict[int, Status]:
        """Return the last status of each version of a model, or of one version.

        Raises:
            RequestFailed: the model or version is unknown.
        """
        with self._lock:
            found = self._monitor.statuses(model)
        if version is not None and version not in found:
            raise RequestFailed(Code.NOT_FOUND, f"Could not find version {version} of model {model}")
        if not found:
            raise RequestFailed(Code.NOT_FOUND, f"Could not find any versions of model {model}")
        return found if version is None else {version: found[version]}

    @property
    def timeout_ms(self) -> int:
        """After how many milliseconds a request is given up."""
        return self._flags.rest_api_timeout_in_ms

    @property
    def checks_methods(self) -> bool:
        """Whether a signature is refused that names another method than that of the request."""
        return self._flags.enable_signature_method_name_check

    def use(
        self, model: str, version: int | None, label: str | None, work: Callable[[int, Loaded], Answer]
    ) -> Answer:
        """Return the result of `work` for a loaded version: the named, the labelled, or the highest one.

        Raises:
            RequestFailed: no such version is loaded.
        """
        with self._lock:
            labels = self._models[model].labels if model in self._models else {}
        return self._table.use(model, version, label, labels, work)

    # -- the configuration ----------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the file again and wait for new models; a bad file changes nothing."""
        try:
            failed = self.reload(read_config(Path(self._flags.model_config_file)))
        except BadConfig as error:
            say(f"Failed to load model config file: {error}")
            return
        if failed:
            say(f"{len(failed)} model(s) did not become available: {', '.join(failed)}")

    def reload(self, models: list[ModelConfig]) -> list[str]:
        """Replace the configuration and wait for new models; return those of them that failed.

        One configuration follows the other: the next one waits until the new models of this one are there.

        Raises:
            BadConfig: it may not replace the present one; nothing was changed.
        """
        with self._config_lock:
            return self._wait_for(self._apply(models))

    def _apply(self, models: list[ModelConfig]) -> list[str]:
        """Replace the configuration and return the names that are new.

        Raises:
            BadConfig: it may not replace the present one; nothing was changed.
        """
        with self._lock:
            check_change(
                self._models,
                models,
                self._monitor.is_available,
                allow_unavailable=self._flags.allow_version_labels_for_unavailable_models,
            )
            before = self._models
            self._models = {model.name: model for model in models}
            for gone in before.keys() - self._models.keys():
                self._manager.aspire(gone, {})
            return [name for name in self._models if name not in before]
