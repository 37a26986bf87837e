"""The file models.config: what it says, whose it is, and how it is replaced."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.demo.standin.config import ModelConfig, Policy, parse_config
from servesync.domain.versions import Model, Version
from servesync.errors import ConfigFileError, Reason
from servesync.install import Workspace
from servesync.serving import models_config
from servesync.serving.models_config import Entry, Found, ModelsConfig
from servesync.serving.textformat import parse, quoted

M, N = Model("m"), Model("n")
IF_ELSEWHERE = "(if the server finds the shelf there, set serving.server_models_dir to /old)"
ONE = ModelsConfig({M: Entry("/models/m", labels={"stable": Version(3), "canary": Version(5)})})


def test_what_it_says() -> None:
    """Models and labels sorted, the policy that the settings ask for, and strings that any parser reads."""
    config = ModelsConfig(
        {
            N: Entry('/mod\\els "ä"\n/n', latest=2),
            M: Entry("/models/m", labels={"stable": Version(3), "canary": Version(2**63 - 1)}),
        }
    )
    text = config.render().decode("ascii")

    assert parse_config(text) == [
        ModelConfig("m", "/models/m", Policy("all"), {"canary": 2**63 - 1, "stable": 3}),
        ModelConfig("n", '/mod\\els "ä"\n/n', Policy("latest", count=2)),
    ]
    assert text.index('"canary"') < text.index('"stable"')
    assert parse_config(ModelsConfig().render().decode()) == []


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


SCHEMA = """
name: "config.proto" package: "t" syntax: "proto3"
message_type { name: "Latest" field { name: "num_versions" number: 1 type: TYPE_UINT32 } }
message_type { name: "All" }
message_type { name: "Policy"
  field { name: "latest" number: 100 type: TYPE_MESSAGE type_name: ".t.Latest" }
  field { name: "all" number: 101 type: TYPE_MESSAGE type_name: ".t.All" } }
