# ruff: noqa: E501 (a table is read by its rows)
"""How the stand-in reads models.config and its command line."""

from pathlib import Path

import pytest

from servesync.demo.standin.config import (
    BadConfig,
    ModelConfig,
    Policy,
    check_change,
    parse_config,
    read_config,
)
from servesync.demo.standin.flags import BadFlag, Flags, parse_flags
from servesync.serving.textformat import parse

HEAD = 'name: "a" base_path: "/a" model_platform: "tensorflow" '
WHOLE = """
# a comment, and one more { after the end of a line
model_config_list: {
  config { name: "a" base_path: '/models/a' model_platform: "tensorflow" }  # behind a field
  config: <
    name: "b", base_path: "/models/" "b"; model_platform: "tensorflow"
    model_version_policy { specific { versions: 3 versions: 0x5 } }
    version_labels { key: "stable" value: 3 }
    version_labels: { key: "canary", value: 5 }
    logging_config { log_collector_config { type: "x" } sampling_config { } }
  >
}
"""


def one(fields: str) -> ModelConfig:
    """Return the only model of a configuration with these fields beside the usual ones."""
    (model,) = parse_config(f"model_config_list {{ config {{ {HEAD} {fields} }} }}")
    return model


def test_a_whole_configuration() -> None:
    """Messages with and without colon, both brackets, separators, comments, numbers in base sixteen."""
    assert parse_config(WHOLE) == [
        ModelConfig("a", "/models/a"),
        ModelConfig("b", "/models/b", Policy("specific", versions=(3, 5)), labels={"stable": 3, "canary": 5}),
    ]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Policy("latest", 1)),
        ("model_version_policy { }", Policy("latest", 1)),
        ("model_version_policy { latest { } }", Policy("latest", 1)),
        ("model_version_policy { latest { num_versions: 0 } }", Policy("latest", 1)),
        ("model_version_policy: { latest: { num_versions: 3 } }", Policy("latest", 3)),
        ("model_version_policy { all {} }", Policy("all")),
        ("model_version_policy { specific { versions: [4, 6] } }", Policy("specific", versions=(4, 6))),
        ("model_version_policy { specific {} }", Policy("specific")),
    ],
)
def test_policies(text: str, policy: Policy) -> None:
    """No policy is `latest 1`, and so is `latest 0`."""
    assert one(text).policy == policy


def test_a_configuration_without_models() -> None:
    """Comments alone, and an empty list, are a server without models."""
    assert parse_config("# nothing") == []
    assert parse_config("model_config_list { }") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models { }", "no field named models"),
        ('model_config_list { config { nam: "a" } }', "no field named nam"),
        (f"model_config_list {{ config {{ {HEAD} x: 1 }} }}", "no field named x"),
        (f"model_config_list {{ config {{ {HEAD} model_version_policy {{ newest {{}} }} }} }}", "newest"),
        (f"model_config_list {{ config {{ {HEAD} model_version_policy {{ all {{ x: 1 }} }} }} }}", "named x"),
        (f"model_config_list {{ config {{ {HEAD} model_version_policy {{ all {{}} latest {{}} }} }} }}", "than"),
        (f"model_config_list {{ config {{ {HEAD} version_labels {{ label: 'x' }} }} }}", "no field named label"),
        (f"model_config_list {{ config {{ {HEAD} version_labels {{ key: 3 }} }} }}", "must be a string"),
        (f"model_config_list {{ config {{ {HEAD} name: 'b' }} }}", "more than once"),
        (f"model_config_list {{ config {{ {HEAD} }} config {{ {HEAD} }} }}", "more than once"),
        ("model_config_list { config { name: a } }", "must be a string"),
        ('model_config_list { config { name: "a" base_path: "rel" model_platform: "tensorflow" } }', "absolute"),
        ('model_config_list { config { name: "a" base_path: "/a" } }', "model_platform"),
        ("model_config_list {", "not closed"),
        ("model_config_list >", "has no value"),
        ("model_config_list { >", "not closed"),
        ("}", "unexpected"),
        ("model_config_list", "too early"),
        ("model_config_list # { }", "too early"),
        ("a: [1", "expected , or ]|too early"),
        ('a: "never closed', "cannot read"),
        ("a: 0x", "cannot read"),
        ("a: 99999999999999999999999", "64 bits"),
        ("a {" * 200, "nested"),
        ("%", "cannot read"),
    ],
)  # fmt: skip
def test_a_bad_configuration_is_refused_whole(text: str, why: str) -> None:
    """One unknown field is as bad as a missing bracket."""
    with pytest.raises(BadConfig, match=why):
        parse_config(text)


def test_strings() -> None:
    """Escapes as in the language C, and both quotes."""
    assert parse(r"""a: "q\"\n\x41\101\\" 'it"s'""") == [("a", 'q"\nAA\\it"s')]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", None])
def test_files_that_cannot_be_read(data: bytes | None, tmp_path: Path) -> None:
    """An empty file, one that is no text, none at all: each is an error, and none a crash."""
    path = tmp_path / "models.config"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(BadConfig, match=r"models\.config"):
        read_config(path)


OLD = {"a": ModelConfig("a", "/a", labels={"stable": 1})}


@pytest.mark.parametrize(
    ("labels", "allow_unavailable", "accepted"),
    [
        ({}, False, True),
        ({"stable": 1}, False, True),
        ({"stable": 2}, False, False),
        ({"stable": 2}, True, False),
        ({"canary": 2}, False, False),
        ({"canary": 2}, True, True),
        ({"canary": 1}, False, True),
    ],
)
def test_labels_want_a_version_that_serves(
    labels: dict[str, int], *, allow_unavailable: bool, accepted: bool
) -> None:
    """O12: version 1 serves, 2 does not. A flag allows new labels for such; moving one it never allows."""
    try:
        check_change(
            OLD,
            [ModelConfig("a", "/a", labels=labels)],
            lambda _, version: version == 1,
            allow_unavailable=allow_unavailable,
        )
    except BadConfig:
        assert not accepted
    else:
        assert accepted


def test_a_platform_stays() -> None:
    """A model's name belongs to one platform."""
    with pytest.raises(BadConfig, match="platform"):
        check_change(OLD, [ModelConfig("a", "/a", platform="other")], lambda *_: True, allow_unavailable=True)


def test_flags_in_all_forms() -> None:
    """With an equals sign, with a space, truth values in the ways of absl; the last one counts."""
    flags, unknown = parse_flags(
        [
            "--rest_api_port=1", "-rest_api_port", "8501", "--max_num_load_retries", "0", "--no_such_flag=1",
            "--allow_version_labels_for_unavailable_models", "--version", "--noversion", "word",
            "--file_system_poll_wait_seconds=0.5", "--standin_die_with_parent=True",
        ]
    )  # fmt: skip

    assert flags == Flags(
        rest_api_port=8501,
        max_num_load_retries=0,
        allow_version_labels_for_unavailable_models=True,
        file_system_poll_wait_seconds=0.5,
        standin_die_with_parent=True,
    )
    assert unknown == ["--no_such_flag=1", "word"]


@pytest.mark.parametrize("words", [["--rest_api_port=x"], ["--rest_api_port"], ["--version=perhaps"]])
def test_flags_of_the_wrong_type(words: list[str]) -> None:
    """A flag that is known is not guessed at."""
    with pytest.raises(BadFlag, match=words[0].lstrip("-").partition("=")[0]):
        parse_flags(words)
