"""The trial by request of versions that take examples: what it finds, and what no made request can find.

Each bad version is tried beside the sound one that it replaces. The models are real, and so is TensorFlow.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servesync.domain.methods import Method
from servesync.settings import TensorSpec
from servesync.verify import read_signatures
from servesync.verify.live import Outcome
from servesync.verify.methods import Asking, read_askings
from trial_scene import Served, served, tried

SOUND = {
    "unfit_scores": "classify",
    "unknown_operation": "classify",
    "other_weights": "classify",
    "swapped_weights": "with_golden",
    "classify_nan": "classify",
    "regress_nan": "regress",
    "hidden_nan": "hidden_features",
    "no_table": "classify",
}
"""For each bad version, the sound one that it replaces."""


@pytest.fixture(scope="module")
def server(
    example_models: Path,
    bad_example_models: Path,
    client_models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """A model for each bad version, which is version 2 of it."""
    models = {bad: {1: example_models / good, 2: bad_example_models / bad} for bad, good in SOUND.items()}
    models["many_features"] = {1: example_models / "many_features"}
    models["estimator"] = {1: example_models / "estimator"}
    models["strings"] = {1: client_models / "strings"}
    with served(tmp_path_factory.mktemp("examples"), models) as running:
        yield running


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("unfit_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("unknown_operation", "Op type not registered 'Softplvs'"),
        ("swapped_weights", "golden request 1: output scores"),
        ("classify_nan", "output 'scores' is NaN where the version that serves has numbers"),
        ("regress_nan", "output 'outputs' is NaN where the version that serves has numbers"),
        ("no_table", "Table not initialized"),
    ],
)
def test_what_the_trial_finds(bad: str, words: str, server: Served, bad_example_models: Path) -> None:
    """With the server's words, or with what is wrong in the answer."""
    report = tried(server.rest, bad, bad_example_models / bad)

    assert report.judgement.outcome is Outcome.BAD, report.judgement.text
    assert words in report.judgement.text


@pytest.mark.parametrize("bad", ["other_weights", "hidden_nan"])
def test_what_no_made_request_finds(bad: str, server: Served, bad_example_models: Path) -> None:
    """Other weights without golden requests; what comes after a parser that refuses an example."""
    report = tried(server.rest, bad, bad_example_models / bad)

    assert report.judgement.outcome is Outcome.GOOD, report.judgement.text


def spec(dtype: str, *shape: int | None) -> TensorSpec:
    """Return a feature."""
    return TensorSpec.model_validate({"dtype": dtype, "shape": list(shape)})


@pytest.mark.parametrize(
    ("kind", "method", "features"),
    [
        (
            "classify",
            Method.CLASSIFY,
            {"x": spec("float32", 2), "n": spec("int64"), "word": spec("string")},
        ),
        (
            "many_features",
            Method.REGRESS,
            {"square": spec("float32", 2, 3), "rows": spec("float32", None, 2), "tags": spec("string", 2)},
        ),
        ("old_parser", Method.REGRESS, {"x": spec("float32", 2), "n": spec("int64")}),
        ("hidden_features", Method.REGRESS, {}),
    ],
)
def test_the_features_of_an_example_are_told_from_the_graph(
    kind: str, method: Method, features: dict[str, TensorSpec], example_models: Path
) -> None:
    """Of both operations that parse examples; those of variable length are left out."""
    root = example_models / kind

    assert read_askings(root, read_signatures(root)) == {"serving_default": Asking(method, features)}


@pytest.mark.parametrize("kind", ["classify_of_numbers", "without_variables"])
def test_what_the_method_of_a_signature_cannot_ask_is_asked_by_predict(
    kind: str, example_models: Path, real_models: Path
) -> None:
    """A classifier whose input are numbers; and what says `predict` itself."""
    root = next(place for folder in (example_models, real_models) if (place := folder / kind).exists())

    assert read_askings(root, read_signatures(root)) == {}


def post(server: Served, path: str, body: object) -> httpx.Response:
    """Send a request to a model of the server."""
    return httpx.post(f"{server.url}/v1/models/{path}", content=json.dumps(body), trust_env=False)


