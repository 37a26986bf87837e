"""Reads the settings file: every mistake is found at once and named with its line and what is allowed."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from servesync.errors import Reason, SettingsError
from servesync.files import read_regular
from servesync.settings import Admin, Serving, Settings

MAX_FILE_BYTES: Final = 1 << 20
MAX_NODES: Final = 100_000
SHOWN_CHARACTERS: Final = 60
PREFIX: Final = "SERVESYNC_"
_OF_A_SERVICE: Final = re.compile(
    r"SERVESYNC_(?:[A-Z0-9_]+_)??(?:SERVICE_HOST=.*|SERVICE_PORT(?:_[A-Z0-9_]+)?=\d*"
    r"|PORT=(?:tcp|udp|sctp)://.*|PORT_\d+_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?=.*)"
)
"""A variable and its value as Kubernetes makes them of a Service (and Docker of a link)."""
_NO_YAML: Final = (
    yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError, TypeError, RecursionError
)  # fmt: skip
"""What PyYAML raises: its constructors trust that a text is what its tag says (`!!bool maybe`)."""
PLAIN_TAGS: Final = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})

Place = tuple[str | int, ...]


@dataclass
class _Document:
    """A YAML document as plain values, with the line (from 1) of each place in it."""

    value: object = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Return the settings in the file, with the overrides `SERVESYNC_SECTION__KEY` of the environment.

    Raises:
        SettingsError: with one line for each mistake; there is no half-read result.
    """
    document = _parse(path, _read(path))
    value = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        raise _mistakes(path, ["line 1: the file must hold sections such as `store:` and `serving:`"])
    problems = document.problems + _override(value, environment)
    if problems:
        raise _mistakes(path, problems)
    try:
        return Settings.model_validate(value)
    except ValidationError as error:
        found = [_explain(detail, document.lines) for detail in error.errors(include_url=False)]
        raise _mistakes(path, found) from None


def load_admin(path: Path | None, environment: Mapping[str, str]) -> Admin:
    """Return where an agent that was started with this file answers, whatever else stands in the file.

    A running agent keeps its settings when the file gets a mistake, and a probe must not fail for that: what
    cannot be read counts as not given.
    """
    try:
        return Admin.model_validate(_sections(path, environment).get("admin") or {})
    except ValidationError:
        return Admin()


