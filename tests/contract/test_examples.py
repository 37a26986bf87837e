"""The examples for callers, over REST, against a server that serves two versions under labels."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import httpx
import pytest

import ab_test
import rest_client
from ab_test import Arm
from forked_server import ModelServer
from rest_client import NotServed, Rejected, RestClient, Target, Unreachable
from servesync.demo.server import FLAGS, PROGRAM

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = {"stable": 1, "canary": 2}
SECONDS = 40.0


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """Two models, `m` and `leaving`, with the two versions of the demo: y = 2x + 1, and a bad guess at it."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("m", "leaving"):
        shutil.copytree(exported, folder / name)
    return folder


@pytest.fixture(scope="module", params=["stand-in", PROGRAM])
def server(
    request: pytest.FixtureRequest, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server for both, with labels."""
    if request.param == PROGRAM and shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM} on PATH")
    folder = tmp_path_factory.mktemp("server")
    labels = " ".join(f'version_labels {{ key: "{key}" value: {value} }}' for key, value in LABELS.items())
    (folder / "models.config").write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{models_dir / name}" model_platform: "tensorflow" '
            f"model_version_policy {{ all {{}} }} {labels} }}\n"
            for name in ("m", "leaving")
        )
        + "}"
    )
    flags = (*FLAGS, "--allow_version_labels_for_unavailable_models")
    only_standin = request.param != PROGRAM
    config, log = folder / "models.config", folder / "server.log"
    with ModelServer(config, log, flags=flags, only_standin=only_standin) as server:
        server.wait_ready(120)
        with RestClient(server.url) as client:
            for name in ("m", "leaving"):
                wait_for(client, name, {2: "AVAILABLE", 1: "AVAILABLE"})
        yield server


@pytest.fixture
def client(server: ModelServer) -> Iterator[RestClient]:
    """A client of it."""
    with RestClient(server.url) as client:
        yield client


def wait_for(client: RestClient, model: str, states: dict[int, str]) -> None:
    """Wait until the server says this of a model."""
    deadline = time.monotonic() + SECONDS
    while (found := client.states(model)) != states:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("target", "version"),
    [
        (Target("m", version=1), 1),
        (Target("m", version=2), 2),
        (Target("m", label="stable"), 1),
        (Target("m", label="canary"), 2),
        (Target("m"), 2),
    ],
)
def test_the_version_that_is_asked_answers(target: Target, version: int, client: RestClient) -> None:
    """By number, by label, and without either the highest."""
    [[y], [z]] = client.predict(target, [[1.0], [2.0]])

    assert (y == pytest.approx(3.0, abs=0.05)) == (version == 2)
    assert (z == pytest.approx(5.0, abs=0.05)) == (version == 2)


@pytest.mark.parametrize(
    "target",
    [Target("m", version=9), Target("m", label="beta"), Target("other"), Target("other", version=1)],
)
def test_what_is_not_there_is_told_apart_from_a_bad_request(target: Target, client: RestClient) -> None:
    """A version that is unknown is a 404, a label that is unknown a 400: both mean another version."""
    with pytest.raises(NotServed):
        client.predict(target, [[1.0]])


@pytest.mark.parametrize("instances", [[], [["text"]], [[1.0, 2.0], [1.0]]])
def test_a_request_that_does_not_fit_is_rejected(instances: list[object], client: RestClient) -> None:
    """Another try, or another version, would not help."""
    with pytest.raises(Rejected, match="HTTP 400"):
        client.predict(Target("m"), instances)


def test_states_and_signatures(client: RestClient) -> None:
    """What is loaded, and what it takes and gives."""
    assert client.states("m") == {2: "AVAILABLE", 1: "AVAILABLE"}
    signature = client.signatures(Target("m", label="stable"))["serving_default"]
    assert set(signature["inputs"]) == {"x"}
    assert set(signature["outputs"]) == {"y"}


def test_nobody_there() -> None:
    """As before the first version is loaded: the port is closed."""
    url = f"http://127.0.0.1:{ModelServer.free_port()}"

    with RestClient(url, tries=2) as client, pytest.raises(Unreachable, match="tried 2 times"):
        client.predict(Target("m"), [[1.0]])


def test_users_of_a_version_that_left_get_another_and_it_is_told(
    client: RestClient, models_dir: Path, server: ModelServer
) -> None:
    """The arm of the others stays as it was; when the last arm is gone, that is an error."""
    arms = [Arm(Target("leaving", version=1), 1), Arm(Target("leaving", version=2), 1)]
    users = [f"user-{number}" for number in range(20)]
    before = {user: ab_test.ask(client, "e", arms, user, [[1.0]]) for user in users}
    assert {answer.answered for answer in before.values()} == {"1", "2"}
    assert all(answer.answered == answer.assigned for answer in before.values())

    home, away = models_dir / "leaving" / "2", models_dir / "away"
    home.rename(away)
    try:
        wait_for(client, "leaving", {2: "END", 1: "AVAILABLE"})
        after = {user: ab_test.ask(client, "e", arms, user, [[1.0]]) for user in users}
        with pytest.raises(NotServed, match="none of 2"):
            ab_test.ask(client, "e", arms[1:], "anna", [[1.0]])
        with pytest.raises(NotServed):  # the label is still known, its version is not
            client.predict(Target("leaving", label="canary"), [[1.0]])
    finally:
        away.rename(home)
        wait_for(client, "leaving", {2: "AVAILABLE", 1: "AVAILABLE"})

    assert {answer.answered for answer in after.values()} == {"1"}
    assert {user: answer.assigned for user, answer in after.items()} == {
        user: answer.assigned for user, answer in before.items()
    }


# -- the programs ---------------------------------------------------------------------------------------


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example as its reader would."""
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_rest_client_as_a_program(server: ModelServer) -> None:
    """Without this repository on the path."""
    options = ["--url", server.url, "--model", "m", "--version", "2"]

    done = run("rest_client.py", *options, "predict", "[[1.0]]")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[pytest.approx(3.0, abs=0.05)]]


