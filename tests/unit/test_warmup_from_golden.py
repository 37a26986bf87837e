"""Golden requests become warm-up requests: the same each time, and sound; or they are refused."""

from pathlib import Path
from typing import Any

import pytest

from servesync.domain.versions import Model
from servesync.errors import Reason, SyncError
from servesync.publishing.warmup import warmup_from_golden
from servesync.verify import check_warmup
from servesync.verify.golden import GOLDEN
from warmup_bytes import framed, typed_signature, write_golden

M = Model("m")
SIGNATURES = [
    typed_signature("serving_default", {"x": (1, 2), "name": (7, 1)}),
    typed_signature("small", {"half": (19, 0)}),
]
GOOD: dict[str, Any] = {"inputs": {"x": [[1, 2.5]], "name": ["Anna"]}}


def refusal(root: Path) -> SyncError:
    """Return why no requests are made."""
    with pytest.raises(SyncError) as caught:
        warmup_from_golden(root, M)
    return caught.value


def test_one_request_for_each_golden_one_always_the_same(tmp_path: Path) -> None:
    """What is made is what the check takes; the order of the inputs in the file does not count."""
    turned = {"inputs": dict(reversed(GOOD["inputs"].items()))}
    small = {"signature": "small", "inputs": {"half": 0.5}}
    root = write_golden(tmp_path / "a", [GOOD, small], *SIGNATURES)
    other = write_golden(tmp_path / "b", [turned, small], *SIGNATURES)

    made = warmup_from_golden(root, M)

    assert made == warmup_from_golden(other, M)
    assert [path.name for path in (root / "assets.extra").iterdir()] == ["servesync_golden.json"]
    (root / made.path).write_bytes(made.data)
    assert check_warmup(root) == 2


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """A scalar of half precision, by hand: names, type, an empty shape, two bytes."""
    root = write_golden(tmp_path / "a", [{"signature": "small", "inputs": {"half": 1}}], *SIGNATURES)
    tensor = b"\x08\x13" + b"\x12\x00" + b"\x22\x02\x00\x3c"
    entry = b"\x0a\x04half" + b"\x12" + bytes([len(tensor)]) + tensor
    spec = b"\x0a\x01m" + b"\x1a\x05small"
    request = b"\x0a" + bytes([len(spec)]) + spec + b"\x12" + bytes([len(entry)]) + entry
    log = b"\x0a" + bytes([len(request)]) + request

    assert warmup_from_golden(root, M).data == framed(b"\x32" + bytes([len(log)]) + log)


def test_a_thousand_requests(tmp_path: Path) -> None:
    """As many as a file may hold: golden requests have the same bound."""
    root = write_golden(tmp_path / "a", [GOOD] * 1000, *SIGNATURES)
    made = warmup_from_golden(root, M)
    (root / made.path).write_bytes(made.data)

    assert check_warmup(root) == 1000


def test_without_golden_requests_there_is_nothing_to_make(tmp_path: Path) -> None:
    """Said with where to read on; exit code 2."""
    root = write_golden(tmp_path / "a", [GOOD], *SIGNATURES)
    (root / GOLDEN).unlink()

    error = refusal(root)
    assert error.reason is Reason.SETTINGS_INVALID
    assert GOLDEN in str(error)
    assert "docs/golden.md" in str(error)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_there_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """Nor is it passed over."""
    root = write_golden(tmp_path / "a", [GOOD], *SIGNATURES)
    file = root / "assets.extra/tf_serving_warmup_requests"
    if kind == "file":
        file.write_bytes(framed(b""))
    else:
        file.symlink_to("nowhere")

    error = refusal(root)
    assert error.reason is Reason.SETTINGS_INVALID
    assert "of its own: leave out --warmup-from-golden, or remove that file" in str(error)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"inputs": {"x": [["one"]], "name": ["Anna"]}}, "is no value of this type"),
        ({"inputs": {"x": [[1e39]], "name": ["Anna"]}}, "request 2: a number is too large for the type"),
        ({"signature": "small", "inputs": {"half": 70000}}, "request 2: a number is too large for the type"),
        ({"signature": "none", "inputs": {}}, "no such signature"),
    ],
)
def test_a_mistake_in_the_golden_requests(request_: dict[str, Any], words: str, tmp_path: Path) -> None:
    """They are read as strictly as for a trial load."""
    error = refusal(write_golden(tmp_path / "a", [GOOD, request_], *SIGNATURES))

    assert error.reason is Reason.GOLDEN_INVALID
    assert words in str(error)
