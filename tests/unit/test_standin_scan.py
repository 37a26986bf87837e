# ruff: noqa: E501 (a table is read by its rows)
"""What the scanner takes for a version, and what a poll asks for."""

import pytest

from servesync.demo.standin.config import ModelConfig, Policy
from servesync.demo.standin.scan import BasePathMissing, aspired, parse_name, poll

LATEST, ALL = Policy("latest"), Policy("all")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7), ("007", 7), ("+7", 7), (" 7", 7), ("7 ", 7), ("-3", -3), ("-0", 0), ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)), ("9223372036854775808", None), ("9" * 255, None), ("v7", None),
        ("7.tmp", None), (".7", None), ("_7", None), ("7_", None), ("0x7", None), ("1e3", None), ("7.0", None),
        ("", None), ("+", None), ("tmp-5", None), (".staging-7", None), ("1_0", None), ("\u0661", None), ("+-7", None),
    ],
)  # fmt: skip
def test_names(name: str, number: int | None) -> None:
    """O1: blanks, one sign, decimal digits, 64 bits; everything else is not seen."""
    assert parse_name(name) == number


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (LATEST, {10: "10"}),
        (Policy("latest", count=2), {9: "9", 10: "10"}),
        (Policy("latest", count=9), {-1: "-1", 9: "9", 10: "10"}),
        (ALL, {-1: "-1", 9: "9", 10: "10"}),
        (Policy("specific", versions=(9, 77)), {9: "9"}),
        (Policy("specific", versions=(77,)), {}),
        (Policy("specific"), {}),
    ],
)
def test_policies(policy: Policy, wanted: dict[int, str]) -> None:
    """The highest numbers, everything, or those of the list that are there."""
    assert aspired(["10", "9", "-1", "lost+found", ".x"], policy) == wanted


@pytest.mark.parametrize(
    ("policy", "names", "taken"),
    [
        (LATEST, ["1", "0000001"], "1"),
        (ALL, ["1", "0000001"], "0000001"),
        (LATEST, ["7 ", "7"], "7 "),
        (Policy("specific", versions=(7,)), ["7 ", "7"], "7"),
        (Policy("specific", versions=(7,)), ["7 ", "007"], "7 "),
    ],
)
def test_two_names_of_one_number(policy: Policy, names: list[str], taken: str) -> None:
    """O1: by the order of bytes the last, under `all` the first; `specific` prefers the plain decimal."""
    assert list(aspired(names, policy).values()) == [taken]


def disk(**folders: list[str] | None) -> object:
    """Return a function that lists; None stands for a directory that is missing."""

    def list_names(path: str) -> list[str]:
        names = folders[path.removeprefix("/")]
        if names is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return names

    return list_names


A, B = ModelConfig("a", "/a", LATEST), ModelConfig("b", "/b", ALL)


def test_a_poll_asks_for_paths() -> None:
    """Under the name that the directory has."""
    found = poll([A, B], disk(a=["1", "2"], b=["03"]))  # type: ignore[arg-type]

    assert found.wanted == {"a": {2: "/a/2"}, "b": {3: "/b/03"}}
    assert found.warnings == ()


@pytest.mark.parametrize("models", [[A, B], [B, A]])
def test_a_missing_base_path_voids_the_whole_poll(models: list[ModelConfig]) -> None:
    """Rule 3: also for the models that were listed before it."""
    with pytest.raises(BasePathMissing, match="/b"):
        poll(models, disk(a=["1"], b=None))  # type: ignore[arg-type]


def test_a_directory_without_versions_asks_for_nothing() -> None:
    """Rule 3: which is an order to unload everything, and only a warning."""
    found = poll([A], disk(a=["readme.txt"]))  # type: ignore[arg-type]

    assert found.wanted == {"a": {}}
    assert len(found.warnings) == 1


def test_what_is_odd_is_named() -> None:
    """Two directories for one number, and a version that the policy names in vain."""
    pinned = ModelConfig("a", "/a", Policy("specific", versions=(1, 5)))

    found = poll([pinned], disk(a=["1", "01"]))  # type: ignore[arg-type]

    assert found.wanted == {"a": {1: "/a/1"}}
    assert len(found.warnings) == 2