message_type { name: "ModelConfig"
  field { name: "name" number: 1 type: TYPE_STRING }
  field { name: "base_path" number: 2 type: TYPE_STRING }
  field { name: "model_platform" number: 4 type: TYPE_STRING }
  field { name: "model_version_policy" number: 7 type: TYPE_MESSAGE type_name: ".t.Policy" }
  field { name: "version_labels" number: 8 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".t.ModelConfig.VersionLabelsEntry" }
  nested_type { name: "VersionLabelsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING } field { name: "value" number: 2 type: TYPE_INT64 } } }
message_type { name: "ModelConfigList"
  field { name: "config" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: ".t.ModelConfig" } }
message_type { name: "ModelServerConfig"
  field { name: "model_config_list" number: 1 type: TYPE_MESSAGE type_name: ".t.ModelConfigList" } }
"""
"""The fields of TensorFlow Serving's messages, with their numbers."""


def test_protobuf_reads_it() -> None:
    """The library that the server uses reads every field, and the comments as comments."""
    path = 'a "quoted" \\ path\twith ü and \x7f'
    config = ModelsConfig(
        {M: Entry(f"/{path}", labels={"stable": Version(3)}), N: Entry("/n", latest=4)}, {M: {Version(2)}}
    )
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory, text_format  # noqa: PLC0415

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelServerConfig"))
    found = text_format.Parse(config.render().decode(), kind())

    first, second = found.model_config_list.config
    assert (first.name, first.base_path, first.model_platform) == ("m", f"/{path}", "tensorflow")
    assert first.model_version_policy.HasField("all")
    assert dict(first.version_labels) == {"stable": 3}
    assert second.model_version_policy.latest.num_versions == 4


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_any_string_comes_back(text: str) -> None:
    """Quoted in ASCII, and read again."""
    assert parse(f"a: {quoted(text)}") == [("a", text)]
    assert quoted(text).isascii()
    assert "\n" not in quoted(text)


def test_its_own_file_comes_back(tmp_path: Path) -> None:
    """State lies in the file: models, policies, labels, and the versions that labels have left."""
    path = tmp_path / "models.config"
    config = ModelsConfig({**ONE.models, N: Entry("/models/n", latest=1)}, {M: frozenset({Version(2)})})
    models_config.replace(path, config, Found())
    found = models_config.read(path)

    assert found.config == config
    assert (found.foreign, found.more) == ("", ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["models.config"]


@pytest.mark.parametrize(
    ("edit", "foreign"),
    [
        (lambda data: data, ""),
        (lambda data: data.replace(b"value: 3", b"value: 4"), "edited"),
        (lambda data: data + b"# a note\n", "edited"),
        (lambda data: data.split(b"\n", 1)[1], "did not write"),
        (lambda data: b"# mine\n" + data, "did not write"),
        (lambda _: b"", "did not write"),
        (lambda _: b"model_config_list {", "cannot be read"),
        (lambda _: b"\xff\xfe", "cannot be read"),
        (lambda _: b'model_config_list { config { name: "m" base_path: 3 } }', "cannot be read"),
    ],
)
def test_whose_it_is(edit: object, foreign: str, tmp_path: Path) -> None:
    """Only a file with the header and its digest is servesync's."""
    path = tmp_path / "models.config"
    path.write_bytes(edit(ONE.render()))  # type: ignore[operator]
    found = models_config.read(path)

    assert foreign in found.foreign
    assert bool(found.foreign) is bool(foreign)


def test_no_file_and_no_plain_file(tmp_path: Path) -> None:
    """None is none; a link, a directory or a pipe is somebody else's, and never opened."""
    assert models_config.read(tmp_path / "none") == Found()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere")
    for name, kind in (("pipe", "a pipe"), ("link", "a symbolic link"), (".", "a directory")):
        assert models_config.read(tmp_path / name).foreign == f"it is {kind}, not a regular file"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ('config { name: "m" base_path: "/models/m/" model_platform: "tensorflow" }', []),
        ('config { name: "m" base_path: "/models/m" model_type: TENSORFLOW }', ["model_type of m"]),
        (
            'config { name: "m" base_path: "/old/m" model_platform: "tensorflow" }',
            [f"base path /old/m of m {IF_ELSEWHERE}"],
        ),
        ('config { name: "x" base_path: "/models/x" model_platform: "tensorflow" }', ["model x"]),
        (
            """config { name: "m" base_path: "/models/m" model_platform: "tensorflow" logging_config { }
                version_labels { key: "old" value: 3 } version_labels { key: "stable" value: 3 } }""",
            ["logging_config of m", "label old of m"],
        ),
    ],
)
def test_what_a_takeover_would_lose(text: str, lost: list[str], tmp_path: Path) -> None:
    """Models, base paths, labels and fields that servesync would not write are each named."""
    path = tmp_path / "models.config"
    path.write_text(f"model_config_list {{ {text} }}")

    assert models_config.losses(models_config.read(path), ONE, {M: {"stable"}}) == lost


def test_what_cannot_be_read_is_lost_whole(tmp_path: Path) -> None:
    """Nobody knows what a server makes of it."""
    path = tmp_path / "models.config"
    path.write_text("model_config_list {")

    assert models_config.losses(models_config.read(path), ONE, {}) == ["whatever it says"]


def test_a_foreign_file_is_kept_once(tmp_path: Path) -> None:
    """The copy is of the first file that was taken over."""
    path, backup = tmp_path / "models.config", tmp_path / "models.config.before-servesync"
    for text in ("# mine\n", "# mine, too\n"):
        path.write_text(text)
        models_config.replace(path, ONE, models_config.read(path))

        assert path.read_bytes() == ONE.render()
        assert backup.read_text() == "# mine\n"


def test_what_somebody_wrote_meanwhile_stays(tmp_path: Path) -> None:
    """Between the look and the replacement the file is compared once more."""
    path = tmp_path / "models.config"
    models_config.replace(path, ONE, Found())
    seen = models_config.read(path)
    path.write_text("# somebody else's\n")

    with pytest.raises(ConfigFileError, match="just replaced it") as caught:
        models_config.replace(path, ModelsConfig(), seen)

    assert caught.value.reason is Reason.CONFIG_FILE_FAILED
    assert path.read_text() == "# somebody else's\n"
    assert names(tmp_path) == ["models.config"]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """What to do stands in the message."""
    with pytest.raises(ConfigFileError, match="make the directory") as caught:
        models_config.replace(tmp_path / "nowhere/models.config", ONE, Found())

    assert caught.value.reason is Reason.CONFIG_FILE_FAILED
    assert names(tmp_path) == []


def test_a_link_is_followed_to_the_operators_folder_only(tmp_path: Path) -> None:
    """Where the file is to be is the operator's business; below a models directory no link is followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    models_config.replace(tmp_path / "link/models.config", ONE, Found())
    assert models_config.read(tmp_path / "real/models.config").config == ONE

    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    (workspace.models_dir / "etc").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigFileError, match="must be a directory"):
        models_config.replace(workspace.models_dir / "etc/other.config", ONE, Found())

    assert [path.name for path in (tmp_path / "real").iterdir()] == ["models.config"]


def test_differences_are_named() -> None:
    """What a server will do differently, in words."""
    new = ModelsConfig(
        {
            M: Entry("/models/m", latest=1, labels={"stable": Version(4), "beta": Version(5)}),
            N: Entry("/models/n"),
        }
    )

    assert models_config.differences(ONE, new) == [
        "model n is new",
        "policy of m: all -> latest 1",
        "label beta of m: none -> 5",
        "label canary of m: 5 -> none",
        "label stable of m: 3 -> 4",
    ]
    assert models_config.differences(new, ONE)[0] == "model n is gone: the server unloads it"
    assert models_config.differences(None, ModelsConfig({N: Entry("/n")})) == ["model n is new"]
