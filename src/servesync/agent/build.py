"""Makes the parts of an agent out of settings."""

import sys
from collections.abc import Callable

from servesync.admin import Board
from servesync.agent.admission import Admission
from servesync.agent.agent import Agent
from servesync.agent.bring import Bringer
from servesync.agent.executor import Executor
from servesync.agent.manifests import ManifestReader
from servesync.agent.memory import Repeats
from servesync.agent.models_config import ConfigKeeper
from servesync.agent.observe import Observer
from servesync.agent.progress import Reporter, for_stream
from servesync.agent.scrub import Scrubber
from servesync.agent.weights import Weights
from servesync.confirm import ModelServer, ServerFootprint
from servesync.errors import Stopped
from servesync.install import Lock, Workspace
from servesync.settings import Settings
from servesync.store import S3Store
from servesync.verify import require_tensorflow


def build_observer(
    settings: Settings,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    one_pass: bool = True,
    board: Board | None = None,
) -> Observer:
    """Return eyes that look at the store, shelf and server of `settings`."""
    serving = settings.serving
    url, file = serving.rest_url, serving.config_file
    workspace = Workspace(serving.models_dir)
    board = board or Board()
    store = S3Store(settings.store, settings.fetch, settings.limits, on_request=board.count_request)
    return Observer(
        settings=settings,
        store=store,
        server=ModelServer(url) if url else None,
        workspace=workspace,
        admission=Admission(
            settings.memory,
            ServerFootprint(url, settings.memory.cgroup),
            Weights(workspace, ManifestReader(store, settings.fetch, should_stop)),
        ),
        check=_checker(should_stop),
        one_pass=one_pass,
        config=ConfigKeeper(file, serving, workspace, one_pass) if file else None,
        board=board,
    )


def build_agent(
    settings: Settings,
    lock: Lock,
    should_stop: Callable[[], bool],
    reporter: Reporter | None = None,
    *,
    wake: Callable[[], None] | None = None,
    board: Board | None = None,
) -> Agent:
    """Return an agent that works under `settings` for as long as the caller holds `lock`.

    `wake` makes a running agent look again; None for one pass, in which nothing goes on beside it.
    `board`: where it leaves what it knows.

    Raises:
        SettingsError: the settings ask for TensorFlow, or for a library of it, which is not installed.
    """
    if settings.verify.level == "load":
        require_tensorflow(settings.verify.load.libraries)
    board = board or Board()

    def asked_to_stop() -> bool:
        board.beat()  # whoever looks for this gets on with the work, or waits for no longer than it is to
        return should_stop()

    observer = build_observer(settings, asked_to_stop, one_pass=wake is None, board=board)
    observer.notices.durable = True
    repeats = Repeats()
    bringer = Bringer(observer, observer.check, asked_to_stop, reporter or for_stream(sys.stderr))
    executor = Executor(observer, bringer, observer.check, repeats)
    scrubber = Scrubber(settings.scrub, wake) if wake else None
    return Agent(observer, executor, lock, repeats, scrubber)


def _checker(should_stop: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if should_stop():
            raise Stopped

    return check