def load_rest_url(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return `serving.rest_url` in the way of `load_admin`; without a file, of the environment alone."""
    serving = _sections(path, environment).get("serving")
    given = serving if isinstance(serving, dict) else {}
    known = {"models_dir": "/models"}
    with contextlib.suppress(ValidationError, KeyError):
        return Serving.model_validate(known | {"rest_url": given["rest_url"]}).rest_url
    return Serving.model_validate(known).rest_url


def _sections(path: Path | None, environment: Mapping[str, str]) -> dict[str, Any]:
    value: object = None
    if path is not None:
        with contextlib.suppress(SettingsError):
            value = _parse(path, _read(path)).value
    sections = value if isinstance(value, dict) else {}
    _override(sections, environment)
    return sections


def _mistakes(path: Path, problems: Iterable[str]) -> SettingsError:
    listed = list(problems)
    text = "\n".join([f"{path}: the settings cannot be used:", *(f"  {line}" for line in listed)])
    return SettingsError(Reason.SETTINGS_INVALID, text, file=str(path), problems=listed)


def _read(path: Path) -> str:
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        advice = "give the file that holds the settings (-c FILE); config.example.yaml shows one"
        raise _mistakes(path, [f"{error.strerror}: {advice}"]) from None
    if len(data) > MAX_FILE_BYTES:
        raise _mistakes(path, [f"larger than {MAX_FILE_BYTES} bytes: this is not a settings file"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _mistakes(path, [f"line {line}: not UTF-8 (byte {data[error.start]:#04x})"]) from None


def _parse(path: Path, text: str) -> _Document:
    document = _Document()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            document.value = _convert(loader, node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _mistakes(path, [f"{where}not valid YAML: {error.problem or error.context}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"line {line}: not valid YAML: the character {error.character:#04x} is not allowed"
        raise _mistakes(path, [problem]) from None
    except _NO_YAML as error:
        raise _mistakes(path, [f"not valid YAML: {error}"]) from None
    return document


def _convert(loader: yaml.SafeLoader, node: yaml.Node, place: Place, document: _Document) -> object:
    """Build plain values, noting lines; aliases are followed but the whole stays within MAX_NODES."""
    line = node.start_mark.line + 1
    document.lines.setdefault(place, line)
    if len(document.lines) > MAX_NODES:
        raise ValueError(f"line {line}: more than {MAX_NODES} values (a chain of aliases?)")
    if isinstance(node, yaml.CollectionNode) and node.tag not in PLAIN_TAGS:
        raise ValueError(f"line {line}: the tag {node.tag[:SHOWN_CHARACTERS]!a} is not allowed")
    match node:
        case yaml.MappingNode():
            return dict(_pairs(loader, node, place, document))
        case yaml.SequenceNode():
            return [_convert(loader, item, (*place, i), document) for i, item in enumerate(node.value)]
        case _:
            return _plain(loader, node)


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """Return the value of a scalar, naming the line of one that is not what its tag or its look says."""
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        raise
    except _NO_YAML as error:
        kind = node.tag.rpartition(":")[2]
        text = f"line {node.start_mark.line + 1}: {_shortened(node.value)} is no {kind}"
        raise ValueError(text) from error


def _pairs(
    loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place, document: _Document
) -> Iterator[tuple[str, object]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in seen:
            name = _dotted((*place, key))
            document.problems.append(f"line {line}: {name} stands twice (first on line {seen[key]})")
            continue
        seen[key] = line
        document.lines[*place, key] = line
        yield key, _convert(loader, value_node, (*place, key), document)


def _override(value: dict[str, object], environment: Mapping[str, str]) -> list[str]:
    """Put the environment's overrides into `value`; return what is wrong with them."""
    problems = []
    for name in override_names(environment):
        section, separator, key = _parts(name)
        known = Settings.model_fields.get(section)
        model = known.annotation if known else None
        if not separator or not isinstance(model, type) or not issubclass(model, BaseModel):
            problems.append(f"environment: {name} overrides nothing; the form is {PREFIX}SECTION__KEY")
            continue
        if key not in model.model_fields:
            allowed = ", ".join(model.model_fields)
            problems.append(f"environment: {name}: {section} has no key {key!r}; it has {allowed}")
            continue
        target = value.setdefault(section, {})
        if isinstance(target, dict):
            target[key] = _scalar(environment[name])
    return problems


def _parts(name: str) -> tuple[str, str, str]:
    """Return the section, the separator and the key that a variable names."""
    return name.removeprefix(PREFIX).lower().partition("__")


def override_names(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that override settings, or were meant to; sorted."""
    services = service_variables(environment)
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in services)


def service_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that Kubernetes makes of Services named `servesync` or `servesync-...`; sorted.

    It puts them into every pod of the namespace, unless `enableServiceLinks` is false. They are no settings.
    """
    return sorted(
        name
        for name, value in environment.items()
        if _parts(name)[0] not in Settings.model_fields and _OF_A_SERVICE.fullmatch(f"{name}={value}")
    )


def _scalar(text: str) -> object:
    """Read an environment value as the YAML file would; what is no YAML is a plain string."""
    try:
        return yaml.safe_load(text)
    except _NO_YAML:
        return text


def _explain(detail: ErrorDetails, lines: Mapping[Place, int]) -> str:
    place = tuple(detail["loc"])
    known = place
    while known and known not in lines:
        known = known[:-1]
    where = f"line {lines[known]}: " if known in lines else ""
    name = _dotted(place)
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        parent = _dotted(place[:-1]) or "the file"
        message = f"unknown key; {parent} has {', '.join(_keys_beside(place))}"
    elif detail["type"] == "missing":
        message = "this key is missing"
    elif detail["type"] != "value_error" and "mirrors" not in place:  # their URLs may hold a secret
        message = f"{message}, not {_shortened(detail['input'])}"
    return f"{where}{name}: {message}" if name else f"{where}{message}"


def _shortened(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _keys_beside(place: Place) -> list[str]:
    """Return the keys that are allowed where `place` stands."""
    model: type[BaseModel] = Settings
    for part in place[:-1]:
        if isinstance(part, int) or part not in model.model_fields:  # an item of a list, a name in a table
            continue
        inner = [item for item in _models_in(model.model_fields[part].annotation) if item]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def environment_overrides() -> Mapping[str, str]:
    """Return this process's environment: the one place where it is read for settings."""
    return dict(os.environ)
