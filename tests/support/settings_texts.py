"""Finds the settings that stand in deploy files and documents, and loads them as the agent would."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from servesync.settings import Settings
from servesync.settings_file import load_settings

ROOT: Final = Path(__file__).parents[2]
LEAST: Final[dict[str, Any]] = {
    "store": {"url": "s3://acme-models/prod"},
    "serving": {"models_dir": "/models"},
    "models": [{"name": "answer_bot"}],
}


def fenced(text: str, language: str) -> Iterator[str]:
    """Yield the fenced blocks of one language, in lists as well."""
    for indent, body in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))


def documents() -> list[Path]:
    """Return every document of the project for people."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    return sorted(found)


def settings_texts() -> dict[str, str]:
    """Return every text in deploy files and documents that is settings, whole or in part, by its place."""
    found = {}
    for path in sorted((ROOT / "deploy").rglob("*.yaml")):
        if path.name in {"servesync.yaml", "settings.yaml"}:
            found[str(path.relative_to(ROOT))] = path.read_text()
    for path in documents():
        for number, block in enumerate(fenced(path.read_text(), "yaml")):
            if is_settings(block):
                found[f"{path.relative_to(ROOT)} block {number}"] = block
    return found


def is_settings(text: str) -> bool:
    """Tell whether a YAML document has sections of the settings, and nothing else."""
    value = yaml.safe_load(text)
    known = set(Settings.model_fields)
    return isinstance(value, dict) and bool(value) and set(value) <= known


def load(text: str, folder: Path) -> Settings:
    """Load settings strictly, with what every file needs where a document shows only a part."""
    value: dict[str, Any] = yaml.safe_load(text)
    for section, least in LEAST.items():
        there = value.get(section)
        value[section] = least | there if isinstance(there, dict) else there or least
    file = folder / "servesync.yaml"
    file.write_text(yaml.safe_dump({name: part for name, part in value.items() if part != {}}))
    return load_settings(file, {})
