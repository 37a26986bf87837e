"""The settings as editors and readers get them: complete, up to date, and true."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from servesync.cli import run_command_line
from servesync.settings import Settings
from servesync.settings_schema import comments, example, json_schema
from settings_markdown import markdown

ROOT = Path(__file__).parents[2]


def refused(settings: object) -> list[str]:
    """Return where a JSON Schema validator sees mistakes."""
    jsonschema = pytest.importorskip("jsonschema", reason="no jsonschema here (pip install jsonschema)")
    validator = jsonschema.Draft202012Validator(json_schema())
    return sorted(".".join(map(str, error.absolute_path)) for error in validator.iter_errors(settings))


def example_with(section: str, **keys: object) -> Any:
    """Return the example's settings with other keys in a section."""
    found = yaml.safe_load(example())
    found[section].update(keys)
    return found


def test_every_key_is_explained() -> None:
    """Also those of the tables within sections."""
    said = comments(example())
    schema = json_schema()
    silent = [
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        if section != "models"
        for key in getattr(field.annotation, "model_fields")  # noqa: B009 (a model's class)
        if (section, key) not in said
    ]

    assert silent == []
    for name in ("ModelSettings", "LoadLimits"):
        assert [
            key for key, what in schema["$defs"][name]["properties"].items() if "description" not in what
        ] == []


def test_what_an_editor_shows() -> None:
    """The path, the comment, the default and the bounds of a key."""
    found = json_schema()["$defs"]["Fetch"]["properties"]["connections"]

    assert found == {
        "title": "fetch.connections",
        "description": "So many ranged reads at a time.",
        "default": 8,
        "minimum": 1,
        "maximum": 64,
        "type": "integer",
    }


def test_comments_belong_to_the_key_below() -> None:
    """At the same indentation, without a gap; above the first key of an item they are the list's."""
    outer = "# far\n\n# a\n# b\nx:\n  # one\n  y: {z: 1}\n  # not of y\n"
    text = outer + "list:\n  # items\n  - n: 1\n    # m\n    m: 2\n"

    assert comments(text) == {("x",): "a b", ("x", "y"): "one", ("list",): "items", ("list", "m"): "m"}


def test_the_page_is_up_to_date() -> None:
    """`make docs` makes it anew."""
    assert (ROOT / "docs" / "settings.md").read_text() == markdown(), "run make docs"


def test_the_schema_is_valid_itself() -> None:
    """For the dialect that it names."""
    jsonschema = pytest.importorskip("jsonschema", reason="no jsonschema here (pip install jsonschema)")

    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_example_is_valid() -> None:
    """An editor marks nothing in it."""
    assert refused(yaml.safe_load((ROOT / "config.example.yaml").read_text())) == []


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        (example_with("poll", interval_seconds=0), ["poll.interval_seconds"]),
        (example_with("poll", intervall=1), ["poll"]),
        (example_with("log", level="loud", format="xml"), ["log.format", "log.level"]),
        (example_with("store", region="Frankfurt am Main"), ["store.region"]),
        (example_with("verify", load={"threads": 1}), ["verify.load.threads"]),
        (example_with("fetch", max_bytes_per_second="fast"), ["fetch.max_bytes_per_second"]),
        ({"store": {"url": "s3://b"}, "serving": {"models_dir": "/m"}}, [""]),
        ({"store": {"url": "s3://b"}, "serving": {"models_dir": "/m"}, "models": []}, ["models"]),
        ({"store": {"url": "s3://b"}, "serving": {"models_dir": "/m"}, "models": [{"name": "m"}]}, []),
    ],
)
def test_an_editor_marks_mistakes(settings: object, places: list[str]) -> None:
    """At the key where they are."""
    assert refused(settings) == places


@pytest.mark.parametrize("wish", [None, "as_served", {"s": {"inputs": {}, "outputs": {}}}])
def test_signatures_in_an_editor(wish: object) -> None:
    """All three forms, and no other word."""
    settings = example_with("log")
    settings["models"] = [{"name": "m", "signatures": wish}]
    assert refused(settings) == []

    settings["models"] = [{"name": "m", "signatures": "served"}]
    assert refused(settings) == ["models.0.signatures"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema, or the example file."""
    assert run_command_line(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert run_command_line(["schema", "--example"]) == 0
    assert capsys.readouterr().out == (ROOT / "config.example.yaml").read_text()
