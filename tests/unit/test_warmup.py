"""Warm-up files are refused before the server meets them, and only where it would refuse the version."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archives as a
import graph_bytes as gb
from servesync.errors import Reason, ReleaseRefused
from servesync.publishing.request import Request, prove
from servesync.runtime.verify_command import verify_command
from servesync.verify import check_warmup
from transfer_box import TransferBox
from warmup_bytes import framed, log, predict, signature, spec, tasks, write_warmup

GOOD = predict("x")
FILE = "assets.extra/tf_serving_warmup_requests"


def refusal(root: Path) -> ReleaseRefused:
    """Return why a version is refused."""
    with pytest.raises(ReleaseRefused) as caught:
        check_warmup(root)
    return caught.value


def test_a_version_without_warm_up_requests(tmp_path: Path) -> None:
    """Nobody has to have any, and then nothing is read."""
    assert check_warmup(tmp_path) == 0


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        predict("x", signature="serving_default"),
        predict("a", "b", signature="two"),
        predict("a", signature="two"),
        predict("a", "c", signature="two"),
        log("classify", spec() + gb.data(2, b"")),
        log("regress", spec("two", "another model")),
        tasks(("two", "m"), ("", "m")),
        tasks(),
        b"",
        gb.data(1, gb.data(1, spec("nothing", "m"))),
        gb.number(6, 1),
        gb.data(99, b"\xff") + GOOD,
        log("session_run", b"") + GOOD,
        log("predict", spec("two")) + log("predict", gb.entry(2, "a", b"")),
        log("predict", spec("nothing") + spec("two") + gb.entry(2, "a", b"")),
        log("classify", b""),
        gb.data(6, b"") + gb.data(3, b""),
        gb.data(6, gb.data(1, gb.entry(2, "x", b"")) + gb.data(2, b"an answer, which nobody reads")),
    ],
)
def test_what_the_server_takes_is_not_refused(record: bytes, tmp_path: Path) -> None:
    """Each kind that it replays, no log at all, fields that it does not know, messages in several pieces."""
    root = write_warmup(tmp_path, framed(record) + framed(GOOD))

    assert check_warmup(root) == 2


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\xff" * 9, "it is no PredictionLog"),
        (gb.data(6, b"\x0a\x05"), "it is no PredictionLog: field 1 at byte 2 has 5 bytes, 0 are left"),
        (predict("x", signature="none"), "no signature 'none', there is 'serving_default', 'two'"),
        (log("classify", spec("none")), "no signature 'none'"),
        (log("regress", spec("none")), "no signature 'none'"),
        (tasks(("two", "m"), ("none", "m")), "no signature 'none'"),
        (tasks(("two", "m"), ("", "n")), "must all name one model"),
        (tasks(("two", "")), "must all name one model"),
        (predict("y"), "inputs missing: 'x'; no such inputs: 'y'"),
        (predict("x", "y"), "inputs missing: none; no such inputs: 'y'"),
        (predict(), "inputs missing: 'x'; no such inputs: none"),
        (predict("b", signature="two"), "inputs missing: 'a'; no such inputs: none"),
        (predict("a", "b", "c", signature="two"), "no such inputs: 'c'"),
        (log("session_run", b""), "a session_run_log, which the server does not replay"),
        (log("predict_streamed", b""), "a predict_streamed_log, which the server does not replay"),
        (log("predict", gb.data(1, gb.data(3, b"\xff"))), "a name that is not UTF-8"),
        (predict("x") + predict("y", signature="none"), "no signature 'none'"),
    ],
)
def test_what_the_server_would_refuse_is_refused_first(record: bytes, words: str, tmp_path: Path) -> None:
    """With the file, the record's number, what is wrong and what to do."""
    error = refusal(write_warmup(tmp_path, framed(GOOD) + framed(record)))

    assert error.reason is Reason.WARMUP_INVALID
    assert f"{FILE}: record 2: " in str(error)
    assert words in str(error)
    assert "or leave the file out" in str(error)
    assert (error.facts["file"], error.facts["record"]) == (FILE, 2)


def test_a_thousand_records_and_one_more(tmp_path: Path) -> None:
    """The server runs 1,000; the next one ends the load."""
    assert check_warmup(write_warmup(tmp_path, framed(GOOD) * 1000)) == 1000

    assert "record 1001: the server takes 1000 at most" in str(
        refusal(write_warmup(tmp_path, framed(GOOD) * 1001))
    )


