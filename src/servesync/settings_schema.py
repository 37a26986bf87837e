"""The settings described for editors and readers: the types from the code, the words from the example file.

`config.example.yaml` is the one place where a key is explained; the JSON Schema and `docs/settings.md` are
made of it. The package carries a copy of it.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final, TypeAlias

import yaml

from servesync.settings import GIB, MIB, Settings

EXAMPLE: Final = "config.example.yaml"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Place: TypeAlias = tuple[str, ...]
_REFERENCE: Final = "#/$defs/"
_KINDS: Final = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "`null`",
    "array": "a list",
    "string": "text",
    "path": "a path",
}
_INTRODUCTION: Final = f"""\
# Settings

One YAML file (no pipe), given with `-c FILE`. `store.url`, `serving.models_dir` and `models` are required,
everything else has a default. Unknown keys are refused, and every mistake is named with its line. A running
agent reads the file again when it changes, a link to another one at its next poll; if it has a mistake then,
the old settings stay.

A key of a section can also be set by the environment: `SERVESYNC_STORE__URL=s3://acme-models/prod` overrides
`store.url`. Other variables `SERVESYNC_...` are refused, except those that Kubernetes makes of a Service:
these are skipped, with the warning `variables_skipped`.

`servesync doctor -c FILE` tells whether they fit together and fit the machine ([doctor.md](doctor.md)).
`servesync schema --example` prints a file with every key, and `servesync schema` a JSON Schema for editors:
with `servesync schema > servesync.schema.json`, and as the first line of the settings

```yaml
# yaml-language-server: $schema=servesync.schema.json
```

an editor with the YAML language server (the YAML extension of VS Code; coc-yaml or nvim-lspconfig for Vim)
shows what a key means, offers what may stand there, and marks mistakes while you type. It does not know all
that servesync checks: whether two keys fit together, and the exact forms of URLs, paths and names.

This page is made by `make docs` from `{EXAMPLE}` and the code.
"""


def example() -> str:
    """Return the example file. In the source tree the package links to it, in a wheel it is a copy."""
    return (resources.files("servesync") / EXAMPLE).read_text(encoding="utf-8")


def comments(text: str) -> Mapping[Place, str]:
    """Return what the comment above each key of a YAML file says; one above a list's item is the list's."""
    lines = text.splitlines()
    found: dict[Place, str] = {}
    for place, line, is_first_of_item in _keys(_composed(text), ()):
        said = _above(lines, line)
        owner = place[:-1] if is_first_of_item else place
        if said:
            found[owner] = f"{found[owner]} {said}" if owner in found else said
    return found


def _composed(text: str) -> yaml.Node | None:
    found: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return found


def _keys(
    node: yaml.Node | None, place: Place, *, in_list: bool = False
) -> Iterator[tuple[Place, int, bool]]:
    """Yield each key on a line of its own with that line, from 0, and whether it begins an item of a list."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for number, (key, value) in enumerate(node.value):
            yield (*place, key.value), key.start_mark.line, in_list and number == 0
            yield from _keys(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys(item, place, in_list=True)


def _above(lines: list[str], line: int) -> str:
    """Return the comment that ends directly above a line, at the same indentation, as one line."""
    indent = len(lines[line]) - len(lines[line].lstrip())
    said: list[str] = []
    while line > 0 and lines[line - 1].startswith(" " * indent + "#"):
        line -= 1
        said.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(said)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a settings file, with the example's comments as descriptions."""
    schema = Settings.model_json_schema()
    said = comments(example())
    for place, table in _tables(schema).items():
        for key, what in table["properties"].items():
            what["title"] = ".".join((*place, key))
            if (*place, key) in said:
                what["description"] = said[*place, key]
    return {"$schema": DIALECT, **schema, "title": "The settings of one servesync agent"}


def _tables(schema: Mapping[str, Any]) -> dict[Place, Mapping[str, Any]]:
    """Return each table that the example file shows key by key, in its order; the whole file is the first."""
    found: dict[Place, Mapping[str, Any]] = {(): schema}
    for place, _, _ in _keys(_composed(example()), ()):
        outer = found.get(place[:-2]) if len(place) > 1 else None
        if outer is not None and place[:-1] not in found:
            inner = _inner(schema, outer["properties"].get(place[-2], {}))
            if inner is not None:
                found[place[:-1]] = inner
    return found


def _inner(schema: Mapping[str, Any], what: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the table that a key holds, or each item of its list; None if it holds something else."""
    reference = what.get("$ref") or what.get("items", {}).get("$ref", "")
    found: Mapping[str, Any] | None = schema["$defs"].get(reference.removeprefix(_REFERENCE))
    return found if found and "properties" in found else None


def markdown() -> str:
    """Return `docs/settings.md`."""
    schema = json_schema()
    tables = _tables(schema)
    parts = [_INTRODUCTION]
    for place, table in tables.items():
        if not place:
            continue
        outer = tables[place[:-1]]["properties"][place[-1]]
        heading = table.get("description", "")
        if outer.get("type") == "array":
            heading = f"A list. {outer.get('description', '')}"
        parts.append(f"\n## `{'.'.join(place)}`\n\n{heading}\n\n")
        parts.append("| key | default | allowed | what it is |\n|---|---|---|---|\n")
        for key, what in table["properties"].items():
            if key in table.get("required", ()):
                default = "required"
            else:
                default = "see below" if (*place, key) in tables else f"`{_plain(what.get('default'))}`"
            cells = (f"`{key}`", default + _in_units(key, what), _allowed(what), what.get("description", ""))
            parts.append(f"| {' | '.join(map(_in_table, cells))} |\n")
    return "".join(parts)


def _in_table(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _plain(value: object) -> str:
    """Return a value as one would write it in YAML; in a table, what is null is left out."""
    if isinstance(value, dict):
        given = (f"{name}: {_plain(item)}" for name, item in value.items() if item is not None)
        return f"{{{', '.join(given)}}}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else json.dumps(value)


def _in_units(key: str, what: Mapping[str, Any]) -> str:
    value = what.get("default")
    if not isinstance(value, int) or "bytes" not in key or value < MIB:
        return ""
    return f" ({value / GIB:g} GiB)" if value >= GIB else f" ({value / MIB:g} MiB)"


def _allowed(what: Mapping[str, Any]) -> str:
    if "anyOf" in what:
        return ", or ".join(_allowed(each) for each in what["anyOf"])
    words = what.get("enum", [what["const"]] if "const" in what else [])
    if words:
        return ", ".join(f"`{_plain(word)}`" for word in words)
    if "pattern" in what:
        return f"text of the form `{what['pattern'].strip('^$')}`"
    return _KINDS.get(what.get("format") or what.get("type", ""), "a table") + _bounds(what)


def _bounds(what: Mapping[str, Any]) -> str:
    low, high = what.get("minimum"), what.get("maximum")
    if low is None or high is None:
        return f" from {low} on" if low is not None else ""
    return f", {low} to {high}"
