"""Stores that know less than S3: what is still published, what is still guaranteed, and what is said."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, LONG_ONLY, files_of, first_of, small_archive
from faulty_proxy import Exchange, Fault, FaultyProxy, lose_the_answer, s3_error
from fixtures_publish import body, heavy, keys, uploads
from fixtures_store import Bucket
from servesync.domain import channel
from servesync.domain.versions import Model
from servesync.errors import Reason, ReleaseRefused
from servesync.publishing import promote, store_at, withdraw

ARCHIVE, MANIFEST = "prod/m/1.tar.zst", "prod/m/1.manifest.json"
STEPS = {
    "create": ("POST", "uploads"),
    "part": ("PUT", "partNumber=2"),
    "complete": ("POST", "uploadId="),
    "manifest": ("PUT", "manifest.json"),
}


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy in front of the store, without a fault yet."""
    with FaultyProxy(bucket.server.port) as proxy:
        yield proxy


def at(step: str) -> Callable[[Exchange], bool]:
    """Match the requests of one step."""
    method, mark = STEPS[step]
    return lambda exchange: exchange.method == method and mark in exchange.path


def refuses(header: str, status: int, code: str, step: str) -> Fault:
    """Make a store that calls a header of a request unknown."""

    def fault(exchange: Exchange) -> None:
        names = {name.lower() for name in exchange.headers}
        if header in names and at(step)(exchange):
            s3_error(status, code)(exchange)
        else:
            exchange.answer(exchange.forward())

    return fault


def with_metadata(change: Callable[[str], str | None]) -> Fault:
    """Make a store that gives the names of metadata back in another way, or not at all."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        names = {name: change(name) if "x-amz-meta" in name else name for name in answer.headers}
        answer.headers = {new: answer.headers[old] for old, new in names.items() if new}
        exchange.answer(answer)

    return fault


@LONG_ONLY
@pytest.mark.parametrize(
    "said",
    [
        (501, "NotImplemented", "create"),
        (400, "InvalidArgument", "create"),
        (501, "NotImplemented", "complete"),
        (400, "InvalidRequest", "complete"),
    ],
)
def test_no_checksum_of_the_whole(
    said: tuple[int, str, str],
    publish: Callable[..., Any],
    bucket: Bucket,
    proxy: FaultyProxy,
    model: Path,
    box: AgentBox,
) -> None:
    """As Cloudflare R2 by its documentation: the upload does without."""
    status, code, step = said
    folder = heavy(model, box.folder / "large", megabytes=20)
    proxy.fault = refuses("x-amz-checksum-type", status, code, step)

    assert publish(folder, endpoint_url=proxy.endpoint_url).outcome == "published"

    assert uploads(bucket) == []
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(files_of(folder))


def test_conditions_that_are_refused_as_unknown(
    publish: Callable[..., Any], bucket: Bucket, proxy: FaultyProxy, model: Path, tmp_path: Path
) -> None:
    """Publishing and promoting look instead, and still replace nothing."""
    folder = heavy(model, tmp_path / "large", megabytes=20)
    where = store_at(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")

    def fault(exchange: Exchange) -> None:
        names = {name.lower() for name in exchange.headers}
        if exchange.method in {"PUT", "POST"} and names & {"if-none-match", "if-match"}:
            s3_error(501, "NotImplemented")(exchange)
        else:
            exchange.answer(exchange.forward())

    proxy.fault = fault
    done = publish(folder, endpoint_url=proxy.endpoint_url)
    assert done.outcome == "published"
    assert "If-None-Match" in done.notes[0]
    before = body(bucket, ARCHIVE)
    with pytest.raises(ReleaseRefused, match="immutable"):
        publish(model, endpoint_url=proxy.endpoint_url)
    assert body(bucket, ARCHIVE) == before

    publish(model, version=2)
    for version in ("1", "2"):
        assert promote(where, ("m", version, "stable"), "me", "").changed
    assert (
        channel.parse_channel(body(bucket, "prod/m/channels/stable.json"), Model("m"), "stable").now.version
        == 2
    )
    assert withdraw(where, ("m", "1"), "me", "bad").fresh


@pytest.mark.parametrize("when", ["part", "archive", "manifest"])
def test_another_publisher_and_no_conditions(
    when: str, publish: Callable[..., Any], bucket: Bucket, proxy: FaultyProxy, model: Path, box: AgentBox
) -> None:
    """Both write: whoever is late is told, and no agent takes a mixture."""
    folder = heavy(model, box.folder / "large", megabytes=20)

    def fault(exchange: Exchange) -> None:
        if when == "part":
            publish(model)
        if when == "archive":
            bucket.put(ARCHIVE, body(bucket, ARCHIVE)[::-1])
        answer = exchange.forward()
        if when == "manifest":
            bucket.put(MANIFEST, body(bucket, MANIFEST).replace(b'"m"', b'"n"'))
        exchange.answer(answer)

    proxy.fault, proxy.times, proxy.matches = fault, 1, at("part" if when == "part" else "manifest")
    with pytest.raises(ReleaseRefused) as caught:
        publish(folder, endpoint_url=proxy.endpoint_url)

    assert caught.value.reason is Reason.RELEASE_EXISTS
    assert uploads(bucket) == []
    if when == "part":
        assert box.call("sync").returncode == 0
        assert digests_on_disk(box.shelf / "1") == digests(files_of(model))
    else:
        assert "at the same time" in str(caught.value)
        done = box.call("sync", *([] if LONG else ["--timeout", "20"]))  # it tries for more than a minute
        assert done.returncode == 3
        reason = {"archive": "part_differs", "manifest": "manifest_invalid"}[when]
        assert f'"reason": "{reason}"' in done.stdout
        assert box.numbers() == []


def test_names_of_metadata_as_http_writes_them(
    publish: Callable[..., Any], bucket: Bucket, proxy: FaultyProxy, model: Path, box: AgentBox
) -> None:
    """An archive whose manifest is to come is not taken for a bare one."""
    publish(model)
    bucket.delete(MANIFEST)
    proxy.fault = with_metadata(str.title)
    box.overrides = {"store": {"endpoint_url": proxy.endpoint_url}}

    done = box.call("sync")

    assert done.returncode == 3
    assert '"reason": "release_incomplete"' in done.stdout
    assert publish(model, endpoint_url=proxy.endpoint_url).outcome == "published"
    assert box.call("sync").returncode == 0


@LONG_ONLY
@pytest.mark.parametrize("step", ["complete", "manifest"])
@pytest.mark.parametrize("trouble", ["lost", "denied"])
def test_nobody_can_tell_whose_object_it_is(
    trouble: str, step: str, publish: Callable[..., Any], proxy: FaultyProxy, model: Path, tmp_path: Path
) -> None:
    """The store keeps no metadata, or answers no HEAD, and an answer is lost: the bytes are compared."""
    folder = heavy(model, tmp_path / "large", megabytes=20)
    once: list[int] = []

    def fault(exchange: Exchange) -> None:
        if at(step)(exchange) and not once:
            once.append(1)
            lose_the_answer(exchange)
        elif exchange.method == "HEAD" and trouble == "denied":
            s3_error(403, "AccessDenied")(exchange)
        else:
            with_metadata(lambda _: None)(exchange)

    proxy.fault = fault

    assert publish(folder, endpoint_url=proxy.endpoint_url).outcome in {"published", "already there"}
    assert once


def test_an_agent_that_may_not_ask_for_heads(
    bucket: Bucket, proxy: FaultyProxy, model: Path, box: AgentBox
) -> None:
    """It says which permission is missing, and takes nothing that may not be whole."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(model), 1))
    box.overrides = {"store": {"endpoint_url": proxy.endpoint_url}}
    proxy.fault, proxy.matches = s3_error(403, "AccessDenied"), lambda exchange: exchange.method == "HEAD"

    done = box.call("sync")

    assert done.returncode == 3
    assert "store_denied" in done.stdout
    assert "s3:GetObject" in done.stdout
    assert box.numbers() == []


