"""What stands in several deploy files, or in one and in a document, agrees: ports, memory, probes, rights."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_files import DEPLOY, DOCKER, KUBERNETES, SYSTEMD, pod, tasks_containers, unit_values
from servesync.settings import Settings
from servesync.settings_file import load_settings
from settings_texts import ROOT, fenced

SERVER_UNIT = "tensorflow-model-server.service"
MIB = 1 << 20
SETTINGS = {
    "systemd": SYSTEMD / "servesync.yaml",
    "ecs": DEPLOY / "ecs/settings.yaml",
    "docker": DOCKER / "servesync.yaml",
    **{str(path.parent.relative_to(DEPLOY)): path for path in sorted(KUBERNETES.rglob("servesync.yaml"))},
}


def in_bytes(text: str) -> int:
    """Return a size as systemd (`14G`) and Kubernetes (`14Gi`) write it: both mean powers of 1024."""
    number, unit = re.fullmatch(r"(\d+)([KMG])i?", text).groups()  # type: ignore[union-attr]
    return int(number) * {"K": 1 << 10, "M": MIB, "G": 1 << 30}[unit]


def settings(where: str, environment: dict[str, str] | None = None) -> Settings:
    """Return the settings of a deployment, as its agent would load them."""
    return load_settings(SETTINGS[where], environment or {})


def from_downward_api() -> dict[str, str]:
    """Return the environment that Kubernetes makes for the agent: a container's limit, in bytes."""
    (agent,) = pod()["initContainers"]
    containers = {item["name"]: item for item in pod()["containers"]}
    made = {}
    for variable in agent["env"]:
        field = variable["valueFrom"]["resourceFieldRef"]
        kind, _, resource = field["resource"].partition(".")
        made[variable["name"]] = str(
            in_bytes(containers[field["containerName"]]["resources"][kind][resource])
        )
    return made


def limits_of_servers() -> dict[str, int]:
    """Return the memory limit of the server's container or unit, by deployment."""
    kubernetes = in_bytes(pod()["containers"][0]["resources"]["limits"]["memory"])
    return {
        "systemd": in_bytes(unit_values(SERVER_UNIT, "MemoryMax")[0]),
        "ecs": tasks_containers()["server"]["memory"] * MIB,
        **{where: kubernetes for where in SETTINGS if where.startswith("kubernetes")},
    }


@pytest.mark.parametrize("where", [where for where in SETTINGS if where != "docker"])
def test_the_agent_knows_the_servers_limit(where: str) -> None:
    """It cannot see it from its own container or unit, and without it nothing is compared."""
    environment = from_downward_api() if where.startswith("kubernetes") else {}

    assert settings(where, environment).memory.limit_bytes == limits_of_servers()[where]


def test_the_task_has_the_memory_of_its_containers() -> None:
    """ECS does not register a task whose containers may use more than the task."""
    task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())

    assert sum(item.get("memory", 0) for item in task["containerDefinitions"]) <= int(task["memory"])


def test_the_document_shows_the_servers_container() -> None:
    """The name in docs/memory.md is that of the manifests."""
    shown = re.findall(r"containerName: ([\w-]+)", (ROOT / "docs/memory.md").read_text())

    assert shown == [pod()["containers"][0]["name"]]


def asked_ports() -> dict[str, list[tuple[str, str]]]:
    """Return `(deployment, port)` of everything that asks the agent, by file."""
    kubernetes = [where for where in SETTINGS if where.startswith("kubernetes")]
    (agent,) = pod()["initContainers"]
    ports = {item["name"]: str(item["containerPort"]) for item in agent["ports"]}
    probed = [
        ports[agent[f"{name}Probe"]["httpGet"]["port"]] for name in ("startup", "readiness", "liveness")
    ]
    annotations = yaml.safe_load((KUBERNETES / "base/deployment.yaml").read_text())["spec"]["template"]
    probed.append(annotations["metadata"]["annotations"]["prometheus.io/port"])
    policy = yaml.safe_load((KUBERNETES / "components/network-policy/networkpolicy.yaml").read_text())
    probed.append(str(policy["spec"]["ingress"][1]["ports"][0]["port"]))
    consul = json.loads((SYSTEMD / "consul-service.json").read_text())["service"]
    ecs = tasks_containers()["servesync"]
    checks = {
        "unit": ("systemd", re.findall(r"http://127.0.0.1:(\d+)/", unit_values(SERVER_UNIT, "ExecStart")[0])),
        "consul": ("systemd", re.findall(r"http://127.0.0.1:(\d+)/", consul["checks"][0]["http"])),
        "consul's meta": ("systemd", [consul["meta"]["admin_port"]]),
        "ecs's mapping": ("ecs", [str(item["containerPort"]) for item in ecs["portMappings"]]),
    }
    found = {name: [(where, port) for port in seen] for name, (where, seen) in checks.items()}
    return found | {"kubernetes": [(where, port) for where in kubernetes for port in probed]}