def test_ab_test_as_a_program(server: ModelServer) -> None:
    """One line for each user."""
    options = ["--url", server.url, "--model", "m", "--arm", "stable=50", "--arm", "canary=50"]

    done = run("ab_test.py", *options, *(f"--user={number}" for number in range(10)), "[[1.0]]")

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["answered"] for answer in answers} == {"stable", "canary"}
    is_good = {answer["answered"]: abs(answer["predictions"][0][0] - 3.0) < 0.05 for answer in answers}
    assert is_good == {"stable": False, "canary": True}


def test_the_other_commands(server: ModelServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Status and signatures as JSON on stdout; errors as a line on stderr, and exit code 1."""
    options = ["--url", server.url, "--model", "m"]

    assert rest_client.main([*options, "status"]) == 0
    assert json.loads(capsys.readouterr().out) == {"2": "AVAILABLE", "1": "AVAILABLE"}
    assert rest_client.main([*options, "signatures"]) == 0
    assert "serving_default" in json.loads(capsys.readouterr().out)
    assert rest_client.main([*options, "--version", "9", "predict", "[[1]]"]) == 1
    assert capsys.readouterr().err.startswith("NotServed: ")
    assert ab_test.main([*options, "--arm", "9=1", "--user", "anna", "[[1]]"]) == 1
    assert capsys.readouterr().err.startswith("NotServed: ")


# -- trying again ---------------------------------------------------------------------------------------


class Scripted(BaseHTTPRequestHandler):
    """Answers by a script: a status, None to cut the connection, or a number of seconds to be silent for."""

    script: ClassVar[list[int | float | None]]
    asked: ClassVar[list[str]]

    def do_POST(self) -> None:
        """Take the next step; the last one again and again."""
        step = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        if step is None:
            return
        if isinstance(step, float):
            time.sleep(step)
            return
        body = json.dumps({"predictions": [1.0]} if step == httpx.codes.OK else {"error": "why"}).encode()
        self.send_response(step)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def outcome(script: list[int | float | None], tries: int = 3) -> tuple[str, int]:
    """Return what came of one call, and how many requests it took."""
    asked: list[str] = []
    handler = type("Bound", (Scripted,), {"script": script, "asked": asked})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with RestClient(url, timeout_seconds=0.2, tries=tries) as client:
            try:
                said = str(client.predict(Target("m"), [[1.0]]))
            except (Rejected, Unreachable, NotServed) as error:
                said = type(error).__name__
        server.shutdown()
    return said, len(asked)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([503, 200], ("[1.0]", 2)),
        ([429, None, 200], ("[1.0]", 3)),
        ([503], ("Unreachable", 3)),
        ([None], ("Unreachable", 3)),
        ([400], ("Rejected", 1)),
        ([500], ("Rejected", 1)),
        ([504], ("Rejected", 1)),
        ([404], ("NotServed", 1)),
        ([0.5, 200], ("Unreachable", 1)),
    ],
)
def test_what_is_tried_again(script: list[int | float | None], expected: tuple[str, int]) -> None:
    """Only what a second request may change, and never a slow answer."""
    assert outcome(script) == expected
