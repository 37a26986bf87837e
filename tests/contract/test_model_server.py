"""What a model server does with the directory: the facts on which the agent is built.

They run against tensorflow_model_server where it is on PATH, else against the stand-in, over REST, with
real SavedModels. One server has many models; each test has a model of its own.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servesync.demo.server import FLAGS, ModelServer

MODELS = ["good", "half", "novars", "emptied", "update", "rollback", "retry", "plain", "missing"]
LATEST = {"half", "update", "rollback"}
SECONDS = 40.0


class World:
    """A models directory with a server on it."""

    def __init__(self, folder: Path, real_models: Path) -> None:
        self.root = folder / "models"
        self._staging = folder / "staging"
        self._staging.mkdir()
        self._model = real_models / "plain_module"
        self.config = folder / "models.config"
        self.http = httpx.Client(timeout=30, trust_env=False)
        self.write_config(MODELS)
        self.server = ModelServer(self.config, folder / "server.log")

    def write_config(self, names: list[str]) -> None:
        """Configure models: `latest 1` for those in LATEST, `all` for the others."""
        blocks = [
            f'config {{ name: "{name}" base_path: "{self.root / name}" model_platform: "tensorflow"'
            + ("" if name in LATEST else " model_version_policy { all {} }")
            + " }"
            for name in names
        ]
        aside = self.config.with_suffix(".new")
        aside.write_text("model_config_list { " + "\n".join(blocks) + " }\n")
        aside.replace(self.config)

    def put(self, model: str, version: int, breaking: Callable[[Path], object] = lambda _: None) -> None:
        """Rename a version into place, broken beforehand if asked."""
        staged = self._staging / f"{model}-{version}"
        shutil.copytree(self._model, staged)
        breaking(staged)
        (self.root / model).mkdir(parents=True, exist_ok=True)
        staged.rename(self.root / model / str(version))

    def take(self, model: str, version: int) -> None:
        """Rename a version away."""
        target = self._staging / f"gone-{model}-{version}-{time.monotonic_ns()}"
        (self.root / model / str(version)).rename(target)

    def states(self, model: str) -> dict[int, str]:
        """Return state, and the error code where there is one, of every version that was ever seen."""
        answer = self.http.get(f"{self.server.url}/v1/models/{model}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        found: dict[int, str] = {}
        for item in answer.json()["model_version_status"]:
            code = item["status"]["error_code"]
            found[int(item["version"])] = item["state"] if code == "OK" else f"{item['state']} {code}"
        return found

    def predict(self, model: str, version: int | None = None) -> httpx.Response:
        """Ask for a prediction."""
        where = f"/versions/{version}" if version is not None else ""
        body: dict[str, Any] = {"instances": [[1.0] * 50]}
        return self.http.post(f"{self.server.url}/v1/models/{model}{where}:predict", json=body)

    def until(self, model: str, expected: dict[int, str]) -> None:
        """Wait for states."""
        deadline = time.monotonic() + SECONDS
        while (found := self.states(model)) != expected:
            assert time.monotonic() < deadline, (
                f"{model}: {found}, not {expected}\n{self.server.output()[-2000:]}"
            )
            time.sleep(0.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, real_models: Path) -> Iterator[World]:
    """A running server, every model with a good version 1."""
    world = World(tmp_path_factory.mktemp("world"), real_models)
    for name in MODELS:
        world.put(name, 1)
    with world.http, world.server as server:
        server.wait_ready(120)
        yield world


def settle() -> None:
    """Let the server scan at least twice."""
    time.sleep(2.5)


def test_the_stand_in_says_that_it_is_one(world: World) -> None:
    """Nobody takes it for the real server by mistake."""
    if not world.server.is_standin:
        pytest.skip("the real tensorflow_model_server is on PATH")

    assert "stand-in" in world.server.output().splitlines()[0]


def test_it_serves(world: World) -> None:
    """Status, a prediction in rows, one in columns, and the metadata."""
    assert world.states("good") == {1: "AVAILABLE"}
    assert len(world.predict("good", 1).json()["predictions"][0]) == 20
    columns = world.http.post(f"{world.server.url}/v1/models/good:predict", json={"inputs": [[1.0] * 50]})
    assert len(columns.json()["outputs"][0]) == 20
    metadata = world.http.get(f"{world.server.url}/v1/models/good/metadata").json()
    assert "serving_default" in metadata["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/models/good/versions/9", 404),
        ("GET", "/v1/models/good/versions/99999999999999999999", 400),
        ("GET", "/v1/models", 400),
        ("GET", "/v1/models/good/labels/any", 200),
        ("POST", "/v1/models/good/versions/9:predict", 404),
        ("POST", "/v1/models/good/labels/none:predict", 400),
        ("POST", "/v1/models/unknown:predict", 404),
        ("POST", "/v1/models/good", 400),
    ],
)
def test_answers_to_what_is_not_there(method: str, path: str, status: int, world: World) -> None:
    """Codes and the error's form."""
    answer = world.http.request(method, world.server.url + path, json={"instances": [[1.0] * 50]})

    assert answer.status_code == status
    assert ("error" in answer.json()) == (status != 200)


