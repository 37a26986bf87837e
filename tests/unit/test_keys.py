# ruff: noqa: E501 (a table is read by its rows)
"""From keys to releases, without a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model, parse_canonical, parse_model
from servesync.errors import Reason
from servesync.store.keys import KeyKind, KeyPattern, ParsedKey
from servesync.store.listing import Listing, ListingBuilder, Settling

M = Model("m")


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("{model}/{version}", "m/1.tar.gz", ("m", 1, "archive", "")),
        ("{model}/{version}", "m/0000001.tgz", ("m", 1, "archive", "")),
        ("{model}/{version}", "m/9223372036854775807.tar", ("m", 2**63 - 1, "archive", "")),
        ("{model}/{version}", "m/1/saved_model.pb", ("m", 1, "member", "saved_model.pb")),
        ("{model}/{version}", "m/1/variables/variables.index", ("m", 1, "member", "variables/variables.index")),
        ("{model}/modelv{version}", "m/modelv3.tar.zst", ("m", 3, "archive", "")),
        ("exports/{model}-v{version}", "exports/my-model-v12.tar.gz", ("my-model", 12, "archive", "")),
        ("{version}/{model}", "7/m.tar.gz", ("m", 7, "archive", "")),
        ("{model}/{version}", "m/9223372036854775808.tar.gz", None),
        ("{model}/{version}", "m/-1.tar.gz", None),
        ("{model}/{version}", "m/+4.tar.gz", None),
        ("{model}/{version}", "m/ 7.tar.gz", None),
        ("{model}/{version}", "m/1_000.tar.gz", None),
        ("{model}/{version}", "m/\u0661.tar.gz", None),
        ("{model}/{version}", "m/1e3.tar.gz", None),
        ("{model}/{version}", "m/0x10.tar.gz", None),
        ("{model}/{version}", "m/latest.tar.gz", None),
        ("{model}/{version}", "m/.tar.gz", None),
        ("{model}/{version}", "m/1.tar.gz.manifest.json", None),
        ("{model}/{version}", "m/1.zip", None),
        ("{model}/{version}", "m/1.tar.gz\n", None),
        ("{model}/{version}", ".hidden/1.tar.gz", None),
        ("{model}/{version}", "../1.tar.gz", None),
        ("{model}/{version}", "a/m/1.tar.gz", None),
        ("{model}/{version}", "1.tar.gz", None),
        ("{model}.{version}", "m.1.tar.gz", ("m", 1, "archive", "")),
        ("{model}/{version}/{model}-{version}", "m/7/m-7.tar.gz", ("m", 7, "archive", "")),
        ("{model}/{version}/{model}-{version}", "m/7/m-007/saved_model.pb", ("m", 7, "member", "saved_model.pb")),
        ("{model}/{version}/{model}-{version}", "m/00/m-0.tar", ("m", 0, "archive", "")),
        ("{model}/{version}/{model}-{version}", "a-1/2/a-1-2.manifest.json", ("a-1", 2, "manifest", "")),
        ("{model}/{version}/{model}-{version}", "m/7/m-8.tar.gz", None),
        ("{model}/{version}/{model}-{version}", "m/7/m-70.tar.gz", None),
        ("{model}/{version}/{model}-{version}", "m/7/n-7.tar.gz", None),
        ("{model}/{version}/{model}-{version}", "m/7/M-7.tar.gz", None),
        ("{model}/{version}/data/model", "m/7/data/model/saved_model.pb", ("m", 7, "member", "saved_model.pb")),
        ("{model}/{version}/data/model", "m/7/MLmodel", None),
    ],
)  # fmt: skip
def test_what_a_key_says(pattern: str, key: str, expected: tuple[str, int, str, str] | None) -> None:
    """Only canonical names count; everything else is no release."""
    found = KeyPattern(pattern).parse(key)

    as_tuple = None if found is None else (found.model, found.version, found.kind.value, found.path)
    assert as_tuple == expected


def test_a_key_is_one_value() -> None:
    """Equal keys parse to equal values."""
    parse = KeyPattern("{model}/{version}").parse

    assert parse("m/01.tar") == parse("m/1.tar") == ParsedKey(M, 1, KeyKind.ARCHIVE)  # type: ignore[arg-type]


def group(*keys: str, max_members: int = 100) -> Listing:
    """Group keys of one byte each; those that end in a slash are empty."""
    builder = ListingBuilder(
        KeyPattern("{model}/{version}"), "prod/", lambda model: model != "other", max_members
    )
    for key in keys:
        assert builder.add(f"prod/{key}", 0 if f"/{key}".endswith("/") else 1, '"e"')
    return builder.finish(1)


def test_folder_markers_are_nothing() -> None:
    """Keys that end in a slash are what consoles leave; they are neither files nor releases."""
    listing = group("", "m/", "m/1/", "m/1/variables/", "m/2.tar.gz")

    assert [release.version for release in listing.releases[M]] == [2]
    assert listing.problems == {}
    assert listing.ignored_keys == 0


def test_an_object_that_only_looks_like_a_folder_marker_is_kept() -> None:
    """A key that ends in a slash and holds bytes is a file with a bad name: unpacking refuses it aloud."""
    builder = ListingBuilder(KeyPattern("{model}/{version}"), "", lambda _: True, 100)
    builder.add("m/1/saved_model.pb", 1, "e")
    builder.add("m/1/variables/", 1, "e")

    (release,) = builder.finish(1).releases[M]

    assert [item.path for item in release.objects] == ["saved_model.pb", "variables/"]


def test_empty_files_count() -> None:
    """An empty vocabulary is a file like any other."""
    builder = ListingBuilder(KeyPattern("{model}/{version}"), "", lambda _: True, 100)
    builder.add("m/1/saved_model.pb", 1, "e")
    builder.add("m/1/assets/vocabulary.txt", 0, "e")

    (release,) = builder.finish(1).releases[M]

    assert [item.path for item in release.objects] == ["assets/vocabulary.txt", "saved_model.pb"]


@pytest.mark.parametrize("key", ["m/1.tar.gz", "m/1/saved_model.pb"])
def test_a_key_that_comes_twice_is_told(key: str) -> None:
    """No listing has a key twice; one that does is not to be trusted."""
    builder = ListingBuilder(KeyPattern("{model}/{version}"), "", lambda _: True, 100)

    assert builder.add(key, 1, "e")
    assert not builder.add(key, 1, "e")


def test_models_that_nobody_wants_are_not_kept_and_not_odd() -> None:
    """They cost no memory, and are no examples of keys that say nothing."""
    listing = group("m/1.tar.gz", "other/1.tar.gz", "other/2/saved_model.pb", "m/latest.tar.gz")

    assert list(listing.releases) == [M]
    assert listing.problems == {}
    assert (listing.ignored_keys, listing.ignored_examples) == (1, ("'m/latest.tar.gz'",))


@given(st.permutations(["m/1/saved_model.pb", "m/1/assets/a", "m/1/variables/variables.index", "m/2.tar"]))
def test_the_order_of_the_keys_does_not_matter(keys: list[str]) -> None:
    """Stores list in different orders; a release is the same, and so is its identity."""
    assert group(*keys).releases == group(*sorted(keys)).releases


@given(
    model=st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True),
    version=st.integers(0, 2**63 - 1),
    zeros=st.integers(0, 10),
    pattern=st.sampled_from(["{model}/{version}", "{model}/modelv{version}", "a/{model}+v{version}", "{version}/{model}", "{model}/{version}/{model}-{version}"]),
    ending=st.sampled_from([".tar.gz", ".tgz", ".tar.zst", ".tar", "/saved_model.pb"]),
)  # fmt: skip
def test_what_a_pattern_writes_it_reads(
    model: str, version: int, zeros: int, pattern: str, ending: str
) -> None:
    """Every model and version survives the way into a key and back."""
    key = pattern.format(model=model, version="0" * zeros + str(version)) + ending

    parsed = KeyPattern(pattern).parse(key)

    assert parsed is not None
    assert (parsed.model, parsed.version) == (model, version)


@given(st.text(max_size=40) | st.from_regex(r"[./0-9m+\-_ \x1b]{1,30}(\.tar|/x)", fullmatch=True))
def test_whatever_a_key_is_a_release_has_a_good_name(key: str) -> None:
    """No key of any store makes a model or a version that the rest could not use as a file name."""
    parsed = KeyPattern("{model}/{version}").parse(key)

    if parsed is not None:
        assert parse_model(parsed.model) == parsed.model
        assert parse_canonical(str(parsed.version)) == parsed.version


def test_a_directory_with_too_many_files_is_refused() -> None:
    """limits.max_members holds for the listing, too: memory stays bounded."""
    listing = group("m/1/saved_model.pb", *(f"m/1/a{n}" for n in range(10)), max_members=5)

    assert [problem.reason for problem in listing.problems.values()] == [Reason.RELEASE_TOO_BIG]


def test_two_folders_for_one_version_are_ambiguous() -> None:
    """m/1/ and m/01/ are one version, twice."""
    listing = group("m/1/saved_model.pb", "m/01/saved_model.pb")

    assert [problem.reason for problem in listing.problems.values()] == [Reason.RELEASE_AMBIGUOUS]


def test_hostile_keys_are_shown_escaped() -> None:
    """What ends up on a terminal cannot steer it."""
    listing = group("m/\x1b[2Jx", "m/\n")

    assert listing.ignored_keys == 2
    assert all(example.isprintable() for example in listing.ignored_examples)


def test_a_directory_settles_when_it_stays_as_it_is() -> None:
    """Each change starts the wait anew; an archive never waits."""
    settling = Settling(60)
    old = group("m/1/saved_model.pb", "m/2.tar.gz").releases[M]
    new = group("m/1/saved_model.pb", "m/1/assets/x", "m/2.tar.gz").releases[M]

    assert settling.remaining(M, old, 0.0) == {1: 60.0}
    assert settling.remaining(M, old, 50.0) == {1: 10.0}
    assert settling.remaining(M, new, 55.0) == {1: 60.0}
    assert settling.remaining(M, new, 115.0) == {}
