"""`models.config`: which models the server has, from which directories, by which policy, with which labels.

Field names are those of ModelServerConfig; any other name makes the whole file invalid.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from servesync.serving.textformat import BadText, Message, Value, Word, parse

_POLICIES: Final = {"latest": {"num_versions"}, "all": set[str](), "specific": {"versions"}}
_MODEL_FIELDS: Final = {
    "name", "base_path", "model_type", "model_platform", "model_version_policy", "logging_config",
    "version_labels",
}  # fmt: skip
_SCHEMES: Final = ("/", "gs://", "hdfs://", "viewfs://")


class BadConfig(ValueError):
    """The file is no valid ModelServerConfig, or may not replace the present one."""


@dataclass(frozen=True)
class Policy:
    """Which versions of a model are wanted: `latest` (count), `all`, or `specific` (versions)."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """One model of the configuration."""

    name: str
    base_path: str
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"


def read_config(path: Path) -> list[ModelConfig]:
    """Return the models of a file.

    Raises:
        BadConfig: the file cannot be read, is empty, or is no valid configuration.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"cannot read {path}: {error}") from error
    if not text:
        raise BadConfig(f"{path} is empty")  # the real server maps the file, which fails for an empty one
    return parse_config(text)


def parse_config(text: str) -> list[ModelConfig]:
    """Return the models of a configuration; comments alone are a configuration without models.

    Raises:
        BadConfig: the text does not parse, has an unknown field, names a model twice, or has a relative path.
    """
    try:
        outer = check_fields("the file", parse(text), {"model_config_list"})
    except BadText as error:
        raise BadConfig(str(error)) from error
    configs = _message(outer.get("model_config_list", []), "model_config_list")
    check_fields("model_config_list", configs, {"config"}, repeated={"config"})
    models = [_model(_message(config, name)) for name, config in configs]
    twice = [name for name, count in Counter(model.name for model in models).items() if count > 1]
    if twice:
        raise BadConfig(f"named more than once: {', '.join(twice)}")
    return models


def check_change(
    old: Mapping[str, ModelConfig],
    new: Collection[ModelConfig],
    serves: Callable[[str, int], bool],
    *,
    allow_unavailable: bool,
) -> None:
    """Return if `new` may replace `old`; `serves` tells whether a version is AVAILABLE now.

    The version of a label must be AVAILABLE. With `allow_unavailable`, that is not needed for a label that is
    new or keeps its version.

    Raises:
        BadConfig: a label names a version that is not AVAILABLE, or a model's platform changes.
    """
    for model in new:
        before = old.get(model.name)
        if before and before.platform != model.platform:
            raise BadConfig(f"the platform of {model.name} cannot change")
        labels = before.labels if before else {}
        for label, version in model.labels.items():
            stays = labels.get(label, version) == version
            if not (serves(model.name, version) or (allow_unavailable and stays)):
                raise BadConfig(
                    f"Request to assign label {label} to version {version} of model {model.name}, "
                    "which is not currently available for inference"
                )


def _model(block: Message) -> ModelConfig:
    found = check_fields("config", block, _MODEL_FIELDS, repeated={"version_labels"})
    name, path = _text(found, "name"), _text(found, "base_path")
    if not path.startswith(_SCHEMES):
        raise BadConfig(f"Expected model {name} to have an absolute path or URI; got base_path()={path}")
    platform = _text(found, "model_platform") or _platform_of_type(found.get("model_type", 0))
    if not platform:
        raise BadConfig(f"model_platform of {name} is not set")
    labels = dict(_label(_message(value, field)) for field, value in block if field == "version_labels")
    return ModelConfig(name, path, _policy(found.get("model_version_policy", [])), labels, platform)


def _platform_of_type(value: Value) -> str:
    """Translate the deprecated enum."""
    return "tensorflow" if value in (1, Word("TENSORFLOW")) else ""


def _label(block: Message) -> tuple[str, int]:
    found = check_fields("version_labels", block, {"key", "value"})
    return _text(found, "key"), _integer(found.get("value", 0), "value")


def _policy(value: Value) -> Policy:
    block = _message(value, "model_version_policy")
    found = check_fields("model_version_policy", block, _POLICIES.keys())
    if not found:
        return Policy()
    if len(found) > 1:
        raise BadConfig(f"more than one policy: {', '.join(found)}")
    ((kind, inner),) = found.items()
    fields = _message(inner, kind)
    named = check_fields(kind, fields, _POLICIES[kind], repeated={"versions"})
    if kind == "specific":
        return Policy("specific", versions=tuple(_integer(number, "versions") for _, number in fields))
    if kind == "all":
        return Policy("all")
    count = _integer(named.get("num_versions", 1), "num_versions")
    if count < 0:
        raise BadConfig(f"num_versions is {count}")
    return Policy("latest", count=count or 1)


def check_fields(
    where: str, block: Message, known: AbstractSet[str], repeated: AbstractSet[str] = frozenset()
) -> dict[str, Value]:
    """Return fields by name, and the last value of a repeated field.

    Raises:
        BadConfig: a field is unknown, or occurs twice and is not a repeated field.
    """
    for name, count in Counter(name for name, _ in block).items():
        if name not in known:
            raise BadConfig(f"{where} has no field named {name}")
        if count > 1 and name not in repeated:
            raise BadConfig(f"{where} has {name} more than once")
    return dict(block)


def _message(value: Value, name: str) -> Message:
    if not isinstance(value, list):
        raise BadConfig(f"{name} must be a message")
    return value


def _text(found: Mapping[str, Value], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise BadConfig(f"{name} must be a string in quotes")
    return value


def _integer(value: Value, name: str) -> int:
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise BadConfig(f"{name} must be a number of 64 bits")
    return value
