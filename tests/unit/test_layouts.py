# ruff: noqa: E501 (a table is read by its rows)
"""Layouts as other tools leave them in a bucket: placeholders, models some folders deeper, other names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Store
from servesync.store.explain import KeyProblem, explain
from servesync.store.keys import KeyPattern
from servesync.store.listing import Listing, ListingBuilder
from servesync.verify import verify_structure

M = Model("m")
PLAIN = "{model}/{version}"
MODEL = ("m/1/saved_model.pb", "m/1/variables/variables.index", "m/1/assets/words.txt")


def group(*keys: str, empty: Sequence[str] = (), pattern: str = PLAIN) -> Listing:
    """Group keys of one byte each, and `empty` ones."""
    builder = ListingBuilder(KeyPattern(pattern), "prod/", lambda _: True, 100)
    for key in (*keys, *empty):
        assert builder.add(f"prod/{key}", 0 if key in empty else 1, '"e"')
    return builder.finish(1)


def problem(*keys: str, pattern: str = PLAIN) -> str:
    """Return why the one version of these keys is no release."""
    (error,) = group(*keys, pattern=pattern).problems.values()
    assert error.reason is Reason.RELEASE_INCOMPLETE
    assert str(error).isprintable()
    return str(error)


# -- placeholders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [
        ("m/1/variables",),
        ("m/1/variables_$folder$", "m/1/assets_$folder$", "m/1_$folder$", "m_$folder$"),
        ("m", "m/1", "m/1/", "m/1/assets", "m/1/assets.extra"),
        ("m/1/assets/words.txt/", "m/1/"),
        ("m/01/variables", "m/001/saved_model.pb"),
    ],
)
def test_empty_objects_that_stand_for_folders_count_for_nothing(empty: tuple[str, ...]) -> None:
    """Whichever tool left them: no file, no second source of the version, no other identity, no odd key."""
    listing = group(*MODEL, empty=empty)

    assert listing.releases == group(*MODEL).releases
    assert listing.problems == {}
    assert listing.ignored_keys == 0


@pytest.mark.parametrize(
    "key", ["m/2/variables", "m/2/saved_model.pb", "m/2/x_$folder$", "m/2", "m/2/assets/a/b"]
)
def test_empty_objects_alone_make_no_version(key: str) -> None:
    """Of a folder that was emptied some stores keep the markers: there is nothing to install or to finish."""
    listing = group(*MODEL, empty=[key])

    assert [release.version for release in listing.releases[M]] == [1]
    assert listing.problems == {}


def test_what_is_left_of_a_folder_does_not_shadow_an_archive() -> None:
    """The archive is the version, as if the markers were not there."""
    listing = group("m/3.tar.gz", empty=["m/3/variables", "m/3_$folder$"])

    assert listing == group("m/3.tar.gz")


def test_a_file_in_place_of_a_folder_is_still_told() -> None:
    """With bytes in it, it is no placeholder: it stays in the release, and unpacking refuses it aloud."""
    (release,) = group(*MODEL, "m/1/variables", "m/1/x_$folder$").releases[M]

    assert {"variables", "x_$folder$"} < {item.path for item in release.objects}


def test_an_empty_archive_is_no_folder() -> None:
    """Where the model's name comes last, an archive's key looks like a model's folder, and is an archive."""
    listing = group(empty=["7/m.tar.gz"], pattern="{version}/{model}")

    assert [release.version for release in listing.releases[M]] == [7]


