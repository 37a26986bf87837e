"""The cache that agents of one machine share: bounded, trusted with nothing, and never in the way."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from servesync import disk
from servesync.install import HostCache

MIB = 1 << 20


def part(number: int, size: int = 1000) -> tuple[str, bytes]:
    """Return a part and its digest."""
    data = bytes([number]) * size
    return hashlib.sha256(data).hexdigest(), data


def read(cache: HostCache, sha256: str, size: int = 1000) -> bytes | None:
    """Return what the cache has under a digest."""
    buffer = bytearray(size)
    return bytes(buffer) if cache.read(sha256, memoryview(buffer)) else None


def put(cache: HostCache, number: int, size: int = 1000) -> str:
    """Put a part, and return its digest."""
    sha256, data = part(number, size)
    assert cache.put(sha256, memoryview(data))
    return sha256


def held(folder: Path) -> int:
    """Return the bytes of everything in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path: Path) -> HostCache:
    """Return an empty cache of 64 MiB."""
    return HostCache(tmp_path / "cache", 64 * MIB, 0)


def test_another_agent_reads_what_one_has_put(cache: HostCache) -> None:
    """Both only have the directory in common."""
    sha256, data = part(1)
    assert not cache.has(sha256, len(data))

    put(cache, 1)

    other = HostCache(cache.folder, 64 * MIB, 0)
    assert other.has(sha256, len(data))
    assert read(other, sha256) == data


def test_a_part_of_another_size_is_none(cache: HostCache) -> None:
    """It was cut, or somebody put it there; it goes, so that a right one may come."""
    sha256 = put(cache, 1)
    path = cache.folder / sha256[:2] / sha256
    path.write_bytes(b"short")

    assert read(cache, sha256) is None
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
def test_what_is_no_file_is_never_followed(cache: HostCache, kind: str, tmp_path: Path) -> None:
    """A link out of the cache, a pipe that nobody writes to, a directory: none is read, and none hangs."""
    sha256 = put(cache, 1)
    path = cache.folder / sha256[:2] / sha256
    path.rename(tmp_path / "right")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "right")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
            (path / "x").write_bytes(b"x")
        case _:
            os.mknod(path, 0o140600)

    assert not cache.has(sha256, 1000)
    assert read(cache, sha256) is None
    assert (tmp_path / "right").read_bytes() == part(1)[1]


