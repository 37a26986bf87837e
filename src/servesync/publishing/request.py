"""The publisher's input and result, and what its modules share."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import ValidationError

from servesync.domain.manifest import (
    Archive,
    File,
    Manifest,
    Totals,
    check_labels,
    fits,
    schema_for,
    without_pieces,
)
from servesync.domain.versions import MAX_VERSION, Model, Version, parse_model
from servesync.errors import Reason, ReleaseRefused, SettingsError, StoreError
from servesync.publishing.pack import Format
from servesync.settings import Level, Limits, LoadLimits, Store
from servesync.store import MANIFEST_ENDING, KeyPattern
from servesync.verify import (
    Expectations,
    ModelFacts,
    check_warmup,
    load_model,
    verify_structure,
    verify_tensors,
)

Outcome = Literal["published", "already there", "not written (dry run)"]
MANIFEST_TYPE: Final = "application/json"
UNCONDITIONAL: Final = (
    "the store knows no If-None-Match, so two publishers at once may both write: let one publish"
)


class Progress(Protocol):
    """Called with how many bytes of how many are done."""

    def __call__(self, done_bytes: int, total_bytes: int, /) -> None:
        """Report; called often."""


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to publish, under which name; `limits`: those of the agents, None if they are not known.

    `load`: the libraries and the limits of the level load. `warmup_from_golden`: add warm-up requests,
    made of the golden ones.
    """

    model: str
    version: int
    labels: Mapping[str, str] = field(default_factory=dict)
    level: Level = "checksum"
    archive_format: Format = "tar.zst"
    warmup_from_golden: bool = False
    dry_run: bool = False
    limits: Limits | None = None
    load: LoadLimits = field(default_factory=LoadLimits)
    check: Callable[[], None] = lambda: None
    progress: Progress = _silent


def checked(request: Request) -> tuple[Model, Version]:
    """Return model and version of a request after checking them.

    Raises:
        SettingsError: the model, the version or the labels are not acceptable.
    """
    model = parse_model(request.model)
    if model is None:
        text = f"{request.model!a} is no model's name: 1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    if not 0 <= request.version <= MAX_VERSION:
        text = f"{request.version} is no version: a number from 0 to {MAX_VERSION}"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    check_labels(request.labels)
    return model, Version(request.version)


def stem_of(store: Store, model: Model, version: Version) -> str:
    """Return the key of a version without its ending.

    Raises:
        SettingsError: by this pattern the key would be another version's.
    """
    pattern = KeyPattern(store.key_pattern)
    stem = pattern.stem(model, version)
    parsed = pattern.parse(stem + MANIFEST_ENDING)
    if parsed is None or (parsed.model, parsed.version) != (model, version):
        text = (
            f"by the key pattern {store.key_pattern!a} nobody can tell which version {stem!a} is: choose "
            "another name, or a pattern with a / between {model} and {version}"
        )
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return store.prefix + stem


def to_complete(store: Store, key: str) -> str:
    """Return the command that makes a manifest for an archive, ready to be copied to a shell."""
    return f"`servesync manifest {shlex.quote(f's3://{store.bucket}/{key}')}`"


def prove(root: Path, request: Request) -> ModelFacts:
    """Verify the SavedModel in `root` to the level of the request.

    Raises:
        ReleaseRefused: the SavedModel is not sound.
        OSError: a file cannot be read.
    """
    facts = verify_structure(root)
    check_warmup(root, request.check)
    if request.level != "structure":
        verify_tensors(root, check=request.check)
    if request.level == "load":
        load_model(root, Expectations(), request.load, check=request.check)
    return facts


@dataclass(frozen=True, slots=True)
class Published:
    """The version in the store: its keys, its archive's size and SHA-256, and notes about the store."""

    outcome: Outcome
    key: str
    manifest_key: str
    manifest: Manifest
    notes: tuple[str, ...] = ()


def exists(model: Model, version: Version, what: str) -> ReleaseRefused:
    """Return the error for a number that is taken."""
    text = f"{model} {version} is in the store already ({what}); versions are immutable: publish a new number"
    return ReleaseRefused(Reason.RELEASE_EXISTS, text)


def being_written(key: str) -> StoreError:
    """Return the error for an object that exists by the store's answer, but is not listed."""
    text = (
        f"{key!a}: the store answers that it exists, or is being written, but does not list it: "
        "run the command again"
    )
    return StoreError(Reason.STORE_FAILED, text)


def make_manifest(
    model: Model,
    version: Version,
    archive: Archive,
    files: tuple[File, ...],
    facts: ModelFacts,
    labels: Mapping[str, str],
) -> Manifest:
    """Return the manifest of an archive whose files have been proven, created now.

    One with so many files that it would be too large leaves out the pieces: such a release is read as one
    stream.
    """
    made = Manifest(
        schema=schema_for(archive.parts),
        model=model,
        version=version,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        archive=archive,
        files=files,
        totals=Totals(
            files=len(files),
            bytes=sum(file.size for file in files),
            tensors=facts.tensors,
            tensor_bytes=facts.tensor_bytes,
        ),
        labels=dict(labels),
    )
    return made if fits(made) else without_pieces(made)


def store_at(**fields: str | None) -> Store:
    """Return a store from the fields of the settings' section `store`.

    Raises:
        SettingsError: one of them is not acceptable.
    """
    try:
        return Store.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f" {name}:" for name in first["loc"])
        text = f"the store:{where} {first['msg']}"
        raise SettingsError(Reason.SETTINGS_INVALID, text) from error
