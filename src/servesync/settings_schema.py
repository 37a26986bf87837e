"""The settings described for editors: the types come from the code, the words from the example file.

Only `config.example.yaml` explains a key; the JSON Schema takes its comments. The package carries a copy.
"""

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final, TypeAlias

import yaml

from servesync.settings import Settings

EXAMPLE: Final = "config.example.yaml"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Place: TypeAlias = tuple[str, ...]
_REFERENCE: Final = "#/$defs/"


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
    for place, table in section_tables(schema).items():
        for key, what in table["properties"].items():
            what["title"] = ".".join((*place, key))
            if (*place, key) in said:
                what["description"] = said[*place, key]
    return {"$schema": DIALECT, **schema, "title": "The settings of one servesync agent"}


def section_tables(schema: Mapping[str, Any]) -> dict[Place, Mapping[str, Any]]:
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
