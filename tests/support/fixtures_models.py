"""Real SavedModels, written once a session by TensorFlow in a process of its own."""

import fcntl
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import forked
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make_everything.py` wrote: one start of TensorFlow for all models."""
    return made_once("models", tmp_path_factory, lambda out: written_by("make_everything.py", out))


@pytest.fixture(scope="session")
def real_models(made: Path) -> Path:
    """A folder with one SavedModel for each of KINDS."""
    return made / "models"


@pytest.fixture(scope="session")
def unsafe_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_unsafe_models.py`."""
    return made / "unsafe_models"


@pytest.fixture(scope="session")
def tf1_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_tf1_models.py`."""
    return made / "tf1_models"


@pytest.fixture(scope="session")
def client_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_client_models.py`."""
    return made / "client_models"


@pytest.fixture(scope="session")
def example_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_example_models.py`."""
    return made / "example_models"


@pytest.fixture(scope="session")
def bad_example_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_bad_example_models.py`."""
    return made / "bad_example_models"


@pytest.fixture(scope="session")
def trial_models(made: Path) -> Path:
    """A folder with one SavedModel for each kind of `make_trial_models.py`."""
    return made / "trial_models"


@pytest.fixture(scope="session")
def echo_model(made: Path) -> Path:
    """A SavedModel with the operation of `operation_module`."""
    return made / "echo_model"


@pytest.fixture(scope="session")
def retrained(made: Path) -> Path:
    """A folder with a model and its successor, of which only the head was trained on."""
    return made / "retrained"


@pytest.fixture(scope="session")
def exported(made: Path) -> Path:
    """The two models of the demo, trained once."""
    return made / "exported"


@pytest.fixture
def standin_tensorflow(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trial processes get what stands in for TensorFlow, from this folder: they start in no time."""
    folder = Path(__file__).with_name("standin_tensorflow")
    monkeypatch.syspath_prepend(folder)
    return folder


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """Return a folder that is made by the first worker that needs it; the others wait for it."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("no tensorflow here")
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = base / f"shared-{name}"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            fresh = base / f"{name}.fresh"
            make(fresh)
            fresh.rename(out)
    return out


def written_by(script_name: str, out: Path) -> Path:
    """Run a script that writes models into a folder, and return the folder."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("no tensorflow here")
    run(str(Path(__file__).with_name(script_name)), str(out))
    return out


def run(*arguments: str) -> None:
    """Run what needs TensorFlow."""
    done = forked.call([sys.executable, *arguments], os.environ, 600)
    assert done.returncode == 0, done.stderr[-3000:]