def test_a_half_copied_version_fails_and_is_not_tried_again(world: World) -> None:
    """O2 and O7: END with an error; completing or replacing it helps nothing under `latest 1`."""
    whole = (world.root / "half/1/variables/variables.data-00000-of-00001").read_bytes()
    shard = world.root / "half/2/variables/variables.data-00000-of-00001"
    world.put(
        "half",
        2,
        lambda staged: (staged / "variables/variables.data-00000-of-00001").write_bytes(whole[:999]),
    )
    deadline = time.monotonic() + SECONDS
    while not world.states("half").get(2, "").startswith("END "):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    shard.write_bytes(whole)
    settle()
    world.take("half", 2)
    settle()
    world.put("half", 2)
    settle()

    assert world.states("half")[2].startswith("END ")
    assert world.states("half")[1] == "AVAILABLE"
    world.put("half", 3)
    world.until("half", {3: "AVAILABLE", 2: world.states("half")[2], 1: "END"})


def test_missing_variables_load_and_then_fail_every_request(world: World) -> None:
    """O2: AVAILABLE, and 400 for each prediction: why the agent looks before it installs."""
    world.put("novars", 2, lambda staged: shutil.rmtree(staged / "variables"))
    world.until("novars", {2: "AVAILABLE", 1: "AVAILABLE"})

    assert world.predict("novars", 2).status_code == 400
    assert world.predict("novars", 1).status_code == 200


def test_an_emptied_directory_unloads_everything(world: World) -> None:
    """O5: no guard against it."""
    world.take("emptied", 1)
    world.until("emptied", {1: "END"})

    assert world.predict("emptied").status_code == 404


def test_an_update_has_no_gap(world: World) -> None:
    """O8: under `latest 1` a client that asks all the time never fails."""
    world.put("update", 2)
    failures = []
    deadline = time.monotonic() + SECONDS
    while world.states("update") != {2: "AVAILABLE", 1: "END"}:
        failures += [answer.text for answer in [world.predict("update")] if answer.status_code != 200]
        assert time.monotonic() < deadline

    assert failures == []


def test_a_rollback_has_no_gap(world: World) -> None:
    """O9: with the older one there, removing the newer loads the older first."""
    world.put("rollback", 2)
    world.until("rollback", {2: "AVAILABLE", 1: "END"})
    world.take("rollback", 2)
    failures = []
    deadline = time.monotonic() + SECONDS
    while world.states("rollback") != {2: "END", 1: "AVAILABLE"}:
        failures += [answer.text for answer in [world.predict("rollback")] if answer.status_code != 200]
        assert time.monotonic() < deadline

    assert failures == []


def test_under_all_a_refused_version_can_come_back(world: World) -> None:
    """O7: gone for more than one scan and back: tried again."""
    world.put("retry", 2, lambda staged: (staged / "saved_model.pb").write_bytes(b"\xff" * 50))
    world.until("retry", {2: "END DATA_LOSS", 1: "AVAILABLE"})
    world.take("retry", 2)
    settle()
    world.put("retry", 2)

    world.until("retry", {2: "AVAILABLE", 1: "AVAILABLE"})


def test_a_plain_file_counts_as_a_version(world: World) -> None:
    """O1: it ends with an error; names that are no numbers are ignored."""
    (world.root / "plain/9").write_text("no directory")
    (world.root / "plain/.staging-7").mkdir()
    (world.root / "plain/tmp-5").mkdir()
    world.until("plain", {9: "END FAILED_PRECONDITION", 1: "AVAILABLE"})


def test_a_missing_base_path_stops_every_model(world: World) -> None:
    """Rule 3: while one is missing, no new version of any model is seen."""
    (world.root / "missing").rename(world.root / "elsewhere")
    settle()
    world.put("good", 2)
    settle()
    assert world.states("good") == {1: "AVAILABLE"}
    assert world.states("missing") == {1: "AVAILABLE"}

    (world.root / "elsewhere").rename(world.root / "missing")

    world.until("good", {2: "AVAILABLE", 1: "AVAILABLE"})


def test_a_bad_version_ends_the_next_start(tmp_path: Path, real_models: Path) -> None:
    """O3 and O4: the port stays closed until the start is decided, and a bad version ends the process."""
    world = World(tmp_path, real_models)
    world.write_config(["good"])
    (world.root / "good").mkdir(parents=True)
    with world.http, world.server as server:
        time.sleep(2)
        with pytest.raises(httpx.ConnectError):
            world.states("good")
        world.put("good", 1, lambda staged: (staged / "saved_model.pb").unlink())

        assert server.wait(120) == 255


def test_recommended_flags_are_those_of_the_readme() -> None:
    """What the tests prove is what users are told to start."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()

    assert all(flag in readme for flag in FLAGS)
