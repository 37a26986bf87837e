"""The trial by request against the server: it refuses no model that answers its real clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_models import KINDS
from forked_server import ModelServer
from servesync.agent.trials import TrialOrder, TrialReport, try_version
from servesync.demo.server import FLAGS
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError
from servesync.serving.rest import ModelServer as Rest
from servesync.verify.live import Outcome

CLIENT_KINDS = [
    "images",
    "examples",
    "ragged",
    "two_inputs",
    "two_signatures",
    "fixed_batch",
    "any_rank",
    "unit_length",
    "convolution",
    "checked",
]
SOUND = [*KINDS, *CLIENT_KINDS, "vocabulary_layer", "line"]


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


@pytest.fixture(scope="module")
def folders(real_models: Path, unsafe_models: Path, client_models: Path, exported: Path) -> dict[str, Path]:
    """Where each kind lies."""
    return (
        {kind: real_models / kind for kind in KINDS}
        | {kind: client_models / kind for kind in CLIENT_KINDS}
        | {"vocabulary_layer": unsafe_models / "vocabulary_layer", "line": exported / "1"}
    )


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """One server with all kinds, each as versions 1 and 2 of a model."""
    folder = tmp_path_factory.mktemp("kinds")
    entries = []
    for kind, place in folders.items():
        (folder / kind).mkdir()
        for number in (1, 2):
            (folder / kind / str(number)).symlink_to(place)
        entries.append(
            f'config {{ name: "{kind}" base_path: "{folder / kind}" model_platform: "tensorflow" '
            "model_version_policy { all {} } }"
        )
    config = folder / "models.config"
    config.write_text("model_config_list { " + " ".join(entries) + " }\n")
    with ModelServer(config, folder / "server.log", flags=FLAGS) as process:
        process.wait_ready(300)
        with Rest(process.url) as rest:
            yield rest


def tried(server: Rest, folders: dict[str, Path], kind: str, *, against: int | None) -> TrialReport:
    """Try version 2 of a model."""
    old = None if against is None else Version(against)
    order = TrialOrder(Model(kind), Version(2), old, only_golden=False, required={}, seconds=60)
    return try_version(server, order, folders[kind], NeverStopped())


@pytest.mark.parametrize("against", [None, 1], ids=["alone", "beside_an_old_one"])
@pytest.mark.parametrize("kind", SOUND)
def test_no_sound_model_is_refused(
    kind: str, against: int | None, server: Rest, folders: dict[str, Path]
) -> None:
    """Whether the request made from its signature fits it or not."""
    report = tried(server, folders, kind, against=against)

    assert report.judgement.outcome is Outcome.GOOD, report.judgement.text
    assert report.requests >= 1, report.judgement.text


@pytest.mark.parametrize("kind", CLIENT_KINDS)
def test_a_model_that_is_stricter_than_the_one_before_is_not_refused(
    kind: str, server: Rest, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The old version of another kind answers what the new one may rightly reject."""

    class Lenient:
        """Gives numbers where the old version is asked."""

        def predict(self, model: Model, version: Version, *more: object) -> tuple[int, bytes]:
            """Answer everything for version 1."""
            if version == Version(1):
                return 200, b'{"outputs": 1.0}'
            return server.predict(model, version, *more)  # type: ignore[arg-type]

    order = TrialOrder(Model(kind), Version(2), Version(1), only_golden=False, required={}, seconds=60)
    report = try_version(Lenient(), order, folders[kind], NeverStopped())  # type: ignore[arg-type]

    assert report.judgement.outcome is Outcome.GOOD, report.judgement.text


def test_with_golden_only_nothing_is_made_up(server: Rest, folders: dict[str, Path]) -> None:
    """`serving.smoke: golden`: a version without golden requests is not asked."""
    order = TrialOrder(Model("line"), Version(2), None, only_golden=True, required={}, seconds=60)

    report = try_version(server, order, folders["line"], NeverStopped())

    assert (report.judgement.outcome, report.requests) == (Outcome.GOOD, 0)
    assert "no golden requests" in report.judgement.text
