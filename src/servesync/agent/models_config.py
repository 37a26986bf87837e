"""Decides what `serving.config_file` says: models, base paths, policies, labels.

The content follows from the present file and the server's answers; the rules are in `planning.labels`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.agent.ports import Clock
from servesync.domain.versions import Model, Version, server_sees_version
from servesync.errors import ConfigFileError, Reason, ServerDown, ServerError
from servesync.install import Workspace
from servesync.planning.facts import Condition, Facts, ServerPolicy
from servesync.planning.labels import (
    Channel,
    EntryFacts,
    LabelFacts,
    Labels,
    Link,
    is_listed,
    next_labels,
    wanted_labels,
    would_be_taken,
)
from servesync.serving import models_config
from servesync.serving.models_config import Entry, Found, ModelsConfig
from servesync.settings import ModelSettings, Serving

MARGIN_SECONDS: Final = 5.0
"""By how much the server may read the file later than its poll interval says."""


def server_policy_of(serving: Serving, settings: ModelSettings) -> tuple[ServerPolicy, int]:
    """Return the policy that the server has for a model, and how many versions it serves by `latest`.

    Without a file of ours it is what the command line alone says: the highest.
    """
    policy = ServerPolicy(serving.version_policy)
    if serving.config_file is None or policy is ServerPolicy.ALL:
        return policy, 1
    versions = settings.versions
    if versions.latest is not None:
        return policy, versions.latest
    return (policy, len(set(versions.pin))) if versions.pin else (ServerPolicy.ALL, 1)


def labels_of(
    serving: Serving, settings: ModelSettings, channels: Mapping[str, Version]
) -> dict[str, Version | None]:
    """Return where each label of a model is to point; there are none if the server could not start with them.

    Args:
        serving: Whether there is a file to write labels to, and what the server was told.
        settings: The model's own labels, if it names any.
        channels: Where the model's channels in the store point, as far as is known.
    """
    if serving.config_file is None or not serving.allow_version_labels_for_unavailable_models:
        return {}
    targets: dict[str, Version | Channel] | None = None
    if settings.labels is not None:
        targets = {
            label: Channel(target.channel) if target.channel else Version(target.version or 0)
            for label, target in settings.labels.items()
        }
    return wanted_labels(targets, frozenset(settings.versions.channel or ()), channels)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the file is to say. `changes`: what that changes for the server; `problem`: why it may not be.

    `waiting`: for each label that does not point where it should, why.
    """

    path: Path
    config: ModelsConfig
    changes: tuple[str, ...]
    waiting: Mapping[tuple[Model, str], str]
    is_written: bool
    problem: ConfigFileError | None = None


