"""The doctor on caches and mirrors: what cannot be used is said, and keeps no agent from its work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counted_store import CachingProxy
from doctor_box import Ward, assert_says, failures
from fixtures_store import Bucket
from mirror_stub import refuse
from servesync.doctor import Check

Publish = Callable[..., Any]


@pytest.fixture
def ward(box: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A healthy agent."""
    return Ward(box, bucket, monkeypatch)


def test_a_mirror_is_asked_for_a_byte(ward: Ward, bucket: Bucket, publish: Publish) -> None:
    """Of an archive with a manifest; its URL is shown without its credentials."""
    publish(version=2)
    with CachingProxy(bucket) as mirror:
        secret = mirror.url.replace("http://", "http://reader:a-secret-of-mine@")
        ward.set("fetch", mirrors=[f"{secret}?sig=another-secret"])
        found = ward.examined()

    assert_says(found, "store.mirror", "ok", mirror.url, "2.tar.zst")
    assert not [item for item in found if "secret" in f"{item.text}{item.advice}{item.subject}"]


def test_a_mirror_that_refuses_is_a_warning(ward: Ward, bucket: Bucket, publish: Publish) -> None:
    """The agent reads the store then."""
    publish(version=2)
    with CachingProxy(bucket) as mirror:
        mirror.trick = refuse
        ward.set("fetch", mirrors=[mirror.url])
        found = ward.examined()

    assert_says(found, "store.mirror", "warn", "403", "a right of its own")
    assert not failures(found)


def test_without_an_archive_a_mirror_cannot_be_tried(ward: Ward) -> None:
    """Bare archives are never read from mirrors."""
    ward.set("fetch", mirrors=["http://127.0.0.1:9/x"])

    assert_says(ward.examined(), "store.mirror", "warn", "publish")


def test_a_cache_that_can_be_used(ward: Ward, tmp_path: Path) -> None:
    """The doctor leaves nothing in it."""
    cache = tmp_path / "cache"
    ward.set("store", cache_dir=str(cache))
    assert_says(ward.examined(), "disk.cache", "ok", "the agent makes it")
    assert not cache.exists()

    cache.mkdir()
    assert_says(ward.examined(), "disk.cache", "ok", "at most")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name != ".claims"]


def test_caches_that_cannot_be_used(ward: Ward, tmp_path: Path) -> None:
    """A file, a link, a folder that nobody may make, a disk that is full: each is a warning."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"")
    link.symlink_to(tmp_path)
    for path, words in ((file, "a link or a file"), (link, "a link or a file"), (file / "x", "cannot make")):
        ward.set("store", cache_dir=str(path))
        found = ward.examined()
        assert_says(found, "disk.cache", "warn", words)
        assert Check.DISK_CACHE not in failures(found)
    ward.set("store", cache_dir=str(tmp_path / "cache"))
    ward.set("limits", disk_reserve_bytes=1 << 42)
    assert_says(ward.examined(), "disk.cache", "warn", "disk_reserve_bytes")
