"""What a model server does with the directory: the facts on which the agent is built.

They run against the stand-in and, where it is on PATH, against tensorflow_model_server, over REST, with
real SavedModels. One server has many models; each test has a model of its own.
"""

import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import pytest

from bundle_writer import bytes_field
from forked_server import ModelServer
from servesync.demo.server import FLAGS, PROGRAM
from servesync.errors import ReleaseRefused
from servesync.serving.footprint import ServerFootprint
from servesync.verify import check_warmup
from servesync.verify.table import masked
from tfs_messages import PredictRequest, Tensor

MODELS = [
    "good", "half", "novars", "emptied", "update", "rollback", "retry", "plain", "missing", "labels",
    "pinned", "broken", "refused", "new_ops", "warmed", "small",
]  # fmt: skip
KINDS = ["string_assets", "without_variables", "partitioned"]
LATEST = "latest { num_versions: 1 }"
POLICIES = {"half": LATEST, "update": LATEST, "rollback": LATEST, "pinned": "specific { versions: 1 }"}
SECONDS = 40.0
MOST_GROWTH_BYTES = 64 << 20


class World:
    """A models directory with a server on it."""

    def __init__(
        self, folder: Path, real_models: Path, *, only_standin: bool, flags: tuple[str, ...] = ()
    ) -> None:
        self.root = folder / "models"
        self._staging = folder / "staging"
        self._staging.mkdir()
        self._real_models = real_models
        self.config = folder / "models.config"
        self.http = httpx.Client(timeout=30, trust_env=False)
        self.policies = dict(POLICIES)
        self.labels: dict[str, dict[str, int]] = {}
        self.write_config(MODELS + KINDS)
        self.server = ModelServer(
            self.config,
            folder / "server.log",
            flags=(*FLAGS, "--model_config_file_poll_wait_seconds=1", *flags),
            only_standin=only_standin,
        )

    def write_config(self, names: list[str]) -> None:
        """Configure models with their policies, `all` for most, and their labels."""
        blocks = [
            f'config {{ name: "{name}" base_path: "{self.root / name}" model_platform: "tensorflow" '
            f"model_version_policy {{ {self.policies.get(name, 'all {}')} }}"
            + "".join(
                f' version_labels {{ key: "{label}" value: {version} }}'
                for label, version in self.labels.get(name, {}).items()
            )
            + " }"
            for name in names
        ]
        aside = self.config.with_suffix(".new")
        aside.write_text("model_config_list { " + "\n".join(blocks) + " }\n")
        aside.replace(self.config)

    def put(
        self,
        model: str,
        version: int,
        breaking: Callable[[Path], object] = lambda _: None,
        kind: str = "plain_module",
    ) -> None:
        """Rename a version into place, broken beforehand if asked."""
        staged = self._staging / f"{model}-{version}"
        shutil.copytree(self._real_models / (model if model in KINDS else kind), staged)
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

    def predict(self, model: str, version: int | None = None, label: str = "") -> httpx.Response:
        """Ask for a prediction."""
        where = f"/versions/{version}" if version is not None else f"/labels/{label}" if label else ""
        body: dict[str, Any] = {"instances": [[1.0] * 50]}
        return self.http.post(f"{self.server.url}/v1/models/{model}{where}:predict", json=body)

    def labelled(self, model: str, label: str) -> str:
        """Return the version to which a label points."""
        answer = self.http.get(f"{self.server.url}/v1/models/{model}/labels/{label}/metadata")
        return str(answer.json()["model_spec"]["version"])

    def until(self, model: str, expected: dict[int, str]) -> None:
        """Wait for states."""
        deadline = time.monotonic() + SECONDS
        while (found := self.states(model)) != expected:
            assert time.monotonic() < deadline, (
                f"{model}: {found}, not {expected}\n{self.server.output()[-2000:]}"
            )
            time.sleep(0.1)