# -- a model some folders deeper ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "place", "pattern"),
    [
        (("m/7/MLmodel", "m/7/data/model/saved_model.pb"), "prod/m/7/data/model'", "{model}/{version}/data/model"),
        (("m/7/export/Servo/7/saved_model.pb",), "m/7/export/Servo/7'", "{model}/{version}/export/Servo/{version}"),
        (("m/7/export/Servo/1/saved_model.pb",), "m/7/export/Servo/1'", "{model}/{version}/export/Servo/1"),
        (("m/7/model.savedmodel/saved_model.pb", "m/7/x"), "model.savedmodel'", "{model}/{version}/model.savedmodel"),
        (("m/7/m-0007/saved_model.pb", "m/7/m-0007/saved_model.pbtxt"), "m/7/m-0007'", "{model}/{version}/{model}-{version}"),
        (("m/7/output/model.tar.gz",), "m/7/output/model.tar.gz", "{model}/{version}/output/model"),
        (("m/7/7.tar.zst", "m/7/metrics.json"), "m/7/7.tar.zst", "{model}/{version}/{version}"),
        (("m/7/a/b/saved_model.pb", "m/7/a/saved_model.pb"), "'prod/m/7/a'", "{model}/{version}/a"),
    ],
)  # fmt: skip
def test_a_deeper_model_is_named_with_the_pattern_that_serves_it(
    keys: tuple[str, ...], place: str, pattern: str
) -> None:
    """To finish the upload would be of no use: it is finished. By the pattern that is named it is served."""
    said = problem(*keys)

    assert place in said
    assert f'store.key_pattern: "{pattern}"' in said
    assert "finish the upload" not in said
    (release,) = group(*keys, pattern=pattern).releases[M]
    assert release.version == 7


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("m/7/export/Servo/1512345678/saved_model.pb",), ("export/Servo/1512345678'", "as version 7")),
        (("m/2024/01/02/saved_model.pb",), ("m/2024/01/02'", "such as 20240102")),
        (("m/2024/01/02.tar.gz",), ("m/2024/01/02.tar.gz", "such as 20240102")),
        (("m/7/{x}/saved_model.pb",), ("m/7/{x}", "as version 7")),
        (("m/7/\x1b[2J/saved_model.pb",), ("m/7/\\x1b[2J", "as version 7")),
        (
            ("m/7/b/saved_model.pb", "m/7/a/saved_model.pb", "m/7/a/x/saved_model.pb"),
            ("m/7/a'", "1 more like it"),
        ),
    ],
)
def test_a_pattern_that_would_serve_one_version_only_is_not_named(
    keys: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """The time of an export and a date are others in the next version."""
    said = problem(*keys)

    assert all(word in said for word in words)
    assert 'key_pattern: "' not in said


@pytest.mark.parametrize("key", ["m/7/variables/variables.index", "m/7/assets/words.tar.gz", "m/7/assets/x"])
def test_an_upload_that_goes_on_is_waited_for(key: str) -> None:
    """Nothing that looks like a model has come yet."""
    assert "finish the upload" in problem(key)


@pytest.mark.parametrize("inside", ["data/model", "7", "export/Servo/1512345678"])
def test_a_directory_whose_model_lies_deeper(inside: str, tmp_path: Path) -> None:
    """`verify` and `publish` were given the folder around it: which one to give is said."""
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "loop").symlink_to(tmp_path)

    with pytest.raises(ReleaseRefused, match=f"deeper, in '{inside}'") as refused:
        verify_structure(tmp_path)

    assert refused.value.reason is Reason.SAVED_MODEL_MISSING
    with pytest.raises(ReleaseRefused, match="export the model again"):
        verify_structure(tmp_path / "loop" / "nowhere")


# -- keys that name no version -----------------------------------------------------------------------------


def explained(key: str, pattern: str = PLAIN) -> KeyProblem:
    """Return why a key is no release."""
    found = explain(pattern, key, {"m"})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("m/2024-01-01.tar.gz", "20240101"),
        ("m/2024_12_31/saved_model.pb", "20241231"),
        ("m/2024-01-01T10:30:00Z.tar.gz", "20240101103000"),
        ("m/20240101-1030.tar.gz", "202401011030"),
        ("m/v2024.01.01.tar.gz", "20240101"),
        ("m-2024-01-01.tar.gz", "20240101"),
        ("m/runs/2024/01/31/saved_model.pb", "20240131"),
        ("m/1.2.0.tar.gz", "1002000"),
        ("m/v1.2.tar.gz", "1002000"),
        ("m/1.2.0-rc1+build5/saved_model.pb", "1002000"),
        ("m/out/1.12.3.tar.gz", "1012003"),
    ],
)
def test_a_date_or_a_semantic_version_gets_a_number(key: str, number: str) -> None:
    """No pattern serves these: the part that it would take for the number is not the only one that grows."""
    said = explained(key).text

    assert f"publish it as {number}" in said
    assert "{version}" not in said