def test_both_methods_answer_as_the_servers_do(server: Served) -> None:
    """One result for each example, of labels and scores, or a value; by whatever name of the signature."""
    example = {"x": [1.0, -2.0], "n": 3, "word": {"b64": "/w=="}}
    asked = {"signature_name": "serving_default", "examples": [example, {**example, "n": [4]}]}

    classes = post(server, "estimator/versions/1:classify", asked).json()["results"]
    values = post(server, "estimator/versions/1:regress", {**asked, "signature_name": "regression"}).json()

    assert [[label for label, _ in row] for row in classes] == [["no", "yes"]] * 2
    assert [row[1][1] for row in classes] == values["results"]


def test_strings_are_written_as_they_are(server: Served) -> None:
    """Even if they are no UTF-8; in base64 if the output's name says so."""
    found = post(server, "strings:predict", {"inputs": [{"b64": "/w=="}]}).content.decode("latin-1")

    assert json.loads(found)["outputs"] == {"same": ["\xff"], "same_bytes": [{"b64": "/w=="}]}


def test_examples_may_share_a_context(server: Served) -> None:
    """Its features stand in front of those of each example."""
    shared = {"examples": [{"n": 3}], "context": {"x": [1.0, -2.0], "word": "a"}}
    alone = {"examples": [{"x": [1.0, -2.0], "word": "a", "n": 3}]}

    assert (
        post(server, "estimator:classify", shared).json() == post(server, "estimator:classify", alone).json()
    )


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("estimator:classify", {}, "When method is classify, key 'examples' is expected and was not found"),
        ("estimator:regress", {"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ("estimator:classify", {"examples": []}, "'examples' value is an empty array"),
        ("estimator:classify", {"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            "estimator:classify",
            {"examples": [{"x": [1.0, 2]}]},
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            "estimator:classify",
            {"examples": [{"x": [[1.0]]}]},
            "has element with unexpected JSON type: Array",
        ),
        ("estimator:classify", {"examples": [{"x": None}]}, "has element with unexpected JSON type: Null"),
        (
            "estimator:classify",
            {"examples": [{}], "signature_name": "no_such"},
            "No signature was found with the name: no_such",
        ),
        ("estimator:regress", {"examples": [{}]}, "Expected one output Tensor."),
        (
            "estimator:regress",
            {"examples": [{}], "signature_name": "predict"},
            "No regression inputs found in SignatureDef: ",
        ),
        (
            "estimator:classify",
            {"examples": [{}], "signature_name": 1},
            "'signature_name' key must be a string value.",
        ),
        ("estimator:classify", {"examples": [{}]}, "is required but could not be found"),
        (
            "unfit_scores/versions/2:classify",
            {"examples": [{"x": [1.0, 2.0], "n": 3, "word": "a"}]},
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
    ],
)
def test_requests_that_the_method_does_not_take(path: str, body: object, text: str, server: Served) -> None:
    """400, with the words of the real server."""
    answer = post(server, path, body)

    assert answer.status_code == 400, answer.text
    assert text in answer.json()["error"]


@pytest.mark.parametrize("checks", [False, True])
def test_only_with_its_flag_the_server_looks_at_the_method_of_a_signature(
    checks: bool,  # noqa: FBT001 (a case)
    example_models: Path,
    tmp_path: Path,
) -> None:
    """`--enable_signature_method_name_check`, which is off by default."""
    flag = f"--enable_signature_method_name_check={str(checks).lower()}"
    example = {"x": [1.0, -2.0], "n": 3, "word": "a"}
    with served(tmp_path, {"scores": {1: example_models / "scores_only"}}, flag) as running:
        by_regress = post(running, "scores:regress", {"examples": [example]}).json()["error"]
        by_predict = post(running, "scores:predict", {"inputs": [""]}).json()["error"]
    method = "Expected regression signature method_name to be tensorflow/serving/regress"
    assert by_regress.startswith(
        f"{method}. Was: tensorflow/serving/classify" if checks else "No regression outputs found"
    )
    assert "required but could not be found" in by_predict, by_predict
