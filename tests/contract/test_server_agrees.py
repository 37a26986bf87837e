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
from servesync.wire import Field, fields

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
    "set_when_asked",
    "set_in_call",
    "read_in_training",
    "beside_restored",
    "default_signature_only",
]
"""Graphs of TensorFlow 1 that answer three times what they are asked."""
UNSET = [
    "uninitialized",
    "only_tables_initialized",
    "unset_beside_restored",
    "read_in_call",
    "read_in_loop",
    "counter",
]
SAVED_KERAS = {
    "saved_keras": "serving_default_inputs",
    "saved_keras_in_module": "serving_default_x",
    "saved_recurrent_keras": "serving_default_inputs",
}
"""The tensors that take what is asked."""
TABLES = ["table", "filled_table", "vocabulary"]
"""Those that are asked with strings."""
WITH_ASSETS = {
    "string_assets": "vocabulary.txt",
    "vocabulary_layer": "words.txt",
    "vocabulary": "old words.txt",
}
HARMS = ["missing", "renamed", "directory", "folder missing"]
CALL = "StatefulPartitionedCall"
"""The operation that answers requests of an export that is made of functions."""
SAVER = 3
ASSET_FILES = 6


@dataclass(frozen=True)
class Case:
    """One directory, and what it is asked: nothing, if it is only loaded."""

    root: Path
    feed: tuple[Any, ...] = ()
    output: str = "y"
    given: str = "x"


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
    assert "nor the init op sets the variables w:" in str(error)


@pytest.mark.parametrize("kind", SAVED_KERAS)
def test_a_keras_model_is_refused_whose_variables_the_server_does_not_restore(
    kind: str, scene: Scene
) -> None:
    """With `tf.saved_model.save` instead of `export`, copies are restored that no request reads."""
    error = scene.refusal(kind)

    assert "Could not find variable" in scene.answers[kind]["asking"]
    assert error.reason is Reason.VARIABLES_MISSING
    assert "/kernel" in str(error)
    assert "model.export()" in str(error)


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


def test_one_of_them_lists_its_assets_in_the_collection(scene: Scene) -> None:
    """TensorFlow 1 does so to this day: there the field is empty, and the loader reads the collection."""
    fields_of = {kind: {part.number for part in _meta_graph(scene.roots[kind])} for kind in WITH_ASSETS}
    lists = [kind for kind, numbers in fields_of.items() if ASSET_FILES in numbers]

    assert lists == ["string_assets", "vocabulary_layer"]


def test_empty_debug_information_is_good_to_both(scene: Scene) -> None:
    """An exporter may leave the file empty."""
    assert scene.answers["debug empty"] == [2.0, 4.0]
    assert "serving_default" in verify_structure(scene.roots["debug empty"]).signatures


@pytest.mark.parametrize("name", ["debug cut", "debug page"])
def test_damaged_debug_information_is_refused_where_the_server_refuses_it(name: str, scene: Scene) -> None:
    """Nothing needs the file, but the loader reads it."""
    assert scene.answers[name].keys() == {"loading"}
    assert scene.refusal(name).reason is Reason.SAVED_MODEL_CORRUPT


def test_a_tensor_with_two_assets_is_refused_where_the_server_refuses_it(scene: Scene) -> None:
    """Python's TensorFlow writes that, and loads it."""
    error = scene.refusal("table_in_tf1")

    assert "fed more than once" in scene.answers["table_in_tf1"]["loading"]
    assert error.reason is Reason.ASSET_INVALID
    assert "'Const:0'" in str(error)


@pytest.mark.parametrize(
    ("name", "missing"), [("foreign in calls", "bias/.ATTRIBUTES"), ("foreign in graph", "scale")]
)
def test_variables_of_another_export_are_refused_where_the_server_refuses_them(
    name: str, missing: str, scene: Scene
) -> None:
    """Graph and variables are each whole, and do not belong together."""
    error = scene.refusal(name)

    assert "not found in checkpoint" in scene.answers[name]["loading"]
    assert error.reason is Reason.VARIABLES_MISSING
    assert f"does not have: {missing}" in str(error)


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
    homes = dict(zip(WITH_ASSETS, (real_models, unsafe_models, tf1_models), strict=True))
    cases = {kind: Case(real_models / kind) for kind in KINDS}
    cases |= {kind: Case(unsafe_models / kind) for kind in ("vocabulary_layer", "table_in_tf1")}
    cases |= {kind: Case(tf1_models / kind, _feed(kind)) for kind in [*UNRESTORED, *UNSET]}
    cases |= {kind: Case(real_models / kind, (1.0, 2.0), CALL, x) for kind, x in SAVED_KERAS.items()}
    for kind, home in homes.items():
        cases |= {name: Case(root) for name, root in _harmed(home / kind, WITH_ASSETS[kind], folder)}
    edited = _edited(real_models / "reference_variables", folder)
    cases |= {name: Case(root, (1.0, 2.0), "mul") for name, root in edited.items()}
    foreign = {"foreign in calls": "plain_module", "foreign in graph": "reference_variables"}
    cases |= {name: Case(_foreign(real_models, kind, folder / name)) for name, kind in foreign.items()}
    asked = [[str(case.root), case.feed, case.given, case.output] for case in cases.values()]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "support/server_view.py")],
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


def _edited(model: Path, folder: Path) -> dict[str, Path]:
    """Write copies of a model with a saver less, or a file more."""
    files = {
        "stale shard": ("variables/variables.data-00000-of-00002", b"old"),
        "debug empty": ("debug/saved_model_debug_info.pb", b""),
        "debug cut": ("debug/saved_model_debug_info.pb", gb.data(1, "a/file.py")[:-1]),
        "debug page": ("debug/saved_model_debug_info.pb", b"<html>Please log in</html>"),
    }
    roots = {name: Path(shutil.copytree(model, folder / name)) for name in ["without saver", *files]}
    for name, (file, content) in files.items():
        (roots[name] / file).parent.mkdir(exist_ok=True)
        (roots[name] / file).write_bytes(content)
    kept = [part for part in _meta_graph(model) if part.number != SAVER]
    graph = b"".join(gb.data(part.number, bytes(part.data)) for part in kept)
    (roots["without saver"] / "saved_model.pb").write_bytes(gb.number(1, 1) + gb.data(2, graph))
    return roots


def _foreign(models: Path, kind: str, root: Path) -> Path:
    """Write a copy of a model that has the variables of another."""
    shutil.copytree(models / kind, root)
    shutil.rmtree(root / "variables")
    shutil.copytree(models / "keras_export" / "variables", root / "variables")
    return root


def _meta_graph(root: Path) -> list[Field]:
    """Return the fields of the only meta graph of a SavedModel; all of them are messages."""
    data = memoryview((root / "saved_model.pb").read_bytes())
    [graph] = [field.data for field in fields(data) if field.number == 2]
    return list(fields(graph))
