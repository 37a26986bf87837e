"""The gRPC example against a real gRPC server, and against tensorflow_model_server where there is one."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import grpc_client
import tfs_messages as tfs
from forked_server import ModelServer
from grpc_client import GrpcClient, NotServed, Target
from servesync.demo.server import PROGRAM
from tfs_messages import DType, Tensor

STATES = {2: 30, 1: 30}
LABELS = {"stable": 1, "canary": 2}


class Service:
    """PredictionService and ModelService for a model `m`: y = version * x, and texts come back as they are.

    `failures`: codes that the next calls get before one succeeds.
    """

    def __init__(self) -> None:
        self.failures: list[grpc.StatusCode] = []
        self.deadlines: list[float] = []

    def predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer with the codes and texts of the real server."""
        self.deadlines.append(context.time_remaining())
        if self.failures:
            context.abort(self.failures.pop(0), "for the test")
        version = self._version(request.model_spec, context)
        answer = tfs.PredictResponse()
        answer.model_spec.name, answer.model_spec.version.value = "m", version
        for item in request.inputs:
            given = Tensor.read(item.value)
            values = given.values
            if given.dtype is not DType.STRING:
                values = tuple(value * version for value in values)
            Tensor(given.dtype, given.shape, values).fill(answer.outputs.add(key=item.key).value)
        return answer

    def status(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer with both versions."""
        if request.model_spec.name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        answer = tfs.GetModelStatusResponse()
        for version, state in STATES.items():
            answer.model_version_status.add(version=version, state=state)
        return answer

    def _version(self, spec: Any, context: grpc.ServicerContext) -> int:
        label = spec.version_label
        if label and label not in LABELS:
            text = f"Unrecognized servable version label: {label}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        version = LABELS[label] if label else spec.version.value if spec.HasField("version") else max(STATES)
        if version not in STATES:
            text = f"Servable not found for request: Specific({spec.name}, {version})"
            context.abort(grpc.StatusCode.NOT_FOUND, text)
        return int(version)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Service]]:
    """The service on a port of loopback."""
    service = Service()
    handlers = [
        grpc.method_handlers_generic_handler(
            "tensorflow.serving.PredictionService",
            {
                "Predict": grpc.unary_unary_rpc_method_handler(
                    service.predict, tfs.PredictRequest.FromString, tfs.PredictResponse.SerializeToString
                )
            },
        ),
        grpc.method_handlers_generic_handler(
            "tensorflow.serving.ModelService",
            {
                "GetModelStatus": grpc.unary_unary_rpc_method_handler(
                    service.status,
                    tfs.GetModelStatusRequest.FromString,
                    tfs.GetModelStatusResponse.SerializeToString,
                )
            },
        ),
    ]
    server = grpc.server(ThreadPoolExecutor(4), handlers=handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None).wait()


@pytest.fixture
def service(running: tuple[str, Service]) -> Service:
    """The service, with nothing left of an earlier test."""
    running[1].failures, running[1].deadlines = [], []
    return running[1]


@pytest.fixture
def client(running: tuple[str, Service], service: Service) -> Iterator[GrpcClient]:
    """A client of it."""
    with GrpcClient(running[0]) as client:
        yield client


@pytest.mark.parametrize(
    ("target", "version"),
    [
        (Target("m", version=1), 1),
        (Target("m", label="stable"), 1),
        (Target("m", label="canary"), 2),
        (Target("m"), 2),
    ],
)
def test_the_version_that_is_asked_answers_and_says_so(
    target: Target, version: int, client: GrpcClient
) -> None:
    """By number, by label, and without either the highest."""
    words = Tensor.of([b"a", b"\xff"], DType.STRING)

    answer = client.predict(target, {"x": Tensor.of([[1.5], [-2.0]]), "words": words})

    assert answer.version == version
    assert answer.outputs["x"].nested() == [[1.5 * version], [-2.0 * version]]
    assert answer.outputs["words"] == words


@pytest.mark.parametrize("target", [Target("m", version=9), Target("m", label="beta")])
def test_what_is_not_there(target: Target, client: GrpcClient) -> None:
    """NOT_FOUND for a version, INVALID_ARGUMENT for a label: both mean another version."""
    with pytest.raises(NotServed):
        client.predict(target, {"x": Tensor.of([1.0])})


def test_states(client: GrpcClient) -> None:
    """By name; a model that was never seen is an error."""
    assert client.states("m") == {2: "AVAILABLE", 1: "AVAILABLE"}
    with pytest.raises(NotServed):
        client.states("other")


def test_a_server_that_is_gone_for_a_moment_is_asked_again(client: GrpcClient, service: Service) -> None:
    """By gRPC itself, within the deadline, which the server is told."""
    service.failures = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]

    assert client.predict(Target("m"), {"x": Tensor.of([1.0])}).version == 2
    assert len(service.deadlines) == 3
    assert all(seconds < 6 for seconds in service.deadlines)  # gRPC rounds it


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION])
def test_an_error_of_the_model_is_not_asked_again(
    code: grpc.StatusCode, client: GrpcClient, service: Service
) -> None:
    """It would be the same."""
    service.failures = [code]

    with pytest.raises(grpc.RpcError) as caught:
        client.predict(Target("m"), {"x": Tensor.of([1.0])})

    assert caught.value.code() is code
    assert len(service.deadlines) == 1


def test_as_a_program(running: tuple[str, Service], service: Service) -> None:
    """Output as JSON, errors on stderr with exit code 1."""
    program = str(Path(__file__).parents[2] / "examples" / "grpc_client.py")
    command = [sys.executable, program, "--address", running[0], "--model", "m"]

    done = subprocess.run([*command, "--version", "2", "predict", "[[1.0]]"], capture_output=True, check=True)
    gone = subprocess.run(
        [*command, "--version", "9", "predict", "[[1.0]]"], capture_output=True, text=True, check=False
    )

    assert json.loads(done.stdout) == {"version": 2, "outputs": {"x": [[2.0]]}}
    assert gone.returncode == 1
    assert gone.stderr.startswith("NotServed: Servable not found")


def test_the_other_ways_of_the_program(
    running: tuple[str, Service], service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts, the status, and a failure by its code."""
    options = ["--address", running[0], "--model", "m"]

    assert grpc_client.main([*options, "--dtype", "STRING", "predict", '["a"]']) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {"x": ["a"]}
    assert grpc_client.main([*options, "status"]) == 0
    assert json.loads(capsys.readouterr().out) == {"2": "AVAILABLE", "1": "AVAILABLE"}
    service.failures = [grpc.StatusCode.INTERNAL]
    assert grpc_client.main([*options, "predict", "[1.0]"]) == 1
    assert capsys.readouterr().err == "INTERNAL: for the test\n"


def test_against_the_real_server(tmp_path: Path) -> None:
    """The same, where tensorflow_model_server is on PATH."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM} on PATH")
    subprocess.run([sys.executable, "-m", "servesync.demo.models", str(tmp_path / "m")], check=True)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}/m" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }"
    )
    port = ModelServer.free_port()
    with ModelServer(config, tmp_path / "server.log", grpc_port=port) as server:
        server.wait_ready(120)
        with GrpcClient(f"127.0.0.1:{port}") as client:
            deadline = time.monotonic() + 40
            while client.states("m") != {2: "AVAILABLE", 1: "AVAILABLE"}:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            answer = client.predict(Target("m", version=2), {"x": Tensor.of([[1.0]])})
            with pytest.raises(NotServed):
                client.predict(Target("m", version=9), {"x": Tensor.of([[1.0]])})

    assert answer.version == 2
    assert answer.outputs["y"].nested() == [[pytest.approx(3.0, abs=0.05)]]