def test_a_link_in_place_of_a_folder_is_not_followed(cache: HostCache, tmp_path: Path) -> None:
    """What is put goes nowhere else."""
    sha256, data = part(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.folder.mkdir()
    (cache.folder / sha256[:2]).symlink_to(elsewhere)

    assert not cache.put(sha256, memoryview(data))

    assert list(elsewhere.iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    """The cache never holds more than its size; a part that is read counts as used."""
    cache = HostCache(tmp_path / "cache", 64 * MIB, 0)
    digests = [put(cache, number, 8 * MIB) for number in range(7)]
    for age, sha256 in enumerate(digests):
        at = 1_000_000 + age
        os.utime(cache.folder / sha256[:2] / sha256, (at, at))
    assert read(cache, digests[0], 8 * MIB)

    for number in range(7, 10):
        put(cache, number, 8 * MIB)
        assert held(cache.folder) <= 64 * MIB

    assert cache.has(digests[0], 8 * MIB)
    assert not cache.has(digests[1], 8 * MIB)


def test_what_others_put_counts_too(tmp_path: Path) -> None:
    """Two agents that take turns stay together below the size, but for the little that neither has seen."""
    one, other = (HostCache(tmp_path / "cache", 64 * MIB, 0) for _ in range(2))
    for number in range(0, 40, 2):
        put(one, number, 4 * MIB)
        put(other, number + 1, 4 * MIB)
        assert held(tmp_path / "cache") <= (64 + 4) * MIB


def test_what_the_cache_did_not_make_stays(tmp_path: Path) -> None:
    """A directory that holds other things as well loses none of them."""
    folder = tmp_path / "cache"
    (folder / "ab").mkdir(parents=True)
    strangers = [folder / "note", folder / "ab" / "note", folder / "abc"]
    for path in strangers:
        path.write_bytes(bytes(1000))
    cache = HostCache(folder, 64 * MIB, 0)

    for number in range(20):
        put(cache, number, 8 * MIB)

    assert all(path.exists() for path in strangers)


def test_what_a_dead_writer_left_goes(cache: HostCache) -> None:
    """An old temporary file goes; one that was begun a moment ago may be at work."""
    put(cache, 1)
    old, new = (cache.folder / "ab" / f".{'ab' * 32}.{'0' * 31}{number}.new" for number in range(2))
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1_000_000, 1_000_000))

    put(HostCache(cache.folder, 64 * MIB, 0), 2)

    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_no_cache(tmp_path: Path) -> None:
    """Nothing is raised, and nothing is kept."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)
    sha256, data = part(1)

    assert not HostCache(folder, 64 * MIB, 0).put(sha256, memoryview(data))


def test_a_folder_whose_parent_is_not_there_is_no_cache(tmp_path: Path) -> None:
    """A volume that is not mounted is not made on the disk below."""
    sha256, data = part(1)

    assert not HostCache(tmp_path / "not" / "mounted", 64 * MIB, 0).put(sha256, memoryview(data))
    assert not (tmp_path / "not").exists()


def test_the_reserve_of_the_disk_stays_free(tmp_path: Path) -> None:
    """Where less is free than must stay free, nothing is kept."""
    cache = HostCache(tmp_path / "cache", 64 * MIB, disk.free_bytes(tmp_path) * 2)
    sha256, data = part(1)

    assert not cache.put(sha256, memoryview(data))


def test_the_cache_gives_way_on_its_own_filesystem_only(cache: HostCache) -> None:
    """A transfer that lacks space there gets it from the cache, before anything else goes."""
    sha256 = put(cache, 1)
    device = cache.folder.stat().st_dev

    assert not cache.give_way(device + 1, 1000)
    assert cache.has(sha256, 1000)
    assert cache.give_way(device, 1000)
    assert not cache.has(sha256, 1000)
    assert not cache.give_way(device, 1000)


def test_one_agent_claims_a_part_until_it_is_done(cache: HostCache) -> None:
    """Meanwhile others do not, and other parts are free."""
    other = HostCache(cache.folder, 64 * MIB, 0)
    first, second = part(1)[0], part(2)[0]

    with cache.claimed(first) as mine, other.claimed(first) as theirs, other.claimed(second) as another:
        assert (mine, theirs, another) == (True, False, True)
    with other.claimed(first) as theirs:
        assert theirs


def test_a_claim_ends_with_its_process(cache: HostCache) -> None:
    """Whoever is killed while it fetches keeps nobody waiting."""
    sha256 = part(1)[0]
    program = (
        "import sys, pathlib, os\n"
        "from servesync.install import HostCache\n"
        f"cache = HostCache(pathlib.Path({str(cache.folder)!r}), {64 * MIB}, 0)\n"
        f"with cache.claimed({sha256!r}) as mine:\n"
        "    print(mine, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"True\n"
        with cache.claimed(sha256) as mine:
            assert not mine
        agent.kill()
        agent.wait(30)

    with cache.claimed(sha256) as mine:
        assert mine


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_takes_no_claims_keeps_nobody_waiting(cache: HostCache, kind: str, tmp_path: Path) -> None:
    """Whatever somebody put in the place of the file of claims: everybody fetches."""
    claims = cache.folder / ".claims"
    cache.folder.mkdir()
    match kind:
        case "link":
            claims.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(claims)
        case _:
            claims.mkdir()

    with cache.claimed(part(1)[0]) as mine:
        assert mine
    assert not (tmp_path / "elsewhere").exists()


def test_after_waiting_in_vain_no_claim_counts(cache: HostCache) -> None:
    """A hostile hand that holds every claim costs time once."""
    other = HostCache(cache.folder, 64 * MIB, 0)
    sha256 = part(1)[0]
    with cache.claimed(sha256):
        other.waited_in_vain()
        with other.claimed(sha256) as mine:
            assert mine
