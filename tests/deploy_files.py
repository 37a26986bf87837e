"""The deploy files, read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from settings_texts import ROOT

DEPLOY: Final = ROOT / "deploy"
DOCKER: Final = DEPLOY / "docker"
KUBERNETES: Final = DEPLOY / "kubernetes"


def named(path: Path) -> str:
    """Return a file's name for the list of tests."""
    return str(path.relative_to(DEPLOY))


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of a YAML stream."""
    yield from (item for item in yaml.safe_load_all(text) if item)


def pod() -> Any:
    """Return the pod of the Kubernetes base."""
    return yaml.safe_load((KUBERNETES / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]