@pytest.fixture(scope="module", params=["stand-in", PROGRAM])
def only_standin(request: pytest.FixtureRequest) -> bool:
    """Run everything with the stand-in, and with the real server where there is one."""
    if request.param == PROGRAM and shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM} on PATH")
    return bool(request.param != PROGRAM)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, real_models: Path, *, only_standin: bool
) -> Iterator[World]:
    """A running server, every model with a good version 1."""
    world = World(tmp_path_factory.mktemp("world"), real_models, only_standin=only_standin)
    for name in MODELS + KINDS:
        world.put(name, 1)
    with world.http, world.server as server:
        server.wait_ready(120)
        yield world


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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
    ("kind", "body", "answer"),
    [
        (
            "string_assets",
            {"instances": ["yes", {"b64": "bm8="}, "never"]},
            {
                "predictions": [
                    {"ids": 0, "names": "first"},
                    {"ids": 1, "names": ""},
                    {"ids": -1, "names": "third" * 100},
                ]
            },
        ),
        ("string_assets", {"inputs": {"words": ["perhaps"]}}, None),
        ("without_variables", {"instances": [{"x": 1.5}, {"x": 2.0}]}, {"predictions": [3.0, 4.0]}),
        ("without_variables", {"inputs": [1.0]}, {"outputs": [2.0]}),
        ("partitioned", {"inputs": {"x": [[0.0] * 31]}}, {"outputs": [[0.0] * 5]}),
    ],
)
def test_models_of_other_kinds_serve(kind: str, body: object, answer: object, world: World) -> None:
    """Strings and tables, graphs of the first TensorFlow's kind, several inputs and outputs."""
    found = world.http.post(f"{world.server.url}/v1/models/{kind}:predict", json=body)

    assert found.status_code == 200, found.text
    assert answer is None or found.json() == answer


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [[1.0] * 49]},
        {"instances": [["text"] * 50]},
        {"instances": [[1.0] * 50, [1.0]]},
        {"instances": [{"y": [1.0] * 50}]},
        {"instances": [[1.0] * 50], "inputs": [[1.0] * 50]},
        {"inputs": {"no_such": [[1.0] * 50]}},
        {"instances": [[1.0] * 50], "signature_name": "no_such"},
    ],
)
def test_requests_that_do_not_fit_the_model(body: object, world: World) -> None:
    """Each is refused with 400, and the model goes on answering."""
    found = world.http.post(f"{world.server.url}/v1/models/good:predict", json=body)

    assert found.status_code == 400
    assert found.json()["error"]
    assert world.predict("good").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/models/good/versions/9", 404),
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


def test_a_version_of_more_than_64_bits_has_an_empty_answer(world: World) -> None:
    """400, and no JSON."""
    answer = world.http.get(f"{world.server.url}/v1/models/good/versions/99999999999999999999")

    assert (answer.status_code, answer.content) == (400, b"")


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
    metadata = world.http.get(f"{world.server.url}/v1/models/novars/versions/2/metadata")
    assert "serving_default" in metadata.json()["metadata"]["signature_def"]["signature_def"]


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


def renamed(staged: Path, known: bytes, unknown: bytes) -> None:
    """Give operations another name, of the same length."""
    pb = staged / "saved_model.pb"
    assert known in pb.read_bytes()
    pb.write_bytes(pb.read_bytes().replace(known, unknown))


def unknown_in_a_function(staged: Path) -> None:
    """An operation that no server knows, where each export of TensorFlow 2 has its operations."""
    renamed(staged, b"AddV2", b"AddV9")


def warmed(staged: Path, *records: bytes) -> Path:
    """Give a version warm-up requests."""
    file = staged / "assets.extra/tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf_records(file) as write:
        for record in records:
            write(record)
    return file


@contextmanager
def tf_records(file: Path) -> Iterator[Callable[[bytes], object]]:
    """Write a TFRecord file: length, its checksum, data, its checksum."""

    def checked(data: bytes) -> bytes:
        return data + struct.pack("<I", masked(google_crc32c.value(data)))

    with file.open("wb") as out:
        yield lambda data: out.write(checked(struct.pack("<Q", len(data))) + checked(data))