@pytest.mark.parametrize("step", ["manifest", *first_of("complete", "create", "part")])
@pytest.mark.parametrize("answered", [False, True] if LONG else [True])
def test_killed_at_every_step_and_run_again(
    step: str, *, answered: bool, bucket: Bucket, proxy: FaultyProxy, model: Path, box: AgentBox
) -> None:
    """`kill -9` before the store has done it, or after: the same command completes it."""
    folder = heavy(model, box.folder / "large", megabytes=20)
    where = ["--store", f"s3://{bucket.name}/prod", "--region", "us-east-1"]
    line = [
        sys.executable,
        "-m",
        "servesync",
        "publish",
        str(folder),
        "--model",
        "m",
        "--version",
        "1",
        *where,
    ]
    line += ["--endpoint-url", proxy.endpoint_url]
    running: list[subprocess.Popen[bytes]] = []

    def fault(exchange: Exchange) -> None:
        if answered:
            exchange.forward()
        running[0].kill()
        exchange.close()

    proxy.fault, proxy.times, proxy.matches = fault, 1, at(step)
    quiet = subprocess.DEVNULL
    running.append(forked.start(line, os.environ, stdout=quiet, stderr=quiet))
    assert running[0].wait(60) == -signal.SIGKILL

    whole = step == "manifest" and answered
    assert (MANIFEST in keys(bucket)) == whole
    assert box.call("sync").returncode == (0 if whole else 3)
    done = forked.call(line, os.environ, 120)
    assert done.returncode == 0, done.stderr
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(files_of(folder))