@pytest.mark.parametrize("name", asked_ports())
def test_whoever_asks_the_agent_knows_its_port(name: str) -> None:
    """It is `admin.port` of the settings that the file is shipped with."""
    found = asked_ports()[name]

    assert found
    assert [(where, port) for where, port in found if str(settings(where).admin.port) != port] == []


def test_consul_knows_the_servers_port() -> None:
    """The service's port is the one that the server is told."""
    service = json.loads((SYSTEMD / "consul-service.json").read_text())["service"]
    flags = unit_values(SERVER_UNIT, "ExecStart")[0].split()

    assert f"--rest_api_port={service['port']}" in flags
    assert f"--port={service['meta']['grpc_port']}" in flags
    assert settings("systemd").serving.rest_url == f"http://127.0.0.1:{service['port']}"


def probes_of(text: dict[str, Any]) -> dict[str, tuple[object, ...]]:
    """Return what a kubelet is told of each probe, but for the port's name or number."""
    keys = ("periodSeconds", "timeoutSeconds", "failureThreshold")
    names = ("startupProbe", "readinessProbe", "livenessProbe")
    return {name: (text[name]["httpGet"]["path"], *(text[name].get(key) for key in keys)) for name in names}


def test_the_document_shows_the_probes_of_the_manifests() -> None:
    """docs/admin.md and the base have the same numbers."""
    (shown,) = [yaml.safe_load(text) for text in fenced((ROOT / "docs/admin.md").read_text(), "yaml")]
    (agent,) = pod()["initContainers"]

    assert probes_of(shown) == probes_of(agent)


def test_consul_waits_as_long_as_the_document_says() -> None:
    """The check of /readyz asks the model server, and is given the time for that."""
    (text,) = fenced((ROOT / "docs/admin.md").read_text(), "json")
    check = json.loads(text)["check"]
    ready = json.loads((SYSTEMD / "consul-service.json").read_text())["service"]["checks"][0]

    assert check.items() <= ready.items()


# -- Amazon ECS --------------------------------------------------------------------------------------------


def test_the_first_container_leaves_what_the_others_need(tmp_path: Path) -> None:
    """Settings that load, and a directory in which the server's user may write; run as ECS would."""
    first, server = tasks_containers()["settings"], tasks_containers()["server"]
    folders = {item["containerPath"]: tmp_path / item["sourceVolume"] for item in first["mountPoints"]}
    program = " ".join(first["command"])
    for place, folder in folders.items():
        folder.mkdir(mode=0o755)
        program = program.replace(f"'{place}", f"'{folder}")
    variable = first["secrets"][0]["name"]
    environment = {**os.environ, variable: SETTINGS["ecs"].read_text()}
    subprocess.run([sys.executable, *first["entryPoint"][1:], program], env=environment, check=True)

    assert load_settings(folders["/etc/servesync"] / "servesync.yaml", {}) == settings("ecs")
    volumes = {item["containerPath"]: item["sourceVolume"] for item in server["mountPoints"]}
    assert (tmp_path / volumes["/tmp"]).stat().st_mode & 0o7777 == 0o1777


def test_an_agent_that_ends_does_not_end_the_task() -> None:
    """The server goes on; both are started again in place, with what lies on the volume."""
    containers = tasks_containers()

    assert {name for name, item in containers.items() if item["essential"]} == {"server"}
    again = {name for name, item in containers.items() if item.get("restartPolicy", {}).get("enabled")}
    assert again == {"servesync", "server"}


def test_ecs_may_do_what_the_task_asks_of_it() -> None:
    """The execution role: each log group and parameter of the task, in the task's account and region."""
    task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())
    policy = json.loads((DEPLOY / "iam/execution-ecs.json").read_text())["Statement"]
    allowed = {
        action: item["Resource"]
        for item in policy
        for action in ([item["Action"]] if isinstance(item["Action"], str) else item["Action"])
    }
    account = task["executionRoleArn"].split(":")[4]
    for container in task["containerDefinitions"]:
        options = container["logConfiguration"]["options"]
        prefix = f"arn:aws:logs:{options['awslogs-region']}:{account}:log-group:{options['awslogs-group']}"
        streams = f"{prefix}:log-stream:{options['awslogs-stream-prefix']}/*"
        assert allowed["logs:CreateLogStream"] == allowed["logs:PutLogEvents"] == streams
        for secret in container.get("secrets", []):
            assert allowed["ssm:GetParameters"] == secret["valueFrom"]
    steps = (DEPLOY / "ecs/README.md").read_text()
    assert f"create-log-group --log-group-name {options['awslogs-group']}" in steps
    for role in (task["executionRoleArn"], task["taskRoleArn"]):
        assert f"create-role --role-name {role.rpartition('/')[2]} " in steps
