"""`models.config`, which names the server's models: parses it, tells who wrote it, and replaces it.

A file that servesync wrote begins with a line that says so and holds a digest of the rest. Any other file,
and one that was edited since, belongs to somebody else. State lies in the file: a second comment names
the versions whose labels the server may still have from the file before.
"""

import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from servesync import disk
from servesync.domain.versions import Model, Version
from servesync.errors import ConfigFileError, Reason
from servesync.files import NotRegular, open_regular
from servesync.planning.labels import Labels
from servesync.serving.textformat import BadText, Message, Value, Word, parse, quoted

MAX_BYTES: Final = 16 << 20
MODE: Final = 0o644
BACKUP: Final = ".before-servesync"
_HEADER: Final = "# Written by servesync: change its settings, not this file. sha256 of the rest: "
_OURS: Final = re.compile(re.escape(_HEADER.encode()) + rb"([0-9a-f]{64})\n")
_LEAVING: Final = "# The server may still have labels of: "
_MANAGED: Final = frozenset({"name", "base_path", "model_platform", "model_version_policy", "version_labels"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the file. `latest`: the server serves so many of the highest versions; None: all."""

    base_path: str
    latest: int | None = None
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """What the file says. `leaving`: versions that a label of the file before pointed to."""

    models: Mapping[Model, Entry] = field(default_factory=dict)
    leaving: Mapping[Model, AbstractSet[Version]] = field(default_factory=dict)

    def render(self) -> bytes:
        """Return the file, models and labels sorted."""
        lines = []
        leaving = {model: sorted(versions) for model, versions in sorted(self.leaving.items()) if versions}
        if leaving:
            lines.append(_LEAVING + json.dumps(leaving))
        lines.append("model_config_list {")
        for model, entry in sorted(self.models.items()):
            lines += ["  config {", *(f"    {line}" for line in _entry_lines(model, entry)), "  }"]
        rest = "\n".join([*lines, "}", ""]).encode()
        return f"{_HEADER}{hashlib.sha256(rest).hexdigest()}\n".encode() + rest


def _entry_lines(model: Model, entry: Entry) -> Iterator[str]:
    yield f"name: {quoted(model)}"
    yield f"base_path: {quoted(entry.base_path)}"
    yield 'model_platform: "tensorflow"'
    policy = "all {}" if entry.latest is None else f"latest {{ num_versions: {entry.latest} }}"
    yield f"model_version_policy {{ {policy} }}"
    for label, version in sorted(entry.labels.items()):
        yield f"version_labels {{ key: {quoted(label)} value: {version} }}"


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at the file's place.

    `data` None: nothing. `foreign`: why it is not servesync's, empty if it is. `config`: as far as it could
    be read, whoever wrote it. `more`: what it says that servesync would not. `modified_at`: wall clock.
    """

    data: bytes | None = None
    foreign: str = ""
    config: ModelsConfig | None = None
    more: tuple[str, ...] = ()
    modified_at: float = 0.0


def read(path: Path, known: Found | None = None) -> Found:
    """Return the content of `path`; bytes that are `known` are not parsed again.

    Raises:
        ConfigFileError: it cannot be read.
    """
    try:
        with open_regular(path, follow=False) as file:
            data = file.read(MAX_BYTES + 1)
            modified_at = os.fstat(file.fileno()).st_mtime
    except NotRegular as error:
        return Found(b"", error.strerror or "")
    except FileNotFoundError:
        return Found()
    except OSError as error:
        raise _failed(path, "reading", error) from error
    if len(data) > MAX_BYTES:
        return Found(data, f"it is larger than {MAX_BYTES} bytes")
    if known is not None and known.data == data and known.modified_at:
        return dataclasses.replace(known, modified_at=modified_at)
    return _examine(data, modified_at)


def _examine(data: bytes, modified_at: float) -> Found:
    header = _OURS.match(data)
    foreign = "servesync did not write it"
    if header:
        is_intact = hashlib.sha256(data[header.end() :]).hexdigest().encode() == header[1]
        foreign = "" if is_intact else "somebody edited it after servesync had written it"
    try:
        config, more = _parse(data.decode())
    except (UnicodeDecodeError, BadText) as error:
        return Found(data, f"{foreign or 'another servesync wrote it'}, and it cannot be read: {error}")
    return Found(data, foreign, config, more, modified_at)


def _parse(text: str) -> tuple[ModelsConfig, tuple[str, ...]]:
    """Return what servesync can say, and the names of what else the file says.

    Raises:
        BadText: it does not follow the text format, or a field has a wrong type.
    """
    models: dict[Model, Entry] = {}
    more: list[str] = []
    for name, value in parse(text):
        if name != "model_config_list":
            more.append(name)
            continue
        for field_name, block in _message(value):
            model, entry, others = _parse_entry(_message(block))
            more += [field_name] if field_name != "config" else []
            more += [f"model {model} twice"] if model in models else []
            more += [f"{other} of {model}" for other in others]
            models[model] = entry
    return ModelsConfig(models, _parse_leaving(text)), tuple(more)


def _parse_entry(block: Message) -> tuple[Model, Entry, list[str]]:
    fields = dict(block)
    others = sorted(fields.keys() - _MANAGED)
    platform = fields.get("model_platform", "tensorflow" if "model_type" in fields else "")
    if platform != "tensorflow":
        others.append(f"model_platform {platform!a}")
    labels = dict(_parse_label(_message(value)) for name, value in block if name == "version_labels")
    entry = Entry(_text(fields.get("base_path", "")), _parse_latest(fields), labels)
    return Model(_text(fields.get("name", ""))), entry, others


def _parse_label(block: Message) -> tuple[str, Version]:
    fields = dict(block)
    return _text(fields.get("key", "")), Version(_number(fields.get("value", 0)))


def _parse_latest(fields: Mapping[str, Value]) -> int | None:
    """Return how many versions the policy serves; None for all, and for named ones."""
    policy = dict(_message(fields.get("model_version_policy", [])))
    if policy and "latest" not in policy:
        return None
    return _number(dict(_message(policy.get("latest", []))).get("num_versions", 1)) or 1


def _parse_leaving(text: str) -> dict[Model, frozenset[Version]]:
    for line in text.splitlines()[1:2]:
        if line.startswith(_LEAVING):
            try:
                found = json.loads(line.removeprefix(_LEAVING))
                return {Model(model): frozenset(map(Version, numbers)) for model, numbers in found.items()}
            except (ValueError, AttributeError, TypeError) as error:
                raise BadText("the comment on labels is none of servesync's") from error
    return {}


def _message(value: Value) -> Message:
    if not isinstance(value, list):
        raise BadText(f"{value} is not a message")
    return value


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise BadText(f"{value.text if isinstance(value, Word) else value} is not a string")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise BadText(f"{value} is not a number")
    return value


def losses(found: Found, new: ModelsConfig, wanted: Mapping[Model, AbstractSet[str]]) -> list[str]:
    """Return what the server would lose if `new` replaced a foreign file; `wanted`: the labels to come."""
    if found.config is None:
        return ["whatever it says"]
    lost = list(found.more)
    for model, entry in sorted(found.config.models.items()):
        after = new.models.get(model)
        if after is None:
            lost.append(f"model {model}")
        elif entry.base_path.rstrip("/") != after.base_path:
            lost.append(f"base path {entry.base_path} of {model}{_if_elsewhere(entry.base_path, model)}")
        else:
            missing = sorted(entry.labels.keys() - wanted.get(model, frozenset()))
            lost += [f"label {label} of {model}" for label in missing]
    return lost


def _if_elsewhere(base_path: str, model: Model) -> str:
    """Return the setting that makes a base path right, if the server may see the same shelf there."""
    path = PurePosixPath(base_path)
    if path.name != model or not path.is_absolute():
        return ""
    return f" (if the server finds the shelf there, set serving.server_models_dir to {path.parent})"


def replace(path: Path, config: ModelsConfig, found: Found) -> None:
    """Write the file durably, in one step; `found` is what was last seen there, and is kept if foreign.

    Raises:
        ConfigFileError: the disk refuses, or something else stands there now. Nothing was changed.
    """

    def check() -> None:
        if read(path).data != found.data:
            text = f"{path}: somebody has just replaced it; the agent reads it again before it writes it"
            raise ConfigFileError(Reason.CONFIG_FILE_FAILED, text, file=str(path))

    try:
        backup = path.with_name(path.name + BACKUP)
        if found.foreign and found.data is not None and not backup.exists():
            disk.write_file(backup, found.data, mode=MODE)
        disk.write_file(path, config.render(), mode=MODE, check=check)
    except OSError as error:
        raise _failed(path, "writing", error) from error


def _failed(path: Path, doing: str, error: OSError) -> ConfigFileError:
    advice = {
        FileNotFoundError: f"make the directory {path.parent}, or correct serving.config_file",
        PermissionError: f"give the agent's user write permission on the directory {path.parent}",
        NotADirectoryError: f"{path.parent} must be a directory",
    }.get(type(error), "the agent tries again by itself")
    if error.errno == errno.EBUSY:
        advice = (
            f"it is mounted by itself, and so cannot be replaced: mount the directory {path.parent} instead"
        )
    text = f"{doing} {path}: {error.strerror or error}: {advice}; the server keeps what it has"
    return ConfigFileError(Reason.CONFIG_FILE_FAILED, text, file=str(path))


def differences(old: ModelsConfig | None, new: ModelsConfig) -> list[str]:
    """Return what a server that reads `new` after `old` does differently, in words."""
    before = old.models if old else {}
    found = [f"model {model} is new" for model in sorted(new.models.keys() - before.keys())]
    found += [
        f"model {model} is gone: the server unloads it" for model in sorted(before.keys() - new.models.keys())
    ]
    for model, entry in sorted(new.models.items()):
        found += _entry_differences(model, before.get(model, Entry(entry.base_path, entry.latest)), entry)
    return found


def _entry_differences(model: Model, old: Entry, new: Entry) -> Iterator[str]:
    if old.base_path != new.base_path:
        yield f"base path of {model}: {old.base_path} -> {new.base_path}"
    if old.latest != new.latest:
        yield f"policy of {model}: {_policy(old)} -> {_policy(new)}"
    for label in sorted(old.labels.keys() | new.labels.keys()):
        before, after = old.labels.get(label), new.labels.get(label)
        if before != after:
            yield f"label {label} of {model}: {_shown(before)} -> {_shown(after)}"


def _policy(entry: Entry) -> str:
    return "all" if entry.latest is None else f"latest {entry.latest}"


def _shown(version: Version | None) -> str:
    return "none" if version is None else str(version)
