"""The loader that TensorFlow Serving uses takes what we call good, and fails with what we refuse."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import graph_bytes as gb
from fixtures_models import KINDS
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import verify_structure
from servesync.verify.wire import BYTES, fields

UNRESTORED = [
    "local_variable",
    "local_reference",
    "main_op",
    "initialized_in_function",
    "uncollected",
    "unread",
    "metric",
    "scratch",
    "table",
    "filled_table",
    "vocabulary",
]
"""Graphs of TensorFlow 1 that answer three times what they are asked."""
UNSET = ["uninitialized", "only_tables_initialized", "counter"]
TABLES = ["table", "filled_table", "vocabulary"]
"""Those that are asked with strings."""
WITH_ASSETS = {
    "string_assets": "vocabulary.txt",
    "vocabulary_layer": "words.txt",
    "vocabulary": "old words.txt",
}
HARMS = ["missing", "renamed", "directory", "folder missing"]
SAVER = 3
ASSET_FILES = 6


@dataclass(frozen=True)
class Case:
    """One directory, and what it is asked: nothing, if it is only loaded."""

    root: Path
    feed: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Scene:
    """All directories by name, and what TensorFlow made of each: numbers, or where it failed."""

    roots: Mapping[str, Path]
    answers: Mapping[str, Any]

    def refusal(self, name: str) -> ReleaseRefused:
        """Return our refusal of a directory."""
        with pytest.raises(ReleaseRefused) as caught:
            verify_structure(self.roots[name])
        return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_every_real_model_is_good_to_both(kind: str, scene: Scene) -> None:
    """Nothing that the server loads is refused."""
    assert scene.answers[kind] == []
    assert "serving_default" in verify_structure(scene.roots[kind]).signatures


@pytest.mark.parametrize("kind", UNRESTORED)
def test_a_graph_that_restores_nothing_is_good_if_it_answers(kind: str, scene: Scene) -> None:
    """Local variables and tables are set by the init op, by the request, or read by none."""
    assert scene.answers[kind] == [3.0, 6.0]
    assert "serving_default" in verify_structure(scene.roots[kind]).signatures


@pytest.mark.parametrize("kind", UNSET)
def test_a_graph_whose_variables_nothing_sets_is_refused(kind: str, scene: Scene) -> None:
    """The server loads it, and fails each request."""
    error = scene.refusal(kind)

    assert scene.answers[kind].keys() == {"asking"}
    assert error.reason is Reason.VARIABLES_MISSING
    assert "does not set the variables w" in str(error)


def test_a_saver_that_was_lost_is_missed(scene: Scene) -> None:
    """Without it nobody reads the checkpoint, though that is complete."""
    error = scene.refusal("without saver")

    assert scene.answers["without saver"].keys() == {"asking"}
    assert error.reason is Reason.VARIABLES_MISSING
    assert "scale" in str(error)


@pytest.mark.parametrize("kind", WITH_ASSETS)
@pytest.mark.parametrize("harm", HARMS)
def test_a_lost_asset_is_refused_where_the_server_ends(kind: str, harm: str, scene: Scene) -> None:
    """The message names the file, and what lies in its place."""
    error = scene.refusal(f"{kind} {harm}")

    assert scene.answers[f"{kind} {harm}"].keys() == {"loading"}
    assert error.reason is Reason.ASSET_MISSING
    assert f"assets/{WITH_ASSETS[kind]}" in str(error)
    assert ("holds 'other.txt'" in str(error)) == (harm == "renamed")
    assert ("there is no assets/" in str(error)) == (harm == "folder missing")


def test_an_asset_of_the_old_collection_is_looked_at(scene: Scene) -> None:
    """The loader reads the collection where the field of its own is empty, as early releases left it."""
    assert scene.answers["collection"] == [3.0, 6.0]
    assert "serving_default" in verify_structure(scene.roots["collection"]).signatures
    assert scene.answers["collection missing"].keys() == {"loading"}
    assert scene.refusal("collection missing").reason is Reason.ASSET_MISSING


def test_a_tensor_with_two_assets_is_refused_where_the_server_refuses_it(scene: Scene) -> None:
    """Python's TensorFlow writes that, and loads it."""
    error = scene.refusal("table_in_tf1")

    assert "fed more than once" in scene.answers["table_in_tf1"]["loading"]
    assert error.reason is Reason.ASSET_INVALID
    assert "'Const:0'" in str(error)