def recorded(values: int = 50, signature: str = "") -> bytes:
    """Return a PredictionLog with a predict request of so many values."""
    request = PredictRequest()
    request.model_spec.signature_name = signature
    Tensor.of([[1.0] * values]).fill(request.inputs.add(key="x").value)
    return bytes_field(6, bytes_field(1, request.SerializeToString()))


def warmed_and_unknown(staged: Path) -> None:
    """A version that would load, and fail the first request."""
    unknown_in_a_function(staged)
    warmed(staged, recorded())


def test_an_unknown_operation_in_a_function_loads_and_then_fails_every_request(world: World) -> None:
    """O13: AVAILABLE, and 404 for each prediction: AVAILABLE does not say that a version answers."""
    world.put("new_ops", 2, unknown_in_a_function)
    world.until("new_ops", {2: "AVAILABLE", 1: "AVAILABLE"})

    answer = world.predict("new_ops", 2)
    assert answer.status_code == 404
    assert "Op type not registered 'AddV9'" in answer.json()["error"]
    assert world.predict("new_ops", 1).status_code == 200


def test_an_unknown_operation_in_the_main_graph_ends_the_load(world: World) -> None:
    """O13: graphs of TensorFlow 1 have their operations there."""
    world.put("new_ops", 3, lambda staged: renamed(staged, b"Mul", b"Muz"), kind="without_variables")
    wait_until(lambda: 3 in world.states("new_ops") and world.states("new_ops")[3].startswith("END "))

    assert world.states("new_ops")[3] == "END NOT_FOUND"
    assert world.predict("new_ops", 1).status_code == 200


@pytest.mark.parametrize(
    ("version", "breaking", "state", "refused_first"),
    [
        (2, lambda staged: warmed(staged, recorded()), "AVAILABLE", False),
        (3, lambda staged: warmed(staged, b"", *[recorded()] * 999), "AVAILABLE", False),
        (4, lambda staged: warmed(staged, *[recorded()] * 1001), "END INVALID_ARGUMENT", True),
        (5, lambda staged: flip(warmed(staged, recorded(), recorded())), "END DATA_LOSS", True),
        (6, lambda staged: warmed(staged, b"\xff" * 9), "END INVALID_ARGUMENT", True),
        (7, lambda staged: warmed(staged, recorded(signature="no_such")), "END INVALID_ARGUMENT", True),
        (8, lambda staged: warmed(staged, recorded(49)), "END INVALID_ARGUMENT", False),
        (9, lambda staged: warmed(staged, bytes_field(5, b"")), "END UNIMPLEMENTED", True),
        (10, warmed_and_unknown, "END NOT_FOUND", False),
    ],
)
def test_warm_up_requests_are_replayed_at_load(
    version: int,
    breaking: Callable[[Path], object],
    state: str,
    refused_first: bool,  # noqa: FBT001 (a case)
    world: World,
) -> None:
    """O13: one that fails, a damaged file and record 1,001 refuse the version; an empty record passes.

    What can be told without TensorFlow is refused before the server meets it, and nothing that it takes.
    """
    world.put("warmed", version, breaking)
    wait_until(lambda: world.states("warmed").get(version, "").startswith(("END ", "AVAILABLE")))

    assert world.states("warmed")[version] == state
    with pytest.raises(ReleaseRefused) if refused_first else nullcontext():
        check_warmup(world.root / "warmed" / str(version))
    assert world.predict("warmed", 1).status_code == 200


def test_the_growth_by_a_small_version_says_little(world: World) -> None:
    """O17: by 0 to 35 MB for a version of 1 MB, from run to run, and an unload gives nothing back at once."""
    footprint = ServerFootprint(world.server.url)
    before = footprint.used_bytes()
    world.put("small", 2)
    world.until("small", {2: "AVAILABLE", 1: "AVAILABLE"})
    after = footprint.used_bytes()

    assert before is not None
    assert after is not None
    assert -MOST_GROWTH_BYTES < after - before < MOST_GROWTH_BYTES


