"""TensorFlow and we read the same warm-up files, and refuse the same damage."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from servesync.errors import ReleaseRefused
from servesync.verify import check_warmup
from servesync.verify.tfrecord import record, records
from servesync.verify.wire import Malformed
from warmup_bytes import framed, log, predict, spec, tasks, write_warmup

DATA_LOSS = 15
SMALL = framed(predict("x")) + framed(b"")
KINDS = [predict("x"), log("classify", spec()), log("regress", spec("two")), tasks(("two", "m")), b""]


def told_by_tensorflow(folder: Path, written: Mapping[str, list[bytes]]) -> dict[str, Any]:
    """Let TensorFlow write files, and return what it reads in all of them."""
    hexadecimal = {name: [data.hex() for data in given] for name, given in written.items()}
    (folder / "write.json").write_text(json.dumps(hexadecimal))
    script = Path(__file__).parents[1] / "support/tensorflow_records.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], check=True, capture_output=True, text=True, timeout=250
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files: of ours, and a small one with each of its bytes turned, and cut at each."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "ours").write_bytes(b"".join(map(record, [b"a", b"", bytes(3000)])))
    for place in range(len(SMALL)):
        damaged = bytearray(SMALL)
        damaged[place] ^= 0x10
        (folder / f"flipped-{place}").write_bytes(damaged)
        (folder / f"cut-{place}").write_bytes(SMALL[:place])
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


def test_damage_is_found_where_tensorflow_finds_it(
    told: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """A turned bit in each byte, a cut at each, of two records, of which one is empty."""
    assert len(told) == 2 * len(SMALL) + 2
    for name, found in told.items():
        ours: dict[str, Any]
        try:
            ours = {"records": [bytes(data).hex() for data in records(folder / name)]}
        except Malformed:
            ours = {"error": DATA_LOSS}
        assert {key: found[key] for key in ours} == ours, name
    with pytest.raises(ReleaseRefused):
        check_warmup(write_warmup(tmp_path, (folder / "flipped-0").read_bytes()))
