"""Reads `models.config`: a ModelServerConfig in Protocol Buffers' text format, as far as needed."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

Block = list[tuple[str, "str | int | Block"]]
_TOKEN: Final = re.compile(
    r"""\s*(?:\#[^\n]*\n?\s*)*(?P<token>[A-Za-z_][A-Za-z0-9_]*|-?\d+|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[{}:;,<>])""",
    re.DOTALL,
)
_CLOSING: Final = {"{": "}", "<": ">"}
_REST: Final = re.compile(r"\s*(?:\#[^\n]*\n?\s*)*")


class BadConfig(ValueError):
    """The file is no ModelServerConfig; the whole of it is refused."""


@dataclass(frozen=True)
class Policy:
    """Which versions of a model are wanted: `latest` (count), `all`, or `specific` (versions)."""

    kind: str = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """One model of the configuration."""

    name: str
    base_path: str
    policy: Policy = Policy()
    labels: Mapping[str, int] = field(default_factory=dict)


def parse_config(text: str) -> list[ModelConfig]:
    """Return the models of a configuration.

    Raises:
        BadConfig: it does not parse, has an unknown field, names a model twice, or a path is not absolute.
    """
    models = []
    for name, value in _parse(text):
        if name != "model_config_list":
            raise BadConfig(f"unknown field {name}")
        for inner, config in _block(value, name):
            if inner != "config":
                raise BadConfig(f"unknown field {inner}")
            models.append(_model(_block(config, inner)))
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise BadConfig("a model is named twice")
    return models


def _model(block: Block) -> ModelConfig:
    found: dict[str, str | int | Block] = {}
    labels: dict[str, int] = {}
    for name, value in block:
        if name == "version_labels":
            entry = dict(_block(value, name))
            labels[str(entry["key"])] = _integer(entry["value"])
        elif name in {"name", "base_path", "model_platform", "model_version_policy", "logging_config"}:
            found[name] = value
        else:
            raise BadConfig(f"unknown field {name}")
    path = str(found.get("base_path", ""))
    if not path.startswith("/"):
        raise BadConfig(f"expected an absolute base_path for {found.get('name')}, got {path!r}")
    if not found.get("model_platform"):
        raise BadConfig(f"model_platform of {found.get('name')} is not set")
    return ModelConfig(str(found.get("name", "")), path, _policy(found.get("model_version_policy")), labels)


def _policy(value: "str | int | Block | None") -> Policy:
    if value is None:
        return Policy()
    block = _block(value, "model_version_policy")
    if not block:
        return Policy()
    kind, inner = block[-1]
    fields = _block(inner, kind)
    match kind:
        case "all":
            return Policy("all")
        case "latest":
            count = _integer(dict(fields).get("num_versions", 1))
            return Policy("latest", count=count or 1)
        case "specific":
            return Policy("specific", versions=tuple(_integer(number) for _, number in fields))
        case _:
            raise BadConfig(f"unknown field {kind}")


def _block(value: "str | int | Block", name: str) -> Block:
    if not isinstance(value, list):
        raise BadConfig(f"{name} must be a message")
    return value


def _integer(value: "str | int | Block") -> int:
    if not isinstance(value, int):
        raise BadConfig(f"expected a number, got {value!r}")
    return value


def _parse(text: str) -> Block:
    tokens = list(_tokens(text))
    block, position = _fields(tokens, 0)
    if position != len(tokens):
        raise BadConfig(f"unexpected {tokens[position]}")
    return block


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while match := _TOKEN.match(text, position):
        yield match["token"]
        position = match.end()
    rest = _REST.match(text, position)
    if rest is None or rest.end() != len(text):
        raise BadConfig(f"cannot read {text[position : position + 20]!r}")


def _fields(tokens: list[str], position: int) -> tuple[Block, int]:
    """Read fields up to a closing brace or the end."""
    found: Block = []
    while position < len(tokens) and tokens[position] not in {"}", ">"}:
        name = tokens[position]
        if not (name[0].isalpha() or name[0] == "_"):
            raise BadConfig(f"expected a field, got {name}")
        position += 1
        colon = tokens[position : position + 1] == [":"]
        position += colon
        if position >= len(tokens):
            raise BadConfig(f"{name} has no value")
        token = tokens[position]
        if token in _CLOSING:
            inner, position = _fields(tokens, position + 1)
            if tokens[position : position + 1] != [_CLOSING[token]]:
                raise BadConfig(f"{name} is not closed")
            found.append((name, inner))
        elif colon and token not in {"}", ">", ":", ";", ","}:
            found.append((name, _value(token)))
        else:
            raise BadConfig(f"{name} has no value")
        position += 1
        if tokens[position : position + 1] in ([";"], [","]):
            position += 1
    return found, position


def _value(token: str) -> str | int:
    if token[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return int(token) if token.lstrip("-").isdigit() else token