SHARD = "variables/variables.data-00000-of-00001"


def retag(staged: Path) -> None:
    """Give the graph another tag, of the same length."""
    pb = staged / "saved_model.pb"
    assert b"\x22\x05serve" in pb.read_bytes()
    pb.write_bytes(pb.read_bytes().replace(b"\x22\x05serve", b"\x22\x05other"))


def empty(staged: Path) -> None:
    """Leave a directory with nothing in it."""
    shutil.rmtree(staged)
    staged.mkdir()


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("version", "breaking", "codes"),
    [
        (11, lambda staged: (staged / "saved_model.pb").unlink(), {"NOT_FOUND"}),
        (12, empty, {"NOT_FOUND"}),
        (13, lambda staged: (staged / "saved_model.pb").write_bytes(b"\xff" * 50), {"DATA_LOSS"}),
        (14, retag, {"NOT_FOUND"}),
        (15, lambda staged: (staged / SHARD).unlink(), {"NOT_FOUND"}),
        (16, lambda staged: os.truncate(staged / SHARD, 999), {"OUT_OF_RANGE", "DATA_LOSS"}),
        (17, lambda staged: flip(staged / SHARD), {"DATA_LOSS"}),
        (18, lambda staged: (staged / "export.meta").touch(), {"UNIMPLEMENTED"}),
        (19, lambda staged: (staged / "link").symlink_to("nowhere"), {"NOT_FOUND"}),
    ],
)
def test_each_damage_has_its_code(
    version: int, breaking: Callable[[Path], object], codes: set[str], world: World
) -> None:
    """Rule 7 and O2: every one ends with an error, and version 1 goes on serving."""
    world.put("broken", version, breaking)
    deadline = time.monotonic() + SECONDS
    while not (state := world.states("broken").get(version, "")).startswith("END "):
        assert time.monotonic() < deadline, f"{state}\n{world.server.output()[-2000:]}"
        time.sleep(0.1)

    assert state.removeprefix("END ") in codes
    assert world.predict("broken").status_code == 200


def test_labels_follow_what_serves(world: World) -> None:
    """O12: a label names an AVAILABLE version, or the whole new configuration is refused."""
    world.put("labels", 2)
    world.until("labels", {2: "AVAILABLE", 1: "AVAILABLE"})
    world.labels["labels"] = {"stable": 1, "canary": 2}
    world.write_config(MODELS + KINDS)
    wait_until(lambda: world.predict("labels", label="canary").status_code == 200)
    assert world.predict("labels", label="stable").status_code == 200

    world.labels["labels"] = {"stable": 9}
    world.write_config(MODELS + KINDS)
    settle()
    assert world.predict("labels", label="canary").status_code == 200

    world.labels["labels"] = {"stable": 2}
    world.write_config(MODELS + KINDS)
    wait_until(lambda: world.predict("labels", label="canary").status_code == 400)
    assert world.predict("labels", label="stable").status_code == 200


def test_one_bad_label_refuses_the_whole_file(world: World) -> None:
    """O12: a new model, and a good label beside it, wait until every label in the file is good."""
    names = [*MODELS, *KINDS, "late"]
    world.put("late", 1)
    world.labels["refused"] = {"stable": 1, "canary": 2}
    world.write_config(names)
    settle()
    assert world.states("late") == {}
    assert world.predict("refused", label="stable").status_code == 400

    world.put("refused", 2)
    world.until("refused", {2: "AVAILABLE", 1: "AVAILABLE"})
    world.until("late", {1: "AVAILABLE"})
    wait_until(lambda: world.predict("refused", label="canary").status_code == 200)
    assert world.predict("refused", label="stable").status_code == 200

    world.labels["refused"] = {}
    world.write_config(MODELS + KINDS)
    world.until("late", {1: "END"})
    wait_until(lambda: world.predict("refused", label="stable").status_code == 400)


