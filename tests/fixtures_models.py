"""Real SavedModels, written once a session by TensorFlow in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import graph_bytes as gb
from servesync.verify import OperationsReport, find_operations

KINDS = [
    "plain_module",
    "keras_export",
    "string_assets",
    "several_shards",
    "without_variables",
    "partitioned",
    "many_types",
    "more_types",
    "long_strings",
    "stateless_module",
    "reference_variables",
    "partitioned_twice",
]


Examine = Callable[..., OperationsReport]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """Write a model of these parts (a GraphDef, and fields of its meta graph), and report on it."""

    def report(graph_def: bytes, *more: bytes, tag: str = "serve") -> OperationsReport:
        (tmp_path / "saved_model.pb").write_bytes(gb.saved_model(graph_def, *more, tag=tag))
        return find_operations(tmp_path)

    return report


@pytest.fixture(scope="session")
def real_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SavedModel for each of KINDS."""
    return written_by("make_models.py", tmp_path_factory.mktemp("real_models"))


@pytest.fixture(scope="session")
def unsafe_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SavedModel for each kind of `make_unsafe_models.py`."""
    return written_by("make_unsafe_models.py", tmp_path_factory.mktemp("unsafe_models"))


def written_by(script_name: str, out: Path) -> Path:
    """Run a script that writes models into a folder, and return the folder."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("no tensorflow here")
    script = Path(__file__).with_name(script_name)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(out)],
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models of the demo, trained once."""
    out = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "servesync.demo.models", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No module named 'tensorflow'" in done.stderr:
        pytest.skip("no tensorflow here")
    assert done.returncode == 0, done.stderr[-2000:]
    return out
