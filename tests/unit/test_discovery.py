"""Which models "*" stands for."""

from pathlib import Path

import pytest

from agent_parts import Parts, StoreStub, listing_of, settings_of, turn_until_idle
from servesync.agent.discovery import MOST_MODELS
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import Reason
from servesync.install import Lock, Workspace


def _release(name: str) -> Release:
    return Release(Model(name), Version(1), Layout.ARCHIVE, (StoredObject(f"{name}/1.tar", 1, "e"),), "i")


def offers(*names: str) -> StoreStub:
    """Return a store that offers version 1 of some models, and is asked for nothing else."""
    return StoreStub(listing_of(*map(_release, names)))


@pytest.mark.slow
def test_a_new_model_takes_no_place_from_one_that_is_served(tmp_path: Path) -> None:
    """There are as many as one agent takes; the new one comes first in the alphabet."""
    workspace = Workspace(tmp_path)
    served = {Model(f"m{number:04}") for number in range(MOST_MODELS)}
    for model in served:
        workspace.records(model).mkdir(parents=True)
        (workspace.records(model) / "1.json").touch()
    agent = Parts(offers("a-new-one", *served)).agent(settings_of(tmp_path, "*"))

    turn_until_idle(agent, poll=True)

    assert agent.context.models.keys() == served
    assert agent.context.state.ignored_models == 1


def test_models_stay_known_while_their_records_cannot_be_listed(tmp_path: Path) -> None:
    """The store lists nothing, and a link is in the way: nobody forgets a model, and it is said."""
    workspace = Workspace(tmp_path)
    workspace.records(Model("a")).mkdir(parents=True)
    (workspace.records(Model("a")) / "1.json").touch()
    agent = Parts(offers()).agent(settings_of(tmp_path, "*"))
    assert agent.context.models.keys() == {"a"}
    (workspace.root / "records").rename(tmp_path / "moved")
    (workspace.root / "records").symlink_to(tmp_path / "moved")

    turn_until_idle(agent, poll=True)

    assert agent.context.models.keys() == {"a"}
    assert (None, Reason.DISK_NOT_A_DIRECTORY) in [
        (model, error.reason) for model, error in agent.context.errors
    ]


def test_a_model_is_known_by_a_version_whose_record_cannot_be_read(tmp_path: Path) -> None:
    """It may be off the shelf for a moment only; and nobody would be told of it otherwise."""
    workspace = Workspace(tmp_path)
    (workspace.root / "reserve/a/1").mkdir(parents=True)
    (workspace.root / "reserve/b/1").mkdir(parents=True)
    (workspace.root / "reserve_records/a").mkdir(parents=True)
    (workspace.root / "reserve_records/a/1.json").touch()

    assert Parts().agent(settings_of(tmp_path, "*")).context.models.keys() == {"a"}


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

    agent = Parts().agent(settings_of(tmp_path, "*"))

    assert agent.context.models.keys() == {"a", "b"}
    seen = agent.turn().seen
    assert seen is not None
    assert seen.snapshot.broken.keys() == {"b"}


def test_a_note_among_the_records_is_no_model(tmp_path: Path) -> None:
    """It has no base path, and gets none."""
    workspace = Workspace(tmp_path)
    (workspace.root / "records").mkdir(parents=True)
    (workspace.root / "records/README").touch()

    assert Parts().agent(settings_of(tmp_path, "*")).context.models == {}


def test_a_start_without_records_takes_no_model_from_the_server(tmp_path: Path) -> None:
    """Its version is on the shelf, and the store has not been asked yet: the server keeps it."""
    config_file = tmp_path / "models.config"
    serving = {"models_dir": str(tmp_path / "models"), "rest_url": None, "config_file": str(config_file)}
    wanted = settings_of(tmp_path / "models", "*", serving=serving)
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.records(Model("a")).mkdir(parents=True)
    record = workspace.records(Model("a")) / "1.json"
    record.touch()
    (workspace.shelf(Model("a")) / "1").mkdir(parents=True)
    with Lock(workspace.lock) as lock:
        Parts().agent(wanted, lock).prepare()
        before = config_file.read_text()
        assert str(workspace.shelf(Model("a"))) in before
        record.unlink()

        Parts().agent(wanted, lock).prepare()

    assert config_file.read_text() == before
