"""No command, no endpoint and no line of the log shows a secret, whatever goes wrong with it."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import forked
from admin_client import AdminClient
from agent_box import AgentBox
from big_models import LONG, files_of, small_archive
from faulty_proxy import Exchange, FaultyProxy, s3_error
from fixtures_store import Bucket

ID, SECRET, TOKEN = "AKIACANARY00CANARY00WXYZ", "CANARY1/secret+CANARY1", "CANARY2//token//CANARY2=="
PASSWORD = "CANARY3:pass/word@CANARY3"
ENDPOINTS = ("/", "/status", "/metrics", "/readyz", "/livez", "/startupz")


@dataclass
class CanaryBox(AgentBox):
    """An agent whose environment is all canaries; `variables` come on top."""

    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return the environment of every command."""
        keys = {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
        files = {
            "AWS_CONFIG_FILE": f"{self.folder}/aws-config",
            "AWS_SHARED_CREDENTIALS_FILE": f"{self.folder}/aws-credentials",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        found = super().environment() | keys | files | self.variables
        return {name: value for name, value in found.items() if value}


@pytest.fixture
def canaries(tmp_path: Path, bucket: Bucket) -> CanaryBox:
    """The agent's folder and settings; nothing runs yet."""
    return CanaryBox(tmp_path, bucket.server.endpoint_url, bucket.name, "", "")


@pytest.fixture
def echoing(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A store that quotes every header in its refusals."""

    def echo(exchange: Exchange) -> None:
        s3_error(403, "AccessDenied", " ".join(exchange.headers.values()))(exchange)

    with FaultyProxy(bucket.server.port, fault=echo) as proxy:
        yield proxy


Plant = Callable[[CanaryBox, FaultyProxy], None]
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": ""}


def flawed_token(box: CanaryBox, _: FaultyProxy) -> None:
    """A Secret made by `echo`."""
    box.variables = {"AWS_SESSION_TOKEN": TOKEN + "\n"}


def flawed_id(box: CanaryBox, _: FaultyProxy) -> None:
    """The same of the access key id."""
    box.variables = {"AWS_ACCESS_KEY_ID": ID + "\n"}


def failing_program(box: CanaryBox, _: FaultyProxy) -> None:
    """A credential_process that prints secrets, and nothing that can be read."""
    box.variables = NO_KEYS
    (box.folder / "aws-config").write_text(f"[default]\ncredential_process = echo {SECRET} {TOKEN} {ID}\n")


def broken_file(box: CanaryBox, _: FaultyProxy) -> None:
    """A credentials file with a line that is none."""
    box.variables = NO_KEYS
    (box.folder / "aws-credentials").write_text(f"[default]\n{TOKEN}\naws_secret_access_key\n")


def quoting_store(box: CanaryBox, echoing: FaultyProxy) -> None:
    """A store whose refusals quote what they were asked with."""
    box.endpoint_url = echoing.endpoint_url


def proxy_with_password(box: CanaryBox, _: FaultyProxy) -> None:
    """A proxy of the environment whose password is not quoted as it should be."""
    box.endpoint_url = "http://store.invalid"
    box.overrides = {"store": {"allow_insecure_endpoint": True}}
    box.variables = {"HTTP_PROXY": f"http://user:{PASSWORD}@127.0.0.1:9"}


REASONS = {
    flawed_token: "store_credentials",
    flawed_id: "store_credentials",
    failing_program: "store_credentials",
    broken_file: "store_credentials",
    quoting_store: "store_denied",
    proxy_with_password: "store_unreachable",
}
PLANTS = [pytest.param(plant, reason, id=plant.__name__) for plant, reason in REASONS.items()]
OF_RUN = (flawed_token, failing_program, quoting_store, proxy_with_password)
RUNNING = [
    pytest.param(plant, REASONS[plant], id=plant.__name__) for plant in REASONS if LONG or plant in OF_RUN
]
ALL_COMMANDS = (flawed_token, quoting_store)
FEW = ("plan", "doctor", "publish")


def assert_shows_no_secret(text: str) -> None:
    """Make sure that no canary is in there, nor a piece of one, nor Python's traceback."""
    assert "CANARY" not in text, re.findall(r".{80}CANARY.{20}", text)
    assert "Traceback (most recent" not in text


def told(done: "subprocess.CompletedProcess[str]") -> str:
    """Return all that a command wrote."""
    return done.stdout + done.stderr


def commands(box: CanaryBox, model: Path) -> dict[str, list[str]]:
    """Return each command that asks the store, but `run`."""
    return {
        "plan": ["plan", "--json"],
        "sync": ["sync"],
        "doctor": ["doctor", "--json"],
        "publish": ["publish", str(model), "--model", "m", "--version", "7"],
        "manifest": ["manifest", f"s3://{box.bucket}/prod/m/1.tar.gz"],
        "promote": ["promote", "m", "1", "--channel", "stable"],
        "channels": ["channels", "m"],
    }


@pytest.mark.parametrize(("plant", "reason"), PLANTS)
def test_no_command_shows_a_secret(
    plant: Plant, reason: str, canaries: CanaryBox, echoing: FaultyProxy, real_models: Path
) -> None:
    """Each says the reason; `doctor` and `plan` as JSON, too."""
    plant(canaries, echoing)
    model = real_models / "plain_module"

    for name, command in commands(canaries, model).items():
        if not (LONG or name in FEW or plant in ALL_COMMANDS):
            continue
        text = told(canaries.call(*command))
        assert_shows_no_secret(text)
        assert "internal_error" not in text
        assert reason in text or name == "doctor", text


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_no_level_of_the_log_shows_a_secret(level: str, canaries: CanaryBox, echoing: FaultyProxy) -> None:
    """The libraries' own debug output is off at all of them."""
    canaries.overrides = {"log": {"level": level}}
    quoting_store(canaries, echoing)

    assert_shows_no_secret(told(canaries.call("sync")))


@pytest.mark.parametrize(("plant", "reason"), RUNNING)
def test_no_endpoint_of_a_running_agent_shows_a_secret(
    plant: Plant, reason: str, canaries: CanaryBox, echoing: FaultyProxy
) -> None:
    """It goes on polling, says the reason, and thins the lines out."""
    admin = AdminClient.listen(canaries)
    canaries.overrides.setdefault("log", {})["level"] = "debug"
    overrides = dict(canaries.overrides)
    plant(canaries, echoing)
    canaries.overrides = overrides | canaries.overrides
    with canaries.running():
        admin.await_listening()
        canaries.until(lambda: len(canaries.events("poll_failed")) > 1, "a second poll")
        shown = "".join(admin.ask(path).text for path in ENDPOINTS)
        assert admin.status()["troubles"][0]["reason"] == reason

    log = canaries.log.read_text()
    assert_shows_no_secret(shown + log)
    assert {line["reason"] for line in canaries.events("poll_failed")} == {reason}
    assert canaries.events("internal_error") == []


def test_a_running_agent_is_back_when_its_provider_is(
    canaries: CanaryBox, bucket: Bucket, real_models: Path
) -> None:
    """The program of the profile fails at first; once it prints keys, the version comes by itself."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
    failing_program(canaries, FaultyProxy(9))
    with canaries.running() as process:
        canaries.until(lambda: canaries.events("poll_failed"), "the failure")
        keys = {"AccessKeyId": bucket.server.access_key, "SecretAccessKey": bucket.server.secret_key}
        (canaries.folder / "keys").write_text(json.dumps({"Version": 1} | keys))
        (canaries.folder / "aws-config").write_text(
            f"[default]\ncredential_process = cat {canaries.folder}/keys\n"
        )
        canaries.until(lambda: canaries.numbers() == ["1"], "version 1")
        assert process.poll() is None

    (failed,) = {(line["reason"], line["facts"]["provider"]) for line in canaries.events("poll_failed")}
    assert failed == ("store_credentials", "custom-process")
    assert_shows_no_secret(canaries.log.read_text())


SETTINGS = {
    "store": {"endpoint_url": f"http://user:{PASSWORD}@store.example"},
    "serving": {"rest_url": f"http://user:{PASSWORD}@127.0.0.1:8501"},
}


@pytest.mark.parametrize("section", SETTINGS)
def test_a_password_in_the_settings_is_refused_and_not_shown(section: str, canaries: CanaryBox) -> None:
    """In the file and in the environment."""
    ((key, url),) = SETTINGS[section].items()
    canaries.variables = {f"SERVESYNC_{section}__{key}".upper(): url}

    texts = [told(canaries.call("plan")), told(canaries.call("doctor"))]
    canaries.variables = {}
    canaries.overrides = {section: {key: url}}
    texts += [told(canaries.call("plan")), told(canaries.call("doctor"))]

    for text in texts:
        assert_shows_no_secret(text)
        assert key in text
        assert "password" in text


def test_keys_in_the_url_of_the_store_are_refused_and_not_shown(
    canaries: CanaryBox, real_models: Path
) -> None:
    """As some tools take them."""
    url = f"s3://{ID}:{SECRET}@{canaries.bucket}/prod"
    model = str(real_models / "plain_module")
    canaries.overrides = {"store": {"url": url}}
    command = [*canaries.command("publish", model, "--model", "m", "--version", "1")]
    at = command.index("-c")
    command[at : at + 2] = ["--store", url]
    done = forked.call(command, canaries.environment(), 120)

    for text in (told(canaries.call("plan")), told(canaries.call("doctor")), told(done)):
        assert_shows_no_secret(text)
        assert "s3://BUCKET" in text
