"""Golden requests are refused with the place of the mistake, before TensorFlow is asked anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Signature, TensorSpec
from servesync.verify.compare import decoded, worst
from servesync.verify.golden import GOLDEN, MAX_BYTES, Request, read_golden

SIGNATURES = {
    "serving_default": Signature(
        inputs={"x": TensorSpec(dtype="float32", shape=[None, 2])},
        outputs={"y": TensorSpec(dtype="int8", shape=[None]), "c": TensorSpec(dtype="complex64")},
    ),
    "words": Signature(
        inputs={"w": TensorSpec(dtype="string", shape=[])}, outputs={"b": TensorSpec(dtype="bool", shape=[])}
    ),
}
GOOD: dict[str, Any] = {"inputs": {"x": [[1, 2.5]]}, "outputs": {"y": [3]}}


def read(folder: Path, content: str | bytes | dict[str, Any]) -> list[Request]:
    """Read golden requests from a version with this file; an object is one request."""
    if isinstance(content, dict):
        content = json.dumps({"schema": "servesync.golden/1", "requests": [content]})
    path = folder / GOLDEN
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_golden(folder, SIGNATURES)


def test_a_version_without_golden_requests(tmp_path: Path) -> None:
    """Nobody has to have any."""
    assert read_golden(tmp_path, SIGNATURES) == []


def test_a_folder_in_its_place_is_the_mistake_of_the_release(tmp_path: Path) -> None:
    """Not the disk's: it would be tried again for ever."""
    (tmp_path / GOLDEN).mkdir(parents=True)

    with pytest.raises(ReleaseRefused, match="not a regular file") as caught:
        read_golden(tmp_path, SIGNATURES)
    assert caught.value.reason is Reason.GOLDEN_INVALID


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    """The usual signature, and tolerances of 1e-4."""
    (found,) = read(tmp_path, GOOD)

    assert (found.signature, found.absolute_tolerance, found.relative_tolerance) == (
        "serving_default",
        1e-4,
        1e-4,
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff", "not valid JSON"),
        ("[", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "schema"),
        (b" " * (MAX_BYTES + 1), "larger than"),
        ('{"schema": "servesync.golden/2", "requests": []}', "servesync.golden/1"),
        ('{"schema": "servesync.golden/1", "requests": []}', "at least 1 item"),
        ('{"schema": "servesync.golden/1", "schema": 1, "requests": []}', "'schema' stands twice"),
        ('{"schema": NaN}', 'write it as a string: "NaN"'),
        (GOOD | {"tolerance": 1}, "requests.0.tolerance"),
        (GOOD | {"absolute_tolerance": -1}, "requests.0.absolute_tolerance"),
        (GOOD | {"outputs": {}}, "requests.0.outputs"),
        (GOOD | {"signature": "other"}, "request 1, signature 'other': the version has no such signature"),
        (GOOD | {"inputs": {"z": 1}}, "inputs missing: 'x'; no such inputs: 'z'"),
        (GOOD | {"outputs": {"z": 1}}, "no such outputs: 'z'"),
        (GOOD | {"inputs": {"x": [[1, 2], [3]]}}, "lists of uneven length"),
        (GOOD | {"inputs": {"x": [[1, 2, 3]]}}, "has the shape [1, 3], the signature says [?, 2]"),
        (GOOD | {"inputs": {"x": [[1, "two"]]}}, "'two' is no value of this type"),
        (GOOD | {"inputs": {"x": [[1, True]]}}, "True is no value"),
        (GOOD | {"inputs": {"x": [[1, None]]}}, "None is no value"),
        (GOOD | {"inputs": {"x": [[1, 10**400]]}}, "too large"),
        (GOOD | {"outputs": {"y": [128]}}, "128 is no value"),
        (GOOD | {"outputs": {"y": [1.0]}}, "1.0 is no value"),
        (GOOD | {"outputs": {"c": 1}}, "dense tensors of complex64 are not supported"),
        ({"signature": "words", "inputs": {"w": {"b64": "?"}}, "outputs": {"b": True}}, "is no value"),
        ({"signature": "words", "inputs": {"w": "\ud800"}, "outputs": {"b": True}}, "is no value"),
        ({"signature": "words", "inputs": {"w": "x"}, "outputs": {"b": 1}}, "1 is no value"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(content: str | bytes | dict[str, Any], expected: str, tmp_path: Path) -> None:
    """File, request, signature and tensor, in one reason."""
    with pytest.raises(ReleaseRefused) as caught:
        read(tmp_path, content)

    assert caught.value.reason is Reason.GOLDEN_INVALID
    assert str(caught.value).startswith(f"{GOLDEN}: ")
    assert expected in str(caught.value)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
@settings(deadline=None)
def test_no_value_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Whatever stands for an input, it is a tensor that fits or a mistake of this file."""
    folder = tmp_path_factory.getbasetemp()
    reason = None
    try:
        read(folder, GOOD | {"inputs": {"x": value}})
    except ReleaseRefused as error:
        reason = error.reason

    assert reason in {None, Reason.GOLDEN_INVALID}


@pytest.mark.parametrize(
    ("found", "expected", "place"),
    [
        (1.0, 1.0001, None),
        (1.0, 1.01, []),
        ([[0.0, 5.0], [0.0, 9.0]], [[0, 0], [0, 0]], [1, 1]),
        (float("nan"), "NaN", None),
        (float("nan"), 0.0, []),
        (0.0, "NaN", []),
        (float("inf"), "Infinity", None),
        (float("inf"), "-Infinity", []),
        (float("inf"), 1e308, []),
        (1e308, -1e308, []),
        ([], [], None),
        ([1], [], []),
        (7, 8, []),
        ([True, False], [True, True], [1]),
    ],
)
def test_only_what_is_near_enough_passes(found: Any, expected: Any, place: list[int] | None) -> None:
    """Floats by tolerance, NaN only for NaN, everything else exactly; the worst place is the one named."""
    difference = worst(found, decoded(expected, text=False), absolute=1e-4, relative=1e-4)

    assert (difference and difference["place"]) == place


def test_strings_are_compared_as_bytes() -> None:
    """Whether they were written as text or in base 64."""
    expected = decoded(["\u00e9", {"b64": "/w=="}], text=True)

    assert worst([b"\xc3\xa9", b"\xff"], expected, 0, 0) is None
    assert worst([b"\xc3\xa9", b"\xfe"], expected, 0, 0) is not None
