"""Publishing against a real S3 server: immutable, the manifest last, and nothing half-done that counts."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forked
from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, LONG_ONLY, files_of, small_archive
from faulty_proxy import Exchange, FaultyProxy, s3_error
from fixtures_publish import body, heavy, keys, uploads
from fixtures_store import Bucket
from servesync.domain import canonical_json, manifest
from servesync.domain.versions import Version
from servesync.errors import Reason, ReleaseRefused, SettingsError, SyncError
from servesync.publishing.pack import pack_tree
from servesync.verify import bundle_extents

SHARD = "variables/variables.data-00000-of-00001"


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
def test_what_is_published_is_installed_and_proven(
    archive_format: str, publish: Callable[..., Any], bucket: Bucket, box: AgentBox, model: Path
) -> None:
    """The whole way: published, fetched by parts that are proven, compared with the manifest, installed."""
    done = publish(archive_format=archive_format, labels={"git": "abc"})

    assert done.outcome == "published"
    assert keys(bucket) == ["prod/m/1.manifest.json", f"prod/m/1.{archive_format}"]
    stored = manifest.parse(body(bucket, "prod/m/1.manifest.json"))
    assert stored == done.manifest
    assert stored.schema_version == f"servesync.manifest/{2 if archive_format == 'tar.zst' else 1}"
    assert stored.labels == {"git": "abc"}
    box.overrides = {"store": {"require_manifest": True}}
    run = box.call("sync")
    assert run.returncode == 0, run.stderr
    assert '"proof": "manifest"' in run.stdout
    assert digests_on_disk(box.shelf / "1") == digests(files_of(model))
    assert "proven by its manifest" in box.plan()["models"]["m"]["versions"]["1"]["why"]


def test_a_version_is_immutable(publish: Callable[..., Any], bucket: Bucket, real_models: Path) -> None:
    """The same again is a success that writes nothing; other content is refused, in every format."""
    publish()
    before = {key: body(bucket, key) for key in keys(bucket)}

    assert publish(labels={"other": "label"}).outcome == "already there"
    for more in ({"directory": real_models / "keras_export"}, {"archive_format": "tar.gz"}):
        with pytest.raises(ReleaseRefused, match="immutable") as caught:
            publish(**more)
        assert caught.value.reason is Reason.RELEASE_EXISTS

    assert {key: body(bucket, key) for key in keys(bucket)} == before


def test_bare_archives_and_directories_are_in_the_way(
    publish: Callable[..., Any], bucket: Bucket, model: Path
) -> None:
    """Whatever has the number has it: nothing is put beside it."""
    bucket.put("prod/m/0000001.tar.gz", small_archive(files_of(model), 1))
    bucket.put("prod/m/2/saved_model.pb", b"x")
    for version in (1, 2):
        with pytest.raises(ReleaseRefused) as caught:
            publish(version=version)
        assert caught.value.reason is Reason.RELEASE_EXISTS

    assert len(keys(bucket)) == 2


def test_a_dry_run_writes_nothing(publish: Callable[..., Any], bucket: Bucket) -> None:
    """But does all the rest, and says what there would be."""
    done = publish(dry_run=True)

    assert done.outcome == "not written (dry run)"
    assert keys(bucket) == []
    assert done.manifest.archive.sha256 == publish().manifest.archive.sha256


@pytest.mark.parametrize("damage", ["tensor", "index", "graph", "shard", "warm-up"])
def test_a_damaged_model_is_not_published(
    damage: str, publish: Callable[..., Any], bucket: Bucket, model: Path, tmp_path: Path
) -> None:
    """What an agent would refuse never gets into the store."""
    folder = heavy(model, tmp_path / "bad", megabytes=0)
    name = {"tensor": SHARD, "index": "variables/variables.index", "graph": "saved_model.pb"}.get(damage)
    if damage == "shard":
        (folder / SHARD).unlink()
    elif name is None:
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra/tf_serving_warmup_requests").write_bytes(b"no requests, and no checksums")
    else:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 0x10
        (folder / name).write_bytes(data[:-1] if damage == "graph" else data)

    with pytest.raises(ReleaseRefused):
        publish(folder)

    assert keys(bucket) == []


def test_a_model_without_its_vocabulary_is_not_published(
    publish: Callable[..., Any], bucket: Bucket, real_models: Path, tmp_path: Path
) -> None:
    """At the lowest level, too."""
    folder = Path(shutil.copytree(real_models / "string_assets", tmp_path / "bad"))
    (folder / "assets/vocabulary.txt").unlink()

    with pytest.raises(ReleaseRefused, match=r"'assets/vocabulary\.txt'") as caught:
        publish(folder, level="structure")
    assert caught.value.reason is Reason.ASSET_MISSING
    assert keys(bucket) == []


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("assets/Words", "assets/words"), Reason.ARCHIVE_DUPLICATE),
        pytest.param(("/".join(["d"] * 16),), Reason.ARCHIVE_PATH, marks=LONG_ONLY),
        pytest.param(("._saved_model.pb",), Reason.ARCHIVE_LAYOUT, marks=LONG_ONLY),
    ],
    ids=["case", "depth", "macOS"],
)
def test_names_that_agents_would_refuse_are_not_published(
    names: tuple[str, ...],
    reason: Reason,
    publish: Callable[..., Any],
    bucket: Bucket,
    model: Path,
    tmp_path: Path,
) -> None:
    """The number would be used up for nothing."""
    folder = heavy(model, tmp_path / "odd", megabytes=0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")

    with pytest.raises(ReleaseRefused) as caught:
        publish(folder)

    assert caught.value.reason is reason
    assert keys(bucket) == []


def test_a_stretch_of_zeros_is_no_bomb(
    publish: Callable[..., Any], model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """The manifest says how much it is; a table that training has not touched is as large as another."""
    folder = heavy(model, tmp_path / "zeros", megabytes=3)
    with (folder / "assets/a_table").open("wb") as file:
        file.truncate(100 << 20)

    assert publish(folder).notes == ()

    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def test_bad_arguments_are_named(publish: Callable[..., Any], bucket: Bucket, tmp_path: Path) -> None:
    """Before anything is read or sent."""
    for more in (
        {"directory": tmp_path / "none"},
        {"version": -1},
        {"labels": {"new\nline": "x"}},
        {"labels": {"x": "y" * 300}},
        {"store": "https://somewhere"},
        {"key_pattern": "{model}0{version}", "version": 101},  # m0101 is also version 1 of m01
        {"endpoint_url": "http://example.com"},
    ):
        with pytest.raises(SettingsError):
            publish(**more)

    assert keys(bucket) == []


def test_a_large_version_goes_in_parts(
    publish: Callable[..., Any], bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """The store keeps a checksum of the whole, the archive says that a manifest belongs to it."""
    folder = heavy(model, tmp_path / "large")
    publish(folder)

    head = bucket.client.head_object(Bucket=bucket.name, Key="prod/m/1.tar.zst", ChecksumMode="ENABLED")
    assert head["ChecksumType"] == "FULL_OBJECT"
    assert head["Metadata"]["servesync-manifest"] == "1.manifest.json"
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(files_of(folder))


@pytest.mark.parametrize("step", ["create", "part", "complete", "manifest"])
def test_a_failure_at_any_step_leaves_nothing_that_counts(
    step: str, publish: Callable[..., Any], bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """No agent takes anything, no part is left behind, and the next call completes it."""
    folder = heavy(model, tmp_path / "large")
    marks = {
        "create": ("POST", "uploads"),
        "part": ("PUT", "partNumber=2"),
        "complete": ("POST", "uploadId="),
        "manifest": ("PUT", "manifest.json"),
    }

    def fault(exchange: Exchange) -> None:
        method, mark = marks[step]
        if exchange.method == method and mark in exchange.path:
            s3_error(403, "AccessDenied")(exchange)
        else:
            exchange.answer(exchange.forward())

    with FaultyProxy(bucket.server.port) as proxy:
        proxy.fault = fault
        with pytest.raises(SyncError):
            publish(folder, endpoint_url=proxy.endpoint_url)

    assert uploads(bucket) == []
    assert "prod/m/1.manifest.json" not in keys(bucket)
    assert box.call("sync").returncode == 3
    assert box.numbers() == []

    assert publish(folder).outcome == "published"
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(files_of(folder))


def command(bucket: Bucket, *arguments: str) -> list[str]:
    """Return a command line of servesync for the test's store."""
    where = ["--store", f"s3://{bucket.name}/prod", "--endpoint-url", bucket.server.endpoint_url]
    return [sys.executable, "-m", "servesync", *arguments, *where, "--region", "us-east-1"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL] if LONG else [signal.SIGTERM]
)
def test_a_killed_publisher_leaves_nothing_that_counts(
    number: int, bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """SIGTERM and Ctrl-C also remove the parts; after `kill -9` they are invisible; the next run succeeds."""
    folder = heavy(model, tmp_path / "large", megabytes=150)
    line = command(bucket, "publish", str(folder), "--model", "m", "--version", "1")
    process = forked.start(line, os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not uploads(bucket) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    stopped = f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}: "
    assert (stopped in said) == (number != signal.SIGKILL)

    assert keys(bucket) == []
    if number != signal.SIGKILL:
        assert uploads(bucket) == []
    assert box.call("sync").returncode == 3
    done = forked.call(line, os.environ, 120)
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    assert uploads(bucket) == []
    assert box.call("sync").returncode == 0


def test_two_publishers_at_once_make_one_version(bucket: Bucket, model: Path, tmp_path: Path) -> None:
    """One wins; the other, with the same content, succeeds too, or says that somebody else was at it."""
    folder = heavy(model, tmp_path / "large")
    line = command(bucket, "publish", str(folder), "--model", "m", "--version", "1")
    pipe = subprocess.PIPE
    both = [forked.start(line, os.environ, stdout=pipe, stderr=pipe, text=True) for _ in "ab"]
    texts = [process.communicate(timeout=120) for process in both]

    ended = sorted(process.returncode for process in both)
    assert ended in ([0, 0], [0, 1]), texts
    if ended == [0, 1]:  # on a busy machine the store now and then lets both write, and one is told
        assert any("somebody else published m 1 at the same time" in text for _, text in texts), texts
    assert keys(bucket) == ["prod/m/1.manifest.json", "prod/m/1.tar.zst"]


def test_a_manifest_for_an_archive_that_exists(
    bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """For an object it is put beside it; what was installed before stays as it is, unfetched."""
    tree = files_of(model)
    bucket.put("prod/m/0000003.tar.gz", small_archive(tree, 3))
    assert box.call("sync").returncode == 0
    url = f"s3://{bucket.name}/prod/m/0000003.tar.gz"

    done = forked.call(command(bucket, "manifest", url), os.environ, 120)

    assert done.returncode == 0, done.stderr
    assert f"({len(small_archive(tree, 3)) / 1e3:.1f} kB, sha256 " in done.stdout
    assert "prod/m/0000003.manifest.json" in keys(bucket)
    again = box.call("sync")
    assert '"event": "version_fetched"' not in again.stdout
    box.overrides = {"store": {"require_manifest": True}}
    for path in (box.shelf / "3").rglob("*"):
        if path.name == "saved_model.pb":
            path.write_bytes(b"damaged")
    repaired = box.call("sync")
    assert '"proof": "manifest"' in repaired.stdout
    assert digests_on_disk(box.shelf / "3") == digests(tree)
    twice = forked.call(command(bucket, "manifest", url), os.environ, 120)
    assert "release_exists" in twice.stderr


def test_a_manifest_for_a_file_is_printed(model: Path, tmp_path: Path) -> None:
    """With the archive's own parts and files."""
    archive = tmp_path / "modelv4.tar.gz"
    archive.write_bytes(small_archive(files_of(model), 4))
    line = [sys.executable, "-m", "servesync", "manifest", str(archive), "--model", "m", "--version", "4"]

    done = forked.call(line, os.environ, 120)

    found = manifest.parse(done.stdout.encode())
    assert found.archive.key == "modelv4.tar.gz"
    assert {file.path for file in found.files} == set(files_of(model))
    assert forked.call(line[:-2], os.environ, 120).returncode == 2


def test_an_archive_in_frames_is_described_piece_by_piece(
    bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """As its publisher would have described it: for a file, and for an object, which is then installed."""
    archive = tmp_path / "4.tar.zst"
    with archive.open("wb") as file:

        def write(data: bytes) -> None:
            file.write(data)

        packed = pack_tree(model, Version(4), write, bundle_extents(model))
    bucket.put("prod/m/4.tar.zst", archive.read_bytes())
    line = [sys.executable, "-m", "servesync", "manifest", str(archive), "--model", "m", "--version", "4"]

    printed = forked.call(line, os.environ, 120)
    written = forked.call(
        command(bucket, "manifest", f"s3://{bucket.name}/prod/m/4.tar.zst"), os.environ, 120
    )

    assert written.returncode == 0, written.stderr
    found = manifest.parse(body(bucket, "prod/m/4.manifest.json"))
    assert found.schema_version == manifest.SCHEMA_2
    assert found.archive.parts == packed.parts
    assert manifest.parse(printed.stdout.encode()).archive == found.archive
    assert '"proof": "manifest"' in box.call("sync").stdout
    assert digests_on_disk(box.shelf / "4") == digests(files_of(model))


def test_a_manifest_keeps_to_the_limits_of_the_agents(bucket: Bucket, model: Path, box: AgentBox) -> None:
    """For a file and for an object: what they would refuse gets no manifest."""
    box.overrides = {"limits": {"max_members": 3}}
    archive = box.folder / "1.tar.gz"
    archive.write_bytes(small_archive(files_of(model), 1))
    bucket.put("prod/m/1.tar.gz", archive.read_bytes())
    own = ("--model", "m", "--version", "1")
    for arguments in ((str(archive), *own), (f"s3://{bucket.name}/prod/m/1.tar.gz",)):
        done = box.call("manifest", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "limits.max_members" in done.stderr
    assert keys(bucket) == ["prod/m/1.tar.gz"]


def test_without_a_manifest_there_are_two_ways(bucket: Bucket, model: Path, box: AgentBox) -> None:
    """`require_manifest` refuses; otherwise the store's own checksum counts, or nothing but the archive's."""
    archive = small_archive(files_of(model), 1)
    bucket.put("prod/m/1.tar.gz", archive, ChecksumAlgorithm="CRC32")
    box.overrides = {"store": {"require_manifest": True}}
    assert box.call("sync").returncode == 3
    assert "release_unproven" in box.plan()["models"]["m"]["versions"]["1"]["why"]

    box.overrides = {}
    assert '"proof": "store_checksum"' in box.call("sync").stdout
    assert "proven by the store's checksum" in box.plan()["models"]["m"]["versions"]["1"]["why"]


def _edited(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    found = json.loads(data)
    change(found)
    found.pop("digest")
    return canonical_json.dump(found)


def _move_digest(found: dict[str, Any]) -> None:
    found["files"][0]["sha256"] = "0" * 64


def _forget_file(found: dict[str, Any]) -> None:
    lost = found["files"].pop()
    found["totals"]["files"] -= 1
    found["totals"]["bytes"] -= lost["size"]
    for part in found["archive"]["parts"]:
        part["content"] = [piece for piece in part["content"] if piece["path"] != lost["path"]]


def _other_model(found: dict[str, Any]) -> None:
    found["model"] = "n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_move_digest, "content_differs"),
        (_forget_file, "variables_missing"),  # the manifest alone says what a version in frames consists of
        (_other_model, "manifest_mismatch"),
        (lambda found: found.pop("archive"), "manifest_invalid"),
        (lambda found: found["archive"]["parts"][0].update(sha256="0" * 64), "part_differs"),
    ],
)
def test_a_manifest_that_does_not_fit_refuses_the_version(
    change: Callable[[dict[str, Any]], None],
    reason: str,
    publish: Callable[..., Any],
    bucket: Bucket,
    box: AgentBox,
) -> None:
    """Nothing is installed, and the right manifest makes it good again.

    Some are tried for a minute, in case the bytes were damaged on the way; the first try says it all.
    """
    publish()
    good = body(bucket, "prod/m/1.manifest.json")
    bucket.put("prod/m/1.manifest.json", _edited(good, change))

    assert f'"reason": "{reason}"' in box.call("sync", *([] if LONG else ["--timeout", "20"])).stdout
    assert box.numbers() == []

    bucket.put("prod/m/1.manifest.json", good)
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def test_the_archive_is_an_ordinary_one(publish: Callable[..., Any], bucket: Bucket, model: Path) -> None:
    """Whoever has no servesync unpacks it all the same."""
    publish(archive_format="tar.gz")
    with tarfile.open(fileobj=io.BytesIO(body(bucket, "prod/m/1.tar.gz"))) as tar:
        names = {member.name for member in tar.getmembers() if member.isfile()}

    assert names == {f"1/{name}" for name in files_of(model)}


def test_what_agents_would_refuse_is_said(
    publish: Callable[..., Any], bucket: Bucket, model: Path, tmp_path: Path, box: AgentBox
) -> None:
    """With the agents' settings nothing is written; without them the limits that they need are named."""
    folder = heavy(model, tmp_path / "empty", megabytes=0)
    (folder / "assets/zeros.bin").write_bytes(bytes(64 << 20))
    strict = box.call("publish", str(folder), "--model", "m", "--version", "1")
    assert strict.returncode == 1
    assert "limits.max_ratio" in strict.stderr
    assert keys(bucket) == uploads(bucket) == []

    (note,) = publish(folder).notes
    needed = int(note.split("limits.max_ratio of ")[1].split(",")[0])
    assert '"reason": "archive_ratio"' in box.call("sync").stdout
    box.overrides = {"limits": {"max_ratio": needed}}
    assert box.call("sync").returncode == 0