@pytest.mark.parametrize(
    "key", ["m/abc3def.tar.gz", "m/3rd.tar.gz", "m/0a1b2c3d4e.tar.gz", "m/deadbeef01.tar.gz", "m/1-2.tar.gz", "m/a1b2.tgz"]
)  # fmt: skip
def test_no_pattern_is_proposed_for_a_single_key(key: str) -> None:
    """One run of digits behind a plain prefix may be a number; a hash, or digits in the middle, are none."""
    assert "{version}" not in explained(key).text


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("m/v3.tar.gz", "{model}/v{version}"),
        ("m/build_17/saved_model.pb", "{model}/build_{version}"),
        ("m/release-0042.tar.zst", "{model}/release-{version}"),
        ("m/export/3.tar.gz", "{model}/export/{version}"),
        ("m/export/Servo/7/saved_model.pb", "{model}/export/Servo/{version}"),
        ("team/m/run-3/model/variables/variables.index", "team/{model}/run-{version}/model"),
        ("m/3/model.tar.gz", "{model}/{version}/model"),
    ],
)
def test_a_pattern_that_serves_the_next_version_too_is_proposed(key: str, pattern: str) -> None:
    """By that pattern the key names a version of the model."""
    assert pattern in explained(key).text
    parsed = KeyPattern(pattern).parse(key)
    assert parsed is not None
    assert parsed.model == "m"


_PIECES: Final = (
    *("m", "1", "7", "007", "v1", "m-1", "m_7", "/", "/", "/", "2020-01-01", "1.2.0", "export/Servo/1", "assets/"),
    *('q"q', "it's", "größe", "שלום", "\u2764\ufe0f", "a\u0323\u0303", "#x", " - y", ": z", "$(id)", "..", "{}", "*", "\\", "\x1b"),
    *(".tar.gz", "/saved_model.pb", "/model.tar.gz", "/variables/x"),
)  # fmt: skip


@given(st.sampled_from(("m/7/", "m/7", "/m/7/", "")), st.lists(st.sampled_from(_PIECES), max_size=8))
def test_every_proposed_pattern_can_be_set_and_serves_the_key(head: str, pieces: Sequence[str]) -> None:
    """As it stands in the message it goes into the settings file, whatever the folders are called."""
    key = head + "".join(pieces)
    for pattern in (PLAIN, "{model}-{version}", "{model}/{version}/{model}-{version}"):
        found = explain(pattern, key, {"m"})
        texts = [str(error) for error in group(key, pattern=pattern).problems.values()]
        for text in [found.text, *texts] if found else texts:
            assert text.isascii()
            for quoted in re.findall(r'store\.key_pattern: ("(?:[^"\\]|\\.)*")', text):
                store = Store(url="s3://bucket", key_pattern=yaml.safe_load(quoted))

                assert KeyPattern(store.key_pattern).parse(key) is not None


@pytest.mark.parametrize(
    ("key", "proposed"),
    [
        ('m/7/a"b/saved_model.pb', r'store.key_pattern: "{model}/{version}/a\"b"'),
        ("m/7/größe/saved_model.pb", r'store.key_pattern: "{model}/{version}/gr\xf6\xdfe"'),
    ],
)
def test_a_proposed_pattern_is_quoted_as_yaml(key: str, proposed: str) -> None:
    """A folder's name ends no string, and looks like no other one on a terminal."""
    assert f"set {proposed} if" in problem(key)


def test_an_empty_name_is_in_no_proposed_pattern() -> None:
    """The settings refuse `//` and a slash in front, so it would lead from one mistake to another."""
    assert "no store.key_pattern serves that" in problem("m/7//a/saved_model.pb")


def test_two_names_that_do_not_agree_are_told() -> None:
    """The pattern names the model or the version twice, and the key says two things."""
    pattern = "{model}/{version}/{model}-{version}"

    assert explained("m/1/m-2.tar.gz", pattern).kind == "two_names"
    assert explained("m/1/n-1.tar.gz", pattern).kind == "two_names"
    assert "{model}/v{version}/{model}-v{version}" in explained("m/v1/m-v1.tar.gz", pattern).text


def test_what_lies_beside_a_deeper_model_is_left_alone() -> None:
    """MLflow keeps its own files beside: they are neither a mistake nor another pattern."""
    assert explained("m/7/MLmodel", f"{PLAIN}/data/model").kind == "beside"


@given(
    st.text(max_size=60)
    | st.from_regex(r"m/[m/0-9.{}v\-_$ 2024\x1b\n]{1,40}(\.tar\.gz|/saved_model\.pb)", fullmatch=True)
)
def test_whatever_a_key_is_it_is_explained_or_a_release(key: str) -> None:
    """No key of any store raises anything, whatever the pattern."""
    for pattern in (
        PLAIN,
        "{model}-v{version}",
        "{model}/{version}/{model}-{version}",
        f"{PLAIN}/data/model",
    ):
        found = explain(pattern, key, {"m"})

        assert found is not None or KeyPattern(pattern).parse(key) is not None
        assert found is None or found.text.isprintable()
        assert all(str(error).isprintable() for error in group(key, pattern=pattern).problems.values())