def test_labels_end_a_start_without_the_flag(
    tmp_path: Path, real_models: Path, *, only_standin: bool
) -> None:
    """O12: no version is AVAILABLE then. So labels are written only beside a server that has the flag."""
    world = World(tmp_path, real_models, only_standin=only_standin)
    world.put("good", 1)
    world.labels["good"] = {"stable": 1}
    world.write_config(["good"])
    with world.http, world.server as server:
        assert server.wait(120) == 255


def test_labels_outlive_a_restart_with_the_flag(
    tmp_path: Path, real_models: Path, *, only_standin: bool
) -> None:
    """O12: a new label may name what is not AVAILABLE yet; one that moves may not."""
    flag = "--allow_version_labels_for_unavailable_models"
    world = World(tmp_path, real_models, only_standin=only_standin, flags=(flag,))
    world.put("good", 1)
    world.labels["good"] = {"stable": 1, "canary": 7}
    world.write_config(["good"])
    with world.http, world.server as server:
        server.wait_ready(120)
        assert world.predict("good", label="stable").status_code == 200
        assert world.predict("good", label="canary").status_code == 404
        server.restart()
        server.wait_ready(120)
        assert world.predict("good", label="stable").status_code == 200

        world.labels["good"] = {"stable": 8, "canary": 7}
        world.write_config(["good"])
        settle()
        assert world.labelled("good", "stable") == "1"
        world.put("good", 8)
        wait_until(lambda: world.labelled("good", "stable") == "8")


def test_an_empty_list_opens_the_ports_and_models_come_by_the_file(
    tmp_path: Path, real_models: Path, *, only_standin: bool
) -> None:
    """A model without a version would keep them closed: it comes into the file with its first one."""
    world = World(tmp_path, real_models, only_standin=only_standin)
    world.write_config([])
    with world.http, world.server as server:
        server.wait_ready(120)
        world.put("good", 1)
        world.write_config(["good"])
        world.until("good", {1: "AVAILABLE"})


def test_a_pinned_version_is_changed_without_a_gap(world: World) -> None:
    """O10: `specific 1` to `specific 2` by the file; a bad file in between changes nothing."""
    world.put("pinned", 2)
    world.config.write_text("model_config_list { config { nam: 1 } }")
    settle()
    assert world.states("pinned") == {1: "AVAILABLE"}

    world.policies["pinned"] = "specific { versions: 2 }"
    world.write_config(MODELS + KINDS)
    failures = []
    deadline = time.monotonic() + SECONDS
    while world.states("pinned") != {2: "AVAILABLE", 1: "END"}:
        failures += [answer.text for answer in [world.predict("pinned")] if answer.status_code != 200]
        assert time.monotonic() < deadline

    assert failures == []


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


def test_a_bad_version_ends_the_next_start(tmp_path: Path, real_models: Path, *, only_standin: bool) -> None:
    """O3 and O4: the port stays closed until the start is decided, and a bad version ends the process."""
    world = World(tmp_path, real_models, only_standin=only_standin)
    world.write_config(["good"])
    (world.root / "good").mkdir(parents=True)
    with world.http, world.server as server:
        time.sleep(2)
        with pytest.raises(httpx.ConnectError):
            world.states("good")
        world.put("good", 1, lambda staged: (staged / "saved_model.pb").unlink())

        assert server.wait(120) == 255


def test_a_port_for_grpc_is_obligatory(tmp_path: Path, real_models: Path, *, only_standin: bool) -> None:
    """O15: with `--port=0` the server ends at once."""
    world = World(tmp_path, real_models, only_standin=only_standin, flags=("--port=0",))
    world.write_config([])
    with world.http, world.server as server:
        assert server.wait(120) == 255


def test_recommended_flags_are_those_of_the_readme() -> None:
    """What the tests prove is what users are told to start."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()

    assert all(flag in readme for flag in FLAGS)
