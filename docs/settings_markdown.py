"""Prints `docs/settings.md`, made of the JSON Schema and the example file: `make docs`."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from servesync.settings import GIB, MIB
from servesync.settings_schema import EXAMPLE, json_schema, section_tables

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


def markdown() -> str:
    """Return the page."""
    schema = json_schema()
    tables = section_tables(schema)
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


if __name__ == "__main__":
    sys.stdout.write(markdown())
