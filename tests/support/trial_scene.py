"""A server with several versions of many models, and trials of one version."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from forked_server import ModelServer
from servesync.agent.ports import ServerPort
from servesync.agent.trials import TrialOrder, TrialReport, try_version
from servesync.demo.server import FLAGS
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError
from servesync.serving.rest import ModelServer as Rest
from servesync.verify.signatures import Signatures


class NeverStopped:
    """A job that nobody cancels."""

    def should_stop(self) -> bool:
        """Nobody does."""
        return False

    def check(self) -> None:
        """Nobody does."""

    def make_room(self, short: DiskError) -> bool:
        """Trials need no space."""
        return False


class Served(NamedTuple):
    """A server that runs: where it listens, and as the agent sees it."""

    url: str
    rest: Rest


@contextmanager
def served(folder: Path, models: Mapping[str, Mapping[int, Path]], *flags: str) -> Iterator[Served]:
    """Serve versions of models out of the folders in which they lie."""
    entries = []
    for model, versions in models.items():
        (folder / model).mkdir()
        for number, place in versions.items():
            (folder / model / str(number)).symlink_to(place)
        entries.append(
            f'config {{ name: "{model}" base_path: "{folder / model}" model_platform: "tensorflow" '
            "model_version_policy { all {} } }"
        )
    config = folder / "models.config"
    config.write_text("model_config_list { " + " ".join(entries) + " }\n")
    with ModelServer(config, folder / "server.log", flags=(*FLAGS, *flags)) as process:
        process.wait_ready(300)
        with Rest(process.url) as rest:
            yield Served(process.url, rest)


def tried(
    server: ServerPort,
    model: str,
    place: Path,
    against: int | None = 1,
    *,
    version: int = 2,
    required: Signatures | None = None,
    only_golden: bool = False,
) -> TrialReport:
    """Try a version of a model that lies in `place`, against another one."""
    old = None if against is None else Version(against)
    order = TrialOrder(Model(model), Version(version), old, only_golden, required or {}, seconds=60)
    return try_version(server, order, place, NeverStopped())
