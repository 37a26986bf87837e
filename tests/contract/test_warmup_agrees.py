"""TensorFlow and we read the same warm-up files, and refuse the same damage."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from servesync.domain.versions import Model
from servesync.errors import ReleaseRefused
from servesync.publishing.warmup import warmup_from_golden
from servesync.verify import check_warmup
from servesync.verify.tfrecord import record, records
from servesync.wire import Malformed
from warmup_bytes import framed, log, predict, spec, tasks, typed_signature, write_golden, write_warmup

DATA_LOSS = 15
SMALL = framed(predict("x")) + framed(b"")
KINDS = [predict("x"), log("classify", spec()), log("regress", spec("two")), tasks(("two", "m")), b""]


def told_by_tensorflow(folder: Path, written: Mapping[str, list[bytes]]) -> dict[str, Any]:
    """Let TensorFlow write files, and return what it reads in all of them."""
    hexadecimal = {name: [data.hex() for data in given] for name, given in written.items()}
    (folder / "write.json").write_text(json.dumps(hexadecimal))
    script = Path(__file__).parents[1] / "support/tensorflow_records.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], check=False, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


TYPES = {
    "float32": (1, [[1.5, "NaN"], ["-Infinity", 1]], [["1.5", "nan"], ["-inf", "1.0"]]),
    "float64": (2, [1e300, -0.1], ["1e+300", "-0.1"]),
    "int32": (3, [-(1 << 31), (1 << 31) - 1], ["-2147483648", "2147483647"]),
    "uint8": (4, 255, "255"),
    "int16": (5, [-32768], ["-32768"]),
    "int8": (6, [[-128]], [["-128"]]),
    "string": (7, ["Anna", {"b64": "/w=="}, "", "ü"], ["b'Anna'", "b'\\xff'", "b''", "b'\\xc3\\xbc'"]),
    "int64": (9, [-(1 << 63)], [str(-(1 << 63))]),
    "bool": (10, [True, False], ["True", "False"]),
    "bfloat16": (
        14,
        [1, 3.14159, 1.00390625, 1.01171875, "NaN", "Infinity", 3.4028e38],
        ["1", "3.14062", "1", "1.01562", "nan", "inf", "inf"],
    ),
    "uint16": (17, [65535], ["65535"]),
    "float16": (19, [0.5, "NaN"], ["0.5", "nan"]),
    "uint32": (22, [(1 << 32) - 1], ["4294967295"]),
    "uint64": (23, [(1 << 64) - 1], [str((1 << 64) - 1)]),
}
"""By name: the number of the type, a golden input of it, and what NumPy says of its elements."""
EMPTY: dict[str, tuple[int, Any, Any]] = {
    "no_rows": (1, [], []),
    "no_columns": (3, [[], []], [[], []]),
    "no_words": (7, [], []),
}


def rank_of(value: object) -> int:
    """Return how many dimensions nested lists have."""
    return 1 + (rank_of(value[0]) if value else 0) if isinstance(value, list) else 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files: of ours, and a small one with each of its bytes turned, and cut at each."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "ours").write_bytes(b"".join(map(record, [b"a", b"", bytes(3000)])))
    inputs = TYPES | EMPTY
    typed = typed_signature(
        "all", {name: (dtype, rank_of(value)) for name, (dtype, value, _) in inputs.items()}
    )
    requests: list[dict[str, Any]] = [
        {"signature": "all", "inputs": {name: value for name, (_, value, _) in inputs.items()}},
        {"inputs": {}},
    ]
    root = write_golden(folder.with_name("golden"), requests, typed, typed_signature("serving_default", {}))
    (folder / "requests").write_bytes(warmup_from_golden(root, Model("m")).data)
    for place in range(len(SMALL)):
        damaged = bytearray(SMALL)
        damaged[place] ^= 0x10
        (folder / f"damaged-{place}").write_bytes(damaged)
        (folder / f"damaged-cut-{place}").write_bytes(SMALL[:place])
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What TensorFlow said of each of them, and of one that it wrote itself."""
    return told_by_tensorflow(folder, {"theirs": KINDS})


def test_files_of_tensorflow_s_writer_are_taken(told: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Each kind of log, and an empty record; byte for byte what the tests write by hand."""
    assert told["theirs"]["records"] == [data.hex() for data in KINDS]
    written = (folder / "theirs").read_bytes()

    assert written == b"".join(map(framed, KINDS))
    assert check_warmup(write_warmup(tmp_path, written)) == len(KINDS)


def test_what_we_write_tensorflow_reads(told: dict[str, Any]) -> None:
    """Length, data and both checksums."""
    assert told["ours"]["records"] == [b"a".hex(), "", bytes(3000).hex()]


def test_requests_made_of_golden_ones_are_what_they_say(told: dict[str, Any]) -> None:
    """Each type that golden requests may have, as TensorFlow reads it, in bytes as protobuf writes them."""
    first, second = told["requests"]["requests"]

    assert (first["name"], first["signature"]) == ("m", "all")
    assert first["inputs"].keys() == TYPES.keys() | EMPTY.keys()
    for name, (_, _, elements) in TYPES.items():
        dtype, _, found = first["inputs"][name]
        assert (dtype, found) == (name, elements)
    shapes = {name: first["inputs"][name][1] for name in EMPTY}
    assert shapes == {"no_rows": [0], "no_columns": [2, 0], "no_words": [0]}
    assert first["inputs"]["uint8"][1] == []
    assert (second["signature"], second["inputs"]) == ("serving_default", {})
    assert first["same"]
    assert second["same"]


def test_damage_is_found_where_tensorflow_finds_it(
    told: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """A turned bit in each byte, a cut at each, of two records, of which one is empty."""
    assert len(told) == 2 * len(SMALL) + 3
    for name, found in told.items():
        ours: dict[str, Any]
        try:
            ours = {"records": [bytes(data).hex() for data in records(folder / name)]}
        except Malformed:
            ours = {"error": DATA_LOSS}
        assert {key: found[key] for key in ours} == ours, name
    with pytest.raises(ReleaseRefused):
        check_warmup(write_warmup(tmp_path, (folder / "damaged-0").read_bytes()))
