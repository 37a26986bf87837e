"""The agent's models.config over time: what is written when, and which versions must stay meanwhile."""

import errno
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from servesync import disk
from servesync.agent.models_config import ConfigKeeper, labels_of, server_policy_of
from servesync.agent.models_config_writer import ConfigWriter
from servesync.demo.standin.config import ModelConfig, parse_config
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerDown, ServerError
from servesync.install import Workspace
from servesync.log_throttle import LogThrottle
from servesync.planning.actions import Prune
from servesync.planning.facts import (
    Condition,
    Facts,
    Latest,
    Served,
    Server,
    ServerPolicy,
    ServerState,
    Shelved,
)
from servesync.planning.planner import plan
from servesync.serving import models_config
from servesync.settings import ModelSettings, Serving

M, N = Model("m"), Model("n")
UP, LOADING = Served(ServerState.AVAILABLE), Served(ServerState.LOADING)
READ = 35.0
"""config_poll_seconds and the margin."""


@dataclass
class Scene:
    """A models directory, the settings, and what the server says; each `cycle` is one of the agent's."""

    folder: Path
    labels: dict[Model, dict[str, Any]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    required: bool = True
    one_pass: bool = False
    names_all: bool = True
    said: dict[Model, dict[int, Served]] = field(default_factory=dict)
    error: ServerError | None = None
    now: float = 1000.0
    logs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workspace = Workspace(self.folder / "models")
        self.path = self.folder / "models.config"
        self.start()

    @property
    def serving(self) -> Serving:
        """The settings of the server."""
        return Serving.model_validate(
            {
                "models_dir": str(self.workspace.models_dir),
                "config_file": str(self.path),
                "allow_version_labels_for_unavailable_models": True,
                **self.more,
            }
        )

    @property
    def models(self) -> dict[Model, ModelSettings]:
        """The configured models with their labels."""
        return {
            model: ModelSettings.model_validate({"name": model, "labels": wanted, "required": self.required})
            for model, wanted in self.labels.items()
        }

    def start(self) -> None:
        """Start an agent, or reload its settings."""
        self.keeper = ConfigKeeper(self.path, self.serving, self.workspace, self, self.one_pass)
        self.writer = ConfigWriter(self.keeper, LogThrottle())

    def monotonic(self) -> float:
        """Return the time of the agent."""
        return self.now

    def wall(self) -> float:
        """Return the time of day."""
        return time.time()

    def prepare(self) -> None:
        """Make the base paths, then write the file, as an agent does first of all."""
        self.workspace.claim()
        self.workspace.prepare(self.models)
        with capture_logs() as logs:
            self.writer.prepare(self.models, names_all=self.names_all)
        self.logs += logs

    def put(self, model: Model, version: int) -> None:
        """Put a version on the shelf."""
        (self.workspace.shelf(model) / str(version)).mkdir()

    def facts(self) -> dict[Model, Facts]:
        """Return what an observer would find."""
        found = {}
        for model, settings in self.models.items():
            labels = labels_of(self.serving, settings, {})
            shelf = [Version(int(entry.name)) for entry in disk.entries(self.workspace.shelf(model))]
            said = None if self.error else self.said.get(model, {})
            found[model] = Facts(
                model=model,
                policy=Latest(1),
                offered=dict.fromkeys(shelf, "i"),
                held={},
                shelf={version: Shelved(Condition.GOOD, confirmed=True, identity="i") for version in shelf},
                server=Server(
                    versions=None if said is None else {Version(v): item for v, item in said.items()}
                ),
                labels=labels,
                labelled=self.keeper.labelled(model, labels),
            )
        return found

    def cycle(self, seconds: float = 0.0) -> bool:
        """Let time pass, then look and write; return whether the file was written."""
        self.now += seconds
        self.keeper.read_file()
        self.found = self.facts()
        self.keeper.record_answers(self.found, self.error)
        with capture_logs() as logs:
            written = self.writer.write(self.keeper.draft(self.models, self.found))
        self.logs += logs
        return written

    def leaving(self) -> list[int]:
        """Return the versions of `m` that the planner would take off the shelf now."""
        return [action.version for action in plan(self.facts()[M]).actions if isinstance(action, Prune)]

    def written(self) -> dict[str, ModelConfig]:
        """Return the file as the server reads it."""
        return {model.name: model for model in parse_config(self.path.read_text())}

    def label(self, name: str = "stable") -> int | None:
        """Return where a label of `m` points in the file."""
        return self.written()["m"].labels.get(name)

    def events(self, name: str) -> list[Any]:
        """Return the log's lines of one event."""
        return [line for line in self.logs if line["event"] == name]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Model `m` with versions 1 and 2, both served, and `stable` on 1."""
    scene = Scene(tmp_path, {M: {"stable": 1}})
    scene.prepare()
    scene.put(M, 1)
    scene.put(M, 2)
    scene.said = {M: {1: UP, 2: UP}}
    return scene


def test_the_first_file_names_every_required_model_and_comes_after_the_base_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base path that is missing would stop the server's updates of every model."""
    scene = Scene(tmp_path, {N: {}, M: {}})
    real, looked = disk.write_file, []

    def write_file(path: Path, data: bytes, **more: Any) -> None:
        looked.append([Path(model.base_path).is_dir() for model in parse_config(data.decode())])
        real(path, data, **more)

    monkeypatch.setattr(disk, "write_file", write_file)
    scene.prepare()
    assert looked == [[True, True]]
    assert [model.base_path for model in scene.written().values()] == [
        str(tmp_path / "models/m"),
        str(tmp_path / "models/n"),
    ]

    scene.labels[Model("o")] = {}
    scene.start()
    scene.prepare()
    scene.put(Model("o"), 1)
    scene.cycle()
    assert looked == [[True, True], [True, True, True]]


def test_a_model_that_nobody_requires_comes_with_its_first_version(tmp_path: Path) -> None:
    """Until then it would hold up the start of the server, and with it every other model."""
    scene = Scene(tmp_path, {M: {}, N: {}}, required=False)
    scene.prepare()
    assert scene.written() == {}
    scene.put(N, 3)
    assert scene.cycle()
    assert scene.written().keys() == {"n"}


def test_a_shelf_that_cannot_be_read_keeps_its_place(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of it, so nothing changes; the others go on."""
    scene.required = False
    scene.labels[N] = {}
    scene.workspace.prepare(scene.models)
    scene.cycle()
    real = disk.entries

    def entries(path: Path) -> Any:
        if path.name == "m":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    scene.put(N, 1)
    facts = {model: item for model, item in scene.facts().items() if model != M}
    monkeypatch.setattr(disk, "entries", entries)
    draft = scene.keeper.draft(scene.models, facts)

    assert draft.config.models.keys() == {M, N}
    assert draft.config.models[M].labels == {"stable": 1}


def test_a_file_that_is_as_it_should_be_is_not_touched(scene: Scene) -> None:
    """The server reads it again all the time; it is written only for a reason."""
    assert scene.cycle()
    before = scene.path.stat()
    assert not scene.cycle(1)
    scene.start()
    scene.prepare()

    assert scene.path.stat().st_ino == before.st_ino


def test_a_removed_base_path_does_not_keep_the_file_from_following(scene: Scene) -> None:
    """The server has the model already and serves on from memory; labels of every model still move."""
    scene.cycle()
    scene.labels[M] = {"stable": 2}
    (scene.workspace.models_dir / "m").rename(scene.folder / "elsewhere")
    assert not scene.cycle()
    assert scene.label() == 1
    scene.labels[M] = {}
    assert scene.cycle()
    assert "m" in scene.written()
    assert scene.label() is None


def test_a_new_model_without_a_base_path_does_not_come_into_the_file(scene: Scene) -> None:
    """The server would wait for its first version, and update no other model meanwhile."""
    scene.cycle()
    scene.error = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    scene.labels[N] = {}
    assert not scene.cycle()
    assert "n" not in scene.written()
    (scene.workspace.models_dir / "n").mkdir()
    assert scene.cycle()
    assert "n" in scene.written()


def test_a_label_moves_in_two_steps_and_its_old_version_stays_until_the_server_has_read_that(
    scene: Scene,
) -> None:
    """AVAILABLE first, then the file, then the time in which the server reads it; only then may it leave."""
    scene.said = {M: {1: UP, 2: LOADING}}
    scene.cycle()
    scene.labels[M] = {"stable": 2}
    assert not scene.cycle(100)
    assert scene.label() == 1
    assert scene.leaving() == []
    assert "LOADING" in scene.events("label_waiting")[-1]["because"]

    scene.said = {M: {1: UP, 2: UP}}
    assert scene.cycle()
    assert scene.label() == 2
    assert scene.events("models_config_written")[-1]["changes"] == ["label stable of m: 1 -> 2"]
    scene.cycle()
    assert scene.keeper.next_due() == READ
    scene.cycle(READ - 1)
    assert scene.leaving() == []
    scene.cycle(1)
    scene.cycle()
    assert scene.leaving() == [1]
    assert scene.keeper.next_due() is None


def test_time_counts_only_while_the_server_could_take_the_file(scene: Scene) -> None:
    """While it is silent, or refuses the file for any label or model in it, it may hold the old one."""
    scene.cycle()
    scene.labels[M] = {"stable": 2}
    scene.cycle()
    scene.cycle(READ - 1)
    scene.error = ServerError(Reason.SERVER_UNREACHABLE, "timed out")
    scene.cycle()
    scene.error = None
    scene.cycle(100)
    assert scene.leaving() == []

    scene.labels[N] = {}
    scene.workspace.prepare(scene.models)
    scene.put(N, 1)
    assert scene.cycle()  # a new model: the server reads no file until it has come out
    scene.cycle(100)
    scene.cycle(100)
    assert scene.leaving() == []
    scene.said[N] = {1: UP}
    scene.cycle()
    scene.cycle(READ)
    scene.cycle()
    assert scene.leaving() == [1]


def test_a_restarted_agent_knows_which_versions_labels_have_left(scene: Scene) -> None:
    """It stands in the file, for a label that moved a moment before the agent died."""
    scene.cycle()
    scene.labels[M] = {"stable": 2}
    scene.cycle()
    scene.start()
    scene.prepare()
    scene.cycle()
    assert scene.leaving() == []
    scene.cycle(READ)
    scene.cycle()
    assert scene.leaving() == [1]
    assert models_config.read(scene.path).config is not None
    assert b"leaving" not in scene.path.read_bytes()
    assert b"may still have" not in scene.path.read_bytes()


def test_one_pass_goes_by_the_age_of_the_file(scene: Scene) -> None:
    """From cron no pass lasts as long as the server may take."""
    scene.one_pass = True
    scene.start()
    scene.prepare()
    scene.cycle()
    scene.labels[M] = {"stable": 2}
    scene.cycle()
    scene.cycle()
    assert scene.leaving() == []
    assert scene.keeper.next_due() is None

    old = time.time() - READ - 1
    os.utime(scene.path, (old, old))
    scene.start()
    scene.prepare()
    scene.cycle()
    scene.cycle()
    assert scene.leaving() == [1]


def test_a_version_about_to_be_labelled_stays(scene: Scene) -> None:
    """Policy no longer wants 1; a label that is to go back there keeps it."""
    scene.labels[M] = {"stable": 2}
    scene.cycle()
    assert scene.leaving() == [1]
    scene.labels[M] = {"stable": 2, "old": 1}
    assert scene.leaving() == []
    scene.cycle()
    assert (scene.label("stable"), scene.label("old")) == (2, 1)


def test_the_labels_of_a_server_that_is_about_to_start_are_there_from_its_first_request(scene: Scene) -> None:
    """Nothing listens yet, and it was told to accept labels of versions that are not AVAILABLE."""
    scene.error = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    assert scene.cycle()
    assert scene.label() == 1


def test_labels_leave_the_file_of_a_server_that_does_not_come_up(scene: Scene) -> None:
    """Perhaps it was not told so, and ends at every start because of them."""
    scene.cycle()
    scene.error = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    scene.cycle(5)
    scene.cycle(599)
    assert scene.label() == 1
    assert scene.cycle(1)
    assert scene.label() is None
    assert not scene.cycle(5)
    assert scene.leaving() == []
    scene.error = None
    assert scene.cycle(5)
    assert scene.label() == 1


def test_a_server_that_only_hangs_keeps_its_labels(scene: Scene) -> None:
    """It may be at work: to take a label away would be the outage."""
    scene.cycle()
    scene.error = ServerError(Reason.SERVER_UNREACHABLE, "timed out")
    scene.cycle(5)

    assert not scene.cycle(5000)
    assert scene.label() == 1


def test_without_the_flag_no_label_is_written(scene: Scene) -> None:
    """And those that stand there leave."""
    scene.cycle()
    scene.more = {"allow_version_labels_for_unavailable_models": False}
    scene.start()
    scene.prepare()
    scene.cycle()

    assert scene.label() is None


def test_a_model_leaves_the_file_only_at_a_start_or_reload(scene: Scene) -> None:
    """In the midst of work a model that is not there may just not be known."""
    scene.cycle()
    gone = scene.labels.pop(M)
    assert not scene.cycle()
    assert scene.written().keys() == {"m"}

    scene.labels = {N: gone}
    scene.start()
    scene.prepare()
    assert "m" not in scene.written()
    assert "model m is gone: the server unloads it" in scene.events("models_config_written")[-1]["changes"]


def test_a_model_that_every_model_may_stand_for_stays_at_a_start(scene: Scene) -> None:
    """Nobody knows it, as its records are lost and the store does not answer; the server goes on with it."""
    scene.cycle()

    scene.labels = {}
    scene.names_all = False
    scene.start()
    scene.prepare()

    assert scene.written().keys() == {"m"}


def test_a_model_that_is_gone_from_store_and_shelf_does_not_keep_the_server_from_starting(
    scene: Scene,
) -> None:
    """As for one of "*": a server that starts would wait for its first version, with closed ports."""
    scene.labels[N] = {}
    scene.workspace.prepare(scene.models)
    scene.put(N, 1)
    scene.said[N] = {1: UP}
    scene.cycle()
    assert scene.written().keys() == {"m", "n"}

    (scene.workspace.shelf(N) / "1").rmdir()
    del scene.labels[N]
    assert scene.cycle()
    assert scene.written().keys() == {"m"}

    scene.labels[M] = {"stable": 2}
    scene.workspace.shelf(N).rmdir()
    assert scene.cycle()
    assert scene.label() == 2
    scene.cycle(1)
    scene.cycle(READ)
    assert 1 in scene.leaving()


def test_what_could_not_leave_at_a_reload_leaves_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full in the moment of the reload."""
    scene.cycle()
    scene.labels = {N: {}}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scene.start()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_file", full)
        scene.prepare()
    assert scene.written().keys() == {"m"}

    scene.put(N, 1)
    assert scene.cycle()
    assert scene.written().keys() == {"n"}


def test_a_file_that_vanished_comes_back_with_its_labels(scene: Scene) -> None:
    """The server has kept what it read last."""
    scene.cycle()
    scene.path.unlink()
    scene.error = ServerError(Reason.SERVER_UNREACHABLE, "timed out")

    assert scene.cycle()
    assert scene.label() == 1


FOREIGN = """model_config_list {{ config {{ name: "m" base_path: "{base}/m" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: 1 }} }} {more} }}"""


def foreign_file(scene: Scene, more: str = "") -> str:
    """Put somebody else's file there."""
    text = FOREIGN.format(base=scene.workspace.models_dir, more=more)
    scene.path.write_text(text)
    return text


def test_a_foreign_file_stays_and_the_agent_says_so_once_a_change(scene: Scene) -> None:
    """Every look fails alike; it is said as often as other failures are."""
    text = foreign_file(scene)
    scene.labels[M] = {"stable": 2}
    for _ in range(10):
        assert not scene.cycle(1)

    failed = scene.events("models_config_failed")
    assert [line["repeats"] for line in failed] == [1, 2, 4, 8]
    assert failed[0]["reason"] == "config_file_foreign"
    assert "adopt_config" in failed[0]["because"]
    assert scene.path.read_text() == text
    assert scene.leaving() == []  # its labels hold, too
    scene.path.unlink()
    assert scene.cycle()


def test_an_edited_file_stays(scene: Scene) -> None:
    """A hand edit is somebody's decision."""
    scene.cycle()
    edited = scene.path.read_text().replace("value: 1", "value: 2")
    scene.path.write_text(edited)

    assert not scene.cycle()
    assert scene.path.read_text() == edited
    assert "edited" in scene.events("models_config_failed")[0]["because"]


def test_a_foreign_file_is_taken_over_if_nothing_is_lost(scene: Scene) -> None:
    """Its labels are where they were, and move from there in two steps."""
    text = foreign_file(scene)
    scene.labels[M] = {"stable": 2}
    scene.more = {"adopt_config": True}
    scene.start()
    scene.prepare()
    assert scene.label() == 1
    assert scene.events("models_config_written")[-1]["adopted"] is True
    assert (scene.folder / "models.config.before-servesync").read_text() == text
    scene.cycle()
    assert scene.label() == 2
    assert scene.leaving() == []


def test_a_foreign_file_with_more_is_not_taken_over(scene: Scene) -> None:
    """A model that servesync does not know would be unloaded: it is named instead."""
    text = foreign_file(scene, 'config { name: "other" base_path: "/x/other" model_platform: "tensorflow" }')
    scene.labels[M] = {}
    scene.more = {"adopt_config": True}
    scene.start()
    scene.prepare()

    assert not scene.cycle()
    because = scene.events("models_config_failed")[-1]["because"]
    assert "label stable of m, model other" in because
    assert scene.path.read_text() == text
    assert not (scene.folder / "models.config.before-servesync").exists()


def test_a_server_that_mounts_the_directory_elsewhere(scene: Scene) -> None:
    """The file has its paths; the agent's own must be there. A change of the setting changes every model."""
    scene.cycle()
    scene.labels[N] = {}
    scene.workspace.prepare(scene.models)
    scene.put(N, 1)
    scene.more = {"server_models_dir": "/mnt/server"}
    scene.start()
    scene.prepare()

    written = scene.written()
    assert {name: model.base_path for name, model in written.items()} == {
        "m": "/mnt/server/m",
        "n": "/mnt/server/n",
    }
    changes = scene.events("models_config_written")[-1]["changes"]
    assert f"base path of m: {scene.workspace.shelf(M)} -> /mnt/server/m" in changes
    assert not scene.cycle()

    scene.more = {}
    scene.start()
    del scene.labels[N]  # not known for the moment, as a model of "*"
    assert scene.cycle()
    assert {name: model.base_path for name, model in scene.written().items()} == {
        "m": str(scene.workspace.shelf(M)),
        "n": str(scene.workspace.shelf(N)),
    }


def test_a_foreign_file_with_the_paths_of_the_server_is_taken_over(scene: Scene) -> None:
    """Once the settings say where the server has the directory; until then the message says so."""
    text = FOREIGN.format(base="/mnt/server", more="")
    scene.path.write_text(text)
    scene.labels[M] = {"stable": 1}
    scene.more = {"adopt_config": True}
    scene.start()
    scene.prepare()
    because = scene.events("models_config_failed")[-1]["because"]
    assert "base path /mnt/server/m of m" in because
    assert "set serving.server_models_dir to /mnt/server)" in because
    assert scene.path.read_text() == text

    scene.more = {"adopt_config": True, "server_models_dir": "/mnt/server"}
    scene.start()
    scene.prepare()
    assert scene.written()["m"].base_path == "/mnt/server/m"
    assert scene.events("models_config_written")[-1]["adopted"] is True


@pytest.mark.parametrize("kind", ["pipe", "link", "no config"])
@pytest.mark.parametrize("adopt", [False, True])
def test_what_cannot_be_read_cannot_be_taken_over(adopt: bool, kind: str, scene: Scene) -> None:  # noqa: FBT001
    """The message does not advise a setting that changes nothing."""
    scene.path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(scene.path)
    elif kind == "link":
        scene.path.symlink_to("elsewhere")
    else:
        scene.path.write_text("model_config_list {")
    scene.more = {"adopt_config": adopt}
    scene.start()
    scene.prepare()

    because = scene.events("models_config_failed")[-1]["because"]
    assert "so it is not overwritten: move it away;" in because
    assert "adopt_config" not in because
    assert os.path.lexists(scene.path)


def test_a_file_that_is_mounted_by_itself_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker run -v models.config:...` does: a rename cannot replace it, however often it is tried."""

    def busy(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr(disk, "write_file", busy)
    assert not scene.cycle()

    (failed,) = scene.events("models_config_failed")
    assert f"mount the directory {scene.path.parent} instead" in failed["because"]


def test_a_directory_that_is_missing_or_closed_is_named(scene: Scene) -> None:
    """The agent goes on; the file comes when it can."""
    scene.more = {"config_file": str(scene.folder / "nowhere/models.config")}
    scene.path = scene.folder / "nowhere/models.config"
    scene.start()
    assert not scene.cycle()
    (failed,) = scene.events("models_config_failed")
    assert failed["reason"] == "config_file_failed"
    assert "make the directory" in failed["because"]

    scene.path.parent.write_text("a file")
    assert not scene.cycle()
    assert "must be a directory" in scene.events("models_config_failed")[-1]["because"]
    scene.path.parent.unlink()
    scene.path.parent.mkdir()
    assert scene.cycle()


@pytest.mark.parametrize(
    ("policy", "versions", "expect"),
    [
        ("all", {"latest": 3}, (ServerPolicy.ALL, 1)),
        ("latest", {"latest": 3}, (ServerPolicy.LATEST, 3)),
        ("latest", {"pin": [3, 5, 5]}, (ServerPolicy.LATEST, 2)),
        ("latest", {"all": True}, (ServerPolicy.ALL, 1)),
    ],
)
def test_policies(
    policy: str, versions: dict[str, Any], expect: tuple[ServerPolicy, int], scene: Scene
) -> None:
    """With `latest` the server serves as many as the model's versions ask for."""
    scene.more = {"version_policy": policy}
    settings = ModelSettings.model_validate({"name": "m", "versions": versions})

    assert server_policy_of(scene.serving, settings) == expect
    scene.more["config_file"] = None
    assert server_policy_of(scene.serving, settings) == (ServerPolicy(policy), 1)
