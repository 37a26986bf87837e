"""The deploy files, read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from settings_texts import ROOT

DEPLOY: Final = ROOT / "deploy"
DOCKER: Final = DEPLOY / "docker"
KUBERNETES: Final = DEPLOY / "kubernetes"
SYSTEMD: Final = DEPLOY / "systemd"


def named(path: Path) -> str:
    """Return a file's name for the list of tests."""
    return str(path.relative_to(DEPLOY))


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of a YAML stream."""
    yield from (item for item in yaml.safe_load_all(text) if item)


def pod() -> Any:
    """Return the pod of the Kubernetes base."""
    return yaml.safe_load((KUBERNETES / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]


def tasks_containers() -> dict[str, Any]:
    """Return the containers of the ECS task, by name."""
    task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())
    return {item["name"]: item for item in task["containerDefinitions"]}


def unit_values(name: str, key: str) -> list[str]:
    """Return the values of a key of a systemd unit, with continued lines put together as systemd does."""
    text = re.sub(r"\\\n\s*", " ", (SYSTEMD / name).read_text())
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
