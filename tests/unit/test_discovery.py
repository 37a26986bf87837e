"""Which models "*" stands for."""

from pathlib import Path

import pytest

from servesync.agent.build import build_agent, build_observer
from servesync.agent.observe import MOST_MODELS
from servesync.errors import Reason
from servesync.install import Lock, Workspace
from servesync.plan.versions import Layout, Model, Release, StoredObject, Version
from servesync.settings import Settings
from servesync.store import Listing


class Offers:
    """A store that offers version 1 of some models, and is asked for nothing else."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def list(self, _wants: object, *, should_stop: object) -> Listing:
        """Return what the store offers."""
        return Listing({Model(name): (_release(name),) for name in self._names}, {}, 0, (), 1)


def _release(name: str) -> Release:
    return Release(Model(name), Version(1), Layout.ARCHIVE, (StoredObject(f"{name}/1.tar", 1, "e"),), "i")


def settings(models_dir: Path, **serving: str) -> Settings:
    """Return settings for every model of a store."""
    return Settings.model_validate(
        {
            "store": {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"},
            "serving": {"models_dir": str(models_dir), "rest_url": None, **serving},
            "models": [{"name": "*"}],
        }
    )


def test_a_new_model_takes_no_place_from_one_that_is_served(tmp_path: Path) -> None:
    """There are as many as one agent takes; the new one comes first in the alphabet."""
    workspace = Workspace(tmp_path)
    served = {Model(f"m{number:04}") for number in range(MOST_MODELS)}
    for model in served:
        workspace.records(model).mkdir(parents=True)
        (workspace.records(model) / "1.json").touch()
    observer = build_observer(settings(tmp_path))
    observer.store = Offers("a-new-one", *served)  # type: ignore[assignment]

    observer.look(ask_store=True)

    assert observer.models.keys() == served
    assert observer.ignored_models == 1


def test_models_stay_known_while_their_records_cannot_be_listed(tmp_path: Path) -> None:
    """The store lists nothing, and a link is in the way: nobody forgets a model, and it is said."""
    workspace = Workspace(tmp_path)
    workspace.records(Model("a")).mkdir(parents=True)
    (workspace.records(Model("a")) / "1.json").touch()
    observer = build_observer(settings(tmp_path))
    assert observer.models.keys() == {"a"}
    (workspace.root / "records").rename(tmp_path / "moved")
    (workspace.root / "records").symlink_to(tmp_path / "moved")
    observer.store = Offers()  # type: ignore[assignment]

    observer.look(ask_store=True)

    assert observer.models.keys() == {"a"}
    assert observer.notice_error is not None
    assert observer.notice_error.reason is Reason.DISK_NOT_A_DIRECTORY


def test_a_model_is_known_by_a_version_whose_record_cannot_be_read(tmp_path: Path) -> None:
    """It may be off the shelf for a moment only; and nobody would be told of it otherwise."""
    workspace = Workspace(tmp_path)
    (workspace.root / "reserve/a/1").mkdir(parents=True)
    (workspace.root / "reserve/b/1").mkdir(parents=True)
    (workspace.root / "reserve_records/a").mkdir(parents=True)
    (workspace.root / "reserve_records/a/1.json").touch()

    assert build_observer(settings(tmp_path)).models.keys() == {"a"}


@pytest.mark.parametrize("kind", ["records", "reserve_records"])
def test_one_bad_folder_of_records_hides_no_other_model(kind: str, tmp_path: Path) -> None:
    """A link is in the place of one model's records: the others are known, and that one is reported."""
    workspace = Workspace(tmp_path)
    workspace.records(Model("a")).mkdir(parents=True)
    (workspace.records(Model("a")) / "1.json").touch()
    (workspace.root / "reserve/b/1").mkdir(parents=True)
    (workspace.shelf(Model("b")) / "1").mkdir(parents=True)
    (workspace.root / kind).mkdir(exist_ok=True)
    (workspace.root / kind / "b").symlink_to(tmp_path)

    observer = build_observer(settings(tmp_path))

    assert observer.models.keys() == {"a", "b"}
    assert observer.look(ask_store=False).broken.keys() == {"b"}


def test_a_note_among_the_records_is_no_model(tmp_path: Path) -> None:
    """It has no base path, and gets none."""
    workspace = Workspace(tmp_path)
    (workspace.root / "records").mkdir(parents=True)
    (workspace.root / "records/README").touch()

    assert build_observer(settings(tmp_path)).models == {}


def test_a_start_without_records_takes_no_model_from_the_server(tmp_path: Path) -> None:
    """Its version is on the shelf, and the store has not been asked yet: the server keeps it."""
    config_file = tmp_path / "models.config"
    wanted = settings(tmp_path / "models", config_file=str(config_file))
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.records(Model("a")).mkdir(parents=True)
    record = workspace.records(Model("a")) / "1.json"
    record.touch()
    (workspace.shelf(Model("a")) / "1").mkdir(parents=True)
    with Lock(workspace.lock) as lock:
        build_agent(wanted, lock, lambda: False).prepare()
        before = config_file.read_text()
        assert str(workspace.shelf(Model("a"))) in before
        record.unlink()

        build_agent(wanted, lock, lambda: False).prepare()

    assert config_file.read_text() == before
