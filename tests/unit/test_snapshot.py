"""What a snapshot of the disk shows for records of every kind."""

from pathlib import Path

import pytest

from agent_parts import Parts, settings_of
from install_box import NOW, M, publish, release_of
from servesync import disk
from servesync.agent.model_snapshot import served_now
from servesync.domain.versions import Version
from servesync.install import Reserve, Shelf, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def test_a_look_reads_a_record_of_the_reserve_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names every file of its version; an agent of many models does little else than read records."""
    record = publish(workspace, release_of(1))
    Reserve(workspace, M).take(workspace.shelf(M) / "1", Version(1), record, NOW)
    Shelf(workspace, M).forget(Version(1))
    agent = Parts().agent(settings_of(workspace.models_dir, M))
    read: list[str] = []
    real = disk.read_file

    def read_file(path: Path, most_bytes: int) -> bytes:
        read.append(path.parent.parent.name)
        return real(path, most_bytes)

    monkeypatch.setattr(disk, "read_file", read_file)

    seen = agent.turn().seen

    assert seen is not None
    assert seen.snapshot.models[M].facts.reserve.keys() == {1}
    assert read.count("reserve_records") == 1


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 7}'])
def test_clients_signatures_are_not_forgotten_with_a_record(workspace: Workspace, text: str) -> None:
    """With `signatures: as_served` the version on the shelf counts: its graph tells what clients need."""
    publish(workspace, release_of(1))
    (workspace.records(M) / "1.json").write_text(text)

    agent = Parts().agent(settings_of(workspace.models_dir, M))

    assert served_now(agent.context, M) == (1, None)