def test_a_stale_shard_is_refused_though_the_server_does_not_mind(scene: Scene) -> None:
    """It may be the index that is stale: the server would then serve old weights without a word."""
    error = scene.refusal("stale shard")

    assert scene.answers["stale shard"] == [2.0, 4.0]
    assert error.reason is Reason.VARIABLES_SHARD_MISSING
    assert "does not name: variables.data-00000-of-00002;" in str(error)
    assert "remove what is not of this export" in str(error)


@pytest.fixture(scope="session")
def scene(
    real_models: Path, unsafe_models: Path, tf1_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Everything is written first and then loaded by one process, since it takes seconds to start."""
    folder = tmp_path_factory.mktemp("agrees")
    cases = {kind: Case(real_models / kind) for kind in KINDS}
    cases |= {kind: Case(tf1_models / kind, _feed(kind)) for kind in [*UNRESTORED, *UNSET]}
    cases["table_in_tf1"] = Case(unsafe_models / "table_in_tf1")
    homes = dict(zip(WITH_ASSETS, (real_models, unsafe_models, tf1_models), strict=True))
    for kind, home in homes.items():
        cases |= {name: Case(root) for name, root in _harmed(home / kind, WITH_ASSETS[kind], folder)}
    cases |= _edited(real_models, tf1_models, folder)
    asked = [[str(case.root), list(case.feed), "x", "y"] for case in cases.values()]
    for item in asked:
        item[3] = "mul" if Path(str(item[0])).name in {"without saver", "stale shard"} else "y"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "server_view.py")],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = dict(zip(cases, json.loads(done.stdout), strict=True))
    return Scene({name: case.root for name, case in cases.items()}, answers)


def _feed(kind: str) -> tuple[Any, ...]:
    return ("1", "2") if kind in TABLES else (1.0, 2.0)


def _harmed(model: Path, name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write a copy of a model for each harm to its asset."""
    for harm in HARMS:
        root = Path(shutil.copytree(model, folder / f"{model.name} {harm}"))
        asset = root / "assets" / name
        if harm == "renamed":
            asset.rename(asset.with_name("other.txt"))
        else:
            asset.unlink()
        if harm == "directory":
            asset.mkdir()
        if harm == "folder missing":
            asset.parent.rmdir()
        yield f"{model.name} {harm}", root


def _edited(real_models: Path, tf1_models: Path, folder: Path) -> dict[str, Case]:
    """Write copies whose graphs lack a field, or with a file more."""
    origins = {
        "without saver": (real_models / "reference_variables", SAVER),
        "stale shard": (real_models / "reference_variables", None),
        "collection": (tf1_models / "vocabulary", ASSET_FILES),
        "collection missing": (tf1_models / "vocabulary", ASSET_FILES),
    }
    cases = {}
    for name, (origin, lost) in origins.items():
        root = Path(shutil.copytree(origin, folder / name))
        graph = root / "saved_model.pb"
        graph.write_bytes(_without(lost, graph.read_bytes()))
        cases[name] = Case(root, _feed(origin.name))
    shard = folder / "stale shard/variables/variables.data-00000-of-00001"
    shutil.copy(shard, shard.with_name("variables.data-00000-of-00002"))
    (folder / "collection missing/assets/old words.txt").unlink()
    return cases


def _without(lost: int | None, saved_model: bytes) -> bytes:
    """Return a SavedModel whose meta graph lacks a field."""
    kept = b""
    for field in fields(memoryview(saved_model)):
        if field.kind != BYTES:
            kept += gb.number(field.number, field.value)
            continue
        inner = [part for part in fields(field.data) if part.number != lost]
        kept += gb.data(field.number, b"".join(gb.data(part.number, bytes(part.data)) for part in inner))
    return kept
