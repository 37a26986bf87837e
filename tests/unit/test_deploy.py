"""The deploy files: each passes the validator of its kind, and all agree with the agent and each other."""

import importlib.metadata
import json
import re
import shlex
import tomllib
from pathlib import Path

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tools
from deploy_files import DEPLOY, DOCKER, pod, tasks_containers, unit_values
from servesync.demo.standin.flags import Flags, parse_flags
from settings_texts import ROOT, load, settings_texts

# -- settings and flags ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", settings_texts())
def test_settings_load(place: str, tmp_path: Path) -> None:
    """In deploy files and in documents: no unknown key, no value out of bounds."""
    load(settings_texts()[place], tmp_path)


def test_settings_are_found() -> None:
    """The test above would be content with nothing."""
    places = settings_texts()
    assert {"deploy/kubernetes/base/servesync.yaml", "README.md block 0"} <= set(places)
    assert len(places) >= 7


def server_arguments() -> dict[str, list[str]]:
    """Return the server's arguments, by the file that has them."""
    container = pod()["containers"][0]
    (start,) = unit_values("tensorflow-model-server.service", "ExecStart")
    return {
        "kubernetes": container["args"],
        "compose": yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["server"]["command"],
        "ecs": tasks_containers()["server"]["command"],
        "systemd": [word for word in shlex.split(start) if word.startswith("--")],
    }


@pytest.mark.parametrize("where", server_arguments())
def test_the_server_is_told_the_same_everywhere(where: str) -> None:
    """Every flag exists, and has the value that the agent counts on."""
    flags, unknown = parse_flags(server_arguments()[where])

    assert unknown == []
    assert flags == Flags(
        port=8500,
        rest_api_port=8501,
        model_config_file=flags.model_config_file,
        model_config_file_poll_wait_seconds=30,
        file_system_poll_wait_seconds=1,
        max_num_load_retries=0,
        num_load_threads=2,
        num_unload_threads=1,
        allow_version_labels_for_unavailable_models=True,
        monitoring_config_file=flags.monitoring_config_file,  # where `servesync drain` is called
    )
    settings = {
        "kubernetes": "kubernetes/base/servesync.yaml",
        "compose": "docker/servesync.yaml",
        "ecs": "ecs/settings.yaml",
        "systemd": "systemd/servesync.yaml",
    }
    serving = yaml.safe_load((DEPLOY / settings[where]).read_text())["serving"]
    assert serving["config_file"] == flags.model_config_file
    key = "allow_version_labels_for_unavailable_models"
    assert serving[key] == getattr(flags, key)
    assert Path(flags.model_config_file).is_relative_to(serving["models_dir"])


# -- Docker, ECS, Consul -----------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile."""
    done = tools.run(tools.find("hadolint"), "--failure-threshold", "style", DOCKER / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_images_run_the_agent_as_a_user() -> None:
    """No root, no shell in between, and the check that is not one of the settings."""
    text = (DOCKER / "Dockerfile").read_text()
    assert "USER 10001:10001" in text
    assert 'ENTRYPOINT ["servesync"]' in text
    assert set(re.findall(r"^FROM runtime AS (\w+)$", text, re.MULTILINE)) == {"slim", "full"}
    images = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE)
    assert [bool(re.fullmatch(r"python:3\.\d+-slim-\w+", image)) for image in images] == [True]


def pins(path: Path) -> dict[str, str]:
    """Return each pinned package with its version and hashes."""
    blocks = re.findall(r"^([\w.-]+)(==.*(?:\\\n.*)*)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): re.sub(r"\s*\\\n\s*", " ", rest) for name, rest in blocks}


@pytest.mark.parametrize("kind", ["build", "slim", "full"])
def test_images_are_made_from_the_pinned_packages(kind: str) -> None:
    """The same versions and hashes as everywhere (`make image-pins` takes them from there)."""
    ours, all_pins = pins(DOCKER / f"requirements.{kind}.txt"), pins(ROOT / "constraints.txt")
    version = re.compile(r"==[^ ;]+")

    assert ours
    for name, text in ours.items():
        there = all_pins[name]
        assert version.findall(text)[:1] == version.findall(there)[:1], f"{name}: run make image-pins"
        assert set(re.findall(r"sha256:\w+", text)) == set(re.findall(r"sha256:\w+", there)), name


@pytest.mark.parametrize(("kind", "extras"), [("build", ()), ("slim", ()), ("full", ("tensorflow",))])
def test_images_have_every_package_that_is_needed(kind: str, extras: tuple[str, ...]) -> None:
    """Everything that the installed package asks for, and what that asks for."""
    ours = set(pins(DOCKER / f"requirements.{kind}.txt"))
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    start = [Requirement(text) for text in build] if kind == "build" else our_requirements(extras)
    missing = {name for name in closure(start) if name not in ours}

    assert missing == set(), "run make image-pins"


def our_requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """Return what `pyproject.toml` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more = [text for extra in extras for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in [*project["dependencies"], *more]]


def requirements_of(name: str, extras: tuple[str, ...]) -> list[Requirement]:
    """Return what an installed package asks for on this machine."""
    found = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    chosen: tuple[str, ...] = extras or ("",)
    return [
        item
        for item in found
        if item.marker is None or any(item.marker.evaluate({"extra": extra}) for extra in chosen)
    ]


def closure(start: list[Requirement]) -> set[str]:
    found: dict[str, None] = {}
    waiting = list(start)
    while waiting:
        item = waiting.pop()
        name = canonicalize_name(item.name)
        if name in found:
            continue
        found[name] = None
        waiting += requirements_of(name, tuple(item.extras))
    return set(found)


def test_docker_compose_accepts_the_file() -> None:
    """`docker compose config`: the file is whole, and its variables and references resolve."""
    done = tools.run(
        tools.find("docker-compose"), "-f", DOCKER / "compose.yaml", "config", "--format", "json"
    )
    assert done.returncode == 0, done.stderr

    found = json.loads(done.stdout)["services"]
    assert found["server"]["depends_on"]["servesync"]["condition"] == "service_healthy"
    assert found["server"]["init"] is True
    assert found["servesync"]["environment"]["SERVESYNC_MEMORY__LIMIT_BYTES"] == found["server"]["mem_limit"]
    assert {item["source"] for item in found["servesync"]["configs"]} == {"settings"}
    assert found["server"]["volumes"][0]["read_only"] is True
    assert found["store"]["stop_grace_period"] == "1m0s"


def test_ecs_accepts_the_task_definition() -> None:
    """By botocore's own model of the service."""
    task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    assert ParamValidator().validate(task, shape).generate_report() == ""

    containers = {item["name"]: item for item in task["containerDefinitions"]}
    assert containers["server"]["dependsOn"] == [{"containerName": "servesync", "condition": "HEALTHY"}]
    assert containers["servesync"]["healthCheck"]["command"][1:4] == ["servesync", "probe", "startupz"]
    volumes = {item["name"] for item in task["volumes"]}
    assert {m["sourceVolume"] for item in containers.values() for m in item["mountPoints"]} == volumes
    assert containers["settings"]["mountPoints"][0]["containerPath"] == "/etc/servesync"


def test_consul_asks_whether_the_instance_is_ready() -> None:
    """An instance is in the catalogue's answers only while the server serves what is required."""
    service = json.loads((DEPLOY / "systemd/consul-service.json").read_text())["service"]
    ready, port = service["checks"]
    assert ready["http"] == "http://127.0.0.1:9494/readyz"
    assert ready["status"] == port["status"] == "critical"
    assert port["tcp"] == f"127.0.0.1:{service['port']}"