@dataclass
class ConfigKeeper:
    """What is known of the file and of the server that reads it. It changes nothing on the disk."""

    path: Path
    serving: Serving
    workspace: Workspace
    clock: Clock
    one_pass: bool
    found: Found = field(init=False, default_factory=Found)
    _problem: ConfigFileError | None = field(init=False, default=None)
    _present: ModelsConfig = field(init=False, default_factory=ModelsConfig)
    _down_since: float | None = field(init=False, default=None)
    _taken_since: float | None = field(init=False, default=None)
    _to_leave: frozenset[Model] = field(init=False, default=frozenset())
    """Models that were not configured at the start or reload; their leaving may have failed then."""

    def under(self, serving: Serving, path: Path) -> "ConfigKeeper":
        """Return a keeper under other settings, which knows what this one has seen of the same file."""
        fresh = ConfigKeeper(path, serving, self.workspace, self.clock, self.one_pass)
        if (path, serving.rest_url) == (self.path, self.serving.rest_url):
            fresh.found, fresh._problem, fresh._present = self.found, self._problem, self._present
            fresh._down_since, fresh._taken_since = self._down_since, self._taken_since
        return fresh

    def read_file(self) -> None:
        """Read the file. While it cannot be read, or is gone, what it last said counts."""
        before = self.found.data
        try:
            self.found = models_config.read(self.path, self.found)
            self._problem = None
        except ConfigFileError as error:
            self._problem = error
            return
        if self.found.config is not None:
            self._present = self.found.config
        if self.found.data != before:
            self._taken_since = None

    def labelled(self, model: Model, wanted: Mapping[str, Version | None]) -> frozenset[Version]:
        """Return the versions that must stay: labels point to them, or soon will, or may in the server."""
        entry = self._present.models.get(model)
        written = frozenset(entry.labels.values()) if entry else frozenset()
        coming = frozenset(version for version in wanted.values() if version is not None)
        return written | coming | frozenset(self._present.leaving.get(model, ()))

    def record_answers(self, facts: Mapping[Model, Facts], server_error: ServerError | None) -> None:
        """Take note of whether the server answers, and whether it would take the file."""
        now = self.clock.monotonic()
        if not isinstance(server_error, ServerDown):
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        labels: dict[Model, Labels] = {model: entry.labels for model, entry in self._present.models.items()}
        ours = self.found.data is not None and not self.found.foreign and self._problem is None
        served = {model: item.server.versions for model, item in facts.items()}
        if not ours or not would_be_taken(labels, served):
            self._taken_since = None
        elif self._taken_since is None:
            self._taken_since = now

    def note_taken(self, config: ModelsConfig) -> None:
        """Note that the server has a configuration, without a wait: it has answered so."""
        if config.models == self._present.models:
            self._taken_since = self.clock.monotonic() - self._wait_seconds

    def next_due(self) -> float | None:
        """Return the seconds until versions may leave that a label pointed to; None if nothing is due."""
        if self._taken_since is None or self.one_pass or not self._present.leaving:
            return None
        left = self._taken_since + self._wait_seconds - self.clock.monotonic()
        return left if left > 0 else None

    @property
    def _wait_seconds(self) -> float:
        return self.serving.config_poll_seconds + MARGIN_SECONDS

    def _is_read(self) -> bool:
        """Whether the server has surely read the file as it is: it could take it, for long enough.

        One pass sees only a moment; there the age of the file must do.
        """
        if self._taken_since is None:
            return False
        if self.one_pass:
            return self.clock.wall() - self.found.modified_at >= self._wait_seconds
        return self.clock.monotonic() - self._taken_since >= self._wait_seconds

    def draft(
        self, models: Mapping[Model, ModelSettings], facts: Mapping[Model, Facts], *, may_remove: bool = False
    ) -> Draft:
        """Return what the file is to say now.

        `may_remove`: models that are no longer configured leave it, and the server unloads them; never in
        the midst of work, where a model that is not there may just not be known. What has no version leaves
        even then.
        """
        if may_remove:
            self._to_leave = frozenset(self._present.models.keys() - models.keys())
        present = {} if self.found.foreign else self._present.models
        entries = {
            model: dataclasses.replace(entry, base_path=str(self.serving.base_path(model)))
            for model, entry in present.items()
            if model in models or self._stays(model)
        }
        waiting: dict[tuple[Model, str], str] = {}
        for model, settings in models.items():
            entry = self._entry(model, settings, facts.get(model), waiting)
            entries.pop(model, None)
            if entry is not None:
                entries[model] = entry
        config = ModelsConfig(entries, self._leaving(entries))
        old = None if self.found.data is None else self._present
        return Draft(
            path=self.path,
            config=config,
            changes=tuple(models_config.differences(old, config)),
            waiting=waiting,
            is_written=self.found.data == config.render(),
            problem=self._problem or self._refusal(config, models),
        )

    def _entry(
        self,
        model: Model,
        settings: ModelSettings,
        facts: Facts | None,
        waiting: dict[tuple[Model, str], str],
    ) -> Entry | None:
        present = self._present.models.get(model)
        link = self._link(facts)
        served = (facts.server.versions or {}) if facts else {}
        standing = EntryFacts(
            listed=present is not None,
            required=settings.required,
            has_versions=bool(facts.shelf) if facts else self._has_versions(model, if_unreadable=False),
            link=link,
            serves=any(item.state == "AVAILABLE" for item in served.values()),
            first=self.found.data is None and not self._present.models,
        )
        if not is_listed(standing) or (present is None and not self.workspace.has_shelf(model)):
            return None  # a base path that is missing would stop the server's updates of every model
        shelf = facts.shelf if facts else {}
        labels = next_labels(
            LabelFacts(
                wanted=facts.labels if facts else {},
                written=present.labels if present else {},
                shelf={v for v, item in shelf.items() if item.condition is not Condition.DAMAGED},
                link=link,
                served=served,
                on_trial=facts.on_trial() if facts else frozenset(),
            )
        )
        waiting.update({(model, label): why for label, why in labels.waiting.items()})
        policy, latest = server_policy_of(self.serving, settings)
        count = latest if policy is ServerPolicy.LATEST else None
        return Entry(str(self.serving.base_path(model)), count, labels.labels)

    def _link(self, facts: Facts | None) -> Link:
        if facts is not None and facts.server.versions is not None:
            return Link.ANSWERS
        if facts is None or self._down_since is None:
            return Link.SILENT
        patience = self.serving.load_timeout_seconds
        is_lost = self.clock.monotonic() - self._down_since >= patience
        return Link.LOST if is_lost else Link.DOWN

    def _stays(self, model: Model) -> bool:
        """Whether a model that is not known now keeps its place in the file.

        Without a version, or a base path, it would hold up every other one, and nobody looks after it.
        """
        return model not in self._to_leave and self._has_versions(model, if_unreadable=True)

    def _has_versions(self, model: Model, *, if_unreadable: bool) -> bool:
        """Whether the server sees a version of a model; of a shelf that cannot be read, nobody knows."""
        try:
            names = [entry.name for entry in disk.entries(self.workspace.shelf(model))]
        except OSError:
            return if_unreadable
        return any(map(server_sees_version, names))

    def _leaving(self, entries: Mapping[Model, Entry]) -> dict[Model, frozenset[Version]]:
        """Return the versions that lose their last label, and those of which the server may not know it."""
        known = {} if self._is_read() else self._present.leaving
        found = {}
        for model, entry in entries.items():
            before = self._present.models.get(model, entry).labels.values()
            gone = (frozenset(before) | known.get(model, frozenset())) - frozenset(entry.labels.values())
            if gone:
                found[model] = gone
        return found

    def _refusal(self, config: ModelsConfig, models: Mapping[Model, ModelSettings]) -> ConfigFileError | None:
        """Return why the file must not be replaced, or None if it may be."""
        if not self.found.foreign:
            return None
        advice = "move it away, or set serving.adopt_config: true to take it over"
        if self.found.config is None:
            advice = "move it away; nobody can tell what the server would lose"
        elif self.serving.adopt_config:
            wanted = {
                model: labels_of(self.serving, settings, {}).keys() for model, settings in models.items()
            }
            lost = models_config.losses(self.found, config, wanted)
            if not lost:
                return None
            advice = (
                f"not taken over either (serving.adopt_config), because the server would lose "
                f"{', '.join(lost)}: put these into the settings, or take them out of the file"
            )
        text = f"{self.path}: {self.found.foreign}, so it is not overwritten: {advice}"
        return ConfigFileError(Reason.CONFIG_FILE_FOREIGN, text, file=str(self.path))
