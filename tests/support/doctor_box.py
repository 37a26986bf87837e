"""Runs the doctor on an agent's settings, and looks for what it says."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_box import AgentBox
from fixtures_store import Bucket
from servesync.doctor import Check, Finding, Level, examine

KEPT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass
class Ward:
    """A healthy agent's folder, bucket and environment, for a test to spoil."""

    box: AgentBox
    bucket: Bucket
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        """Begin with one release, a models directory, and no variable of this machine."""
        for name in [*os.environ]:
            outer = name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "REQUESTS_CA_BUNDLE"
            if outer and name not in KEPT:
                self.monkeypatch.delenv(name)
        self.setenv(AWS_EC2_METADATA_DISABLED="true", HOME=str(self.box.folder))
        self.bucket.put("prod/m/1.tar.gz", b"an archive")
        self.box.models_dir.mkdir()
        self.box.overrides = {"poll": {"interval_seconds": 10, "jitter_seconds": 2}}

    def setenv(self, **variables: str) -> None:
        """Set variables of the environment."""
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def unset(self, *names: str) -> None:
        """Remove variables of the environment."""
        for name in names:
            self.monkeypatch.delenv(name)

    def set(self, section: str, **keys: object) -> None:
        """Change settings of one section."""
        self.box.overrides.setdefault(section, {}).update(keys)

    def wants(self, *models: dict[str, object]) -> None:
        """Change which models are wanted."""
        self.box.models = [*models]

    def examined(self, show_keys: int = 10) -> list[Finding]:
        """Return what the doctor finds now."""
        return self.examined_at(self.box.write_settings(), show_keys)

    def examined_at(self, config: Path, show_keys: int = 10) -> list[Finding]:
        """Return what the doctor finds with a settings file."""
        return list(examine(config, os.environ, show_keys))


def failures(findings: Sequence[Finding]) -> list[Check]:
    """Return the checks that fail."""
    return [finding.check for finding in findings if finding.level is Level.FAIL]


def assert_says(findings: Sequence[Finding], check: str, level: str, *words: str) -> None:
    """Make sure that one finding of a check has this level, and all of these words in text or advice."""
    told = [item for item in findings if item.check.value == check and item.level.value == level]
    texts = [f"{item.subject}: {item.text} -> {item.advice}" for item in told]
    fits = [text for text in texts if all(word in text for word in words)]
    everything = "\n".join(f"{item.level} {item.check} {item.text} -> {item.advice}" for item in findings)
    assert fits, f"no {level} of {check} with {words}:\n{everything}"
    assert all(item.advice for item in told if item.level is not Level.OK)