def test_damage_at_every_byte_is_found(tmp_path: Path) -> None:
    """Length, checksum of the length, data, checksum of the data: of the first record and of the second."""
    whole = framed(GOOD) * 2
    assert check_warmup(write_warmup(tmp_path, whole)) == 2

    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        error = refusal(write_warmup(tmp_path, bytes(damaged)))
        record, inside = divmod(place, len(whole) // 2)
        assert error.reason is Reason.WARMUP_INVALID
        assert f"record {record + 1}: its " in str(error)
        assert ("differs from the checksum of the length" in str(error)) is (inside < 12)


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    """Anywhere in a record but in its first twelve bytes, where TensorFlow takes that for the end."""
    whole = framed(GOOD) * 2
    for size in range(len(whole)):
        root = write_warmup(tmp_path, whole[:size])
        record, inside = divmod(size, len(whole) // 2)
        if inside < 12:
            assert check_warmup(root) == record
        else:
            assert f"record {record + 1}: it is cut" in str(refusal(root))


def test_a_length_that_nothing_can_have_is_not_read(tmp_path: Path) -> None:
    """With right checksums: more than the file has, more than a message can have, more than any number."""
    for length, words in ((1 << 20, "it is cut: 1048576 bytes"), ((1 << 31), "more than a message can have")):
        header = framed(length.to_bytes(8, "little"))[12:]
        assert words in str(refusal(write_warmup(tmp_path, header)))


def test_what_is_no_tfrecord_file_is_named(tmp_path: Path) -> None:
    """Compressed ones look like that."""
    error = refusal(write_warmup(tmp_path, b"\x1f\x8b\x08\x00" + bytes(100)))

    assert "record 1: its length, at byte 0, differs" in str(error)
    assert "is it a TFRecord file, and not a compressed one?" in str(error)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """The mistake of the release, not the disk's."""
    root = write_warmup(tmp_path, b"")
    (root / FILE).unlink()
    (root / FILE).mkdir()

    error = refusal(root)
    assert error.reason is Reason.WARMUP_INVALID
    assert "it is a directory, not a regular file" in str(error)


def test_a_damaged_signature_is_not_the_warm_up_s(tmp_path: Path) -> None:
    """It has a reason of its own."""
    root = write_warmup(tmp_path, framed(GOOD), gb.data(5, b"\x0a\x05"))

    assert refusal(root).reason is Reason.SAVED_MODEL_CORRUPT


def test_a_large_file_takes_no_memory_and_can_be_stopped(tmp_path: Path) -> None:
    """It is asked for every MiB whether to go on, and what is not looked at is not kept."""
    large = log("predict", gb.entry(2, "x", gb.data(4, bytes(3 << 20))))
    root = write_warmup(tmp_path, framed(large) * 3)
    asked: list[None] = []

    assert check_warmup(root, lambda: asked.append(None)) == 3
    assert len(asked) >= 9

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_warmup(root, stop)


@pytest.mark.parametrize("entrance", ["agent", "verify", "publish"])
def test_it_is_proven_at_every_level_and_at_every_entrance(entrance: str, tmp_path: Path) -> None:
    """At the lowest level, too; `servesync verify` says how many there are."""
    box = TransferBox(tmp_path, verify={"level": "structure"})
    root = tmp_path / "model"
    file = root / FILE
    file.parent.mkdir()

    def enter() -> object:
        if entrance == "agent":
            return box.stage(box.archive(a.tar_gz(box.files | {FILE: file.read_bytes()})))
        if entrance == "verify":
            return verify_command(root, "structure")
        return prove(root, Request("m", 1, level="structure"))

    file.write_bytes(framed(b""))
    passed = enter()
    assert entrance != "verify" or "; warm-up requests: 1" in str(passed)
    file.write_bytes(framed(GOOD))
    with pytest.raises(ReleaseRefused, match="record 1: the version has no signature") as caught:
        enter()
    assert caught.value.reason is Reason.WARMUP_INVALID


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """As a file, and as a record in a sound one: nothing else is raised."""
    for file in (content, framed(content), framed(gb.data(6, gb.data(1, content)))):
        try:
            assert check_warmup(write_warmup(tmp_path, file, signature("serving_default", []))) >= 0
        except ReleaseRefused as error:
            assert error.reason is Reason.WARMUP_INVALID  # noqa: PT017 (either is right)
