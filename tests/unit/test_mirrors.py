"""Mirrors: what they send is proven, what they do wrong costs time only, and they learn no secret."""

import hashlib
import json
import random
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from certificates import certificate
from mirror_stub import QUICK_TRICKS, Call, MirrorStub, Trick, drip, drip_the_head, lie, say_nothing
from servesync.domain.versions import Proof, StoredObject
from servesync.errors import SettingsError, Stopped
from servesync.install import HostCache
from servesync.settings import Fetch
from servesync.settings_file import load_settings
from servesync.store import Bounds, Mirror, MirrorFailed
from servesync.transfer.sources.mirrors import Mirrors
from servesync.transfer.sources.remote import Remote
from servesync.transfer.sources.tally import Tally

KEY = "prod/m o/1.tar.zst"
DATA = random.Random(1).randbytes(1 << 14)
ITEM = StoredObject(KEY, len(DATA), "etag")
PARTS = tuple(
    Proof(at, 4096, hashlib.sha256(DATA[at : at + 4096]).hexdigest()) for at in range(0, len(DATA), 4096)
)
HASTY = Bounds(
    connect_seconds=1.0,
    read_seconds=0.5,
    floor_bytes_per_second=64 << 10,
    floor_after_seconds=0.5,
    answer_seconds=0.5,
)


def never() -> bool:
    """Go on."""
    return False


class Store:
    """A store in memory that counts."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def read(
        self, item: StoredObject, offset: int, length: int, buffer: memoryview, _stop: Callable[[], bool]
    ) -> None:
        """Fill the buffer."""
        assert item == ITEM
        with self._lock:
            self.reads.append((offset, length))
        buffer[:] = DATA[offset : offset + length]


def read_all(remote: Remote) -> bytes:
    """Read the object part by part."""
    data = bytearray(len(DATA))
    for proof in PARTS:
        into = memoryview(data)[proof.offset : proof.offset + proof.size]
        remote.read(ITEM, proof.offset, proof.size, into, never)
    return bytes(data)


def remote_of(
    store: Store, *urls: str, cache: HostCache | None = None, proofs: tuple[Proof, ...] = PARTS
) -> tuple[Remote, Tally]:
    """Return how an agent reads the object."""
    tally = Tally()
    return Remote(store.read, proofs, tally, Mirrors(urls, 2) if urls else None, cache), tally


def test_a_mirror_is_asked_and_the_store_is_not() -> None:
    """It gets the key, the range, and the digest as a key for its cache."""
    store = Store()
    with MirrorStub({KEY: DATA}) as stub:
        remote, tally = remote_of(store, stub.url)
        assert read_all(remote) == DATA

    assert store.reads == []
    assert tally.by_source() == {"mirror": len(DATA)}
    first = stub.requests[0]
    assert first.path == "/bucket/prod/m%20o/1.tar.zst"
    assert first.headers["range"] == "bytes=0-4095"
    assert first.headers["X-Part-SHA256"] == PARTS[0].sha256
    assert "authorization" not in {name.lower() for name in first.headers}


@pytest.mark.parametrize("trick", QUICK_TRICKS, ids=lambda trick: trick.__name__)
def test_a_mirror_that_does_wrong_is_asked_once(trick: Trick) -> None:
    """The store sends what is right, the log says it once, and the mirror is left alone for a while."""
    store = Store()
    with capture_logs() as logs, MirrorStub({KEY: DATA}, trick) as stub:
        remote, tally = remote_of(store, stub.url)
        assert read_all(remote) == DATA

    assert len(stub.requests) == 1
    assert tally.by_source() == {"store": len(DATA)}
    assert [line["event"] for line in logs] == ["mirror_set_aside"]


@pytest.mark.parametrize("trick", [drip, drip_the_head, say_nothing], ids=lambda trick: trick.__name__)
def test_a_mirror_that_is_slow_is_given_up(trick: Trick) -> None:
    """No time-out of a socket sees a drip."""
    with MirrorStub({KEY: DATA}, trick) as stub:
        mirror = Mirror(stub.url, 1, HASTY)
        with pytest.raises(MirrorFailed):
            mirror.read(ITEM, 0, memoryview(bytearray(4096)), "", never)


@pytest.mark.parametrize("trick", [drip, drip_the_head, say_nothing], ids=lambda trick: trick.__name__)
def test_a_mirror_that_is_slow_keeps_no_stop_waiting(trick: Trick) -> None:
    """Who asks for an end gets one, whatever the mirror does."""
    asked = threading.Event()

    def tell(call: Call) -> None:
        asked.set()
        trick(call)

    with MirrorStub({KEY: DATA}, tell) as stub, pytest.raises(Stopped):
        Mirror(stub.url, 1).read(ITEM, 0, memoryview(bytearray(4096)), "", asked.is_set)


def test_a_mirror_that_is_gone_is_passed_over() -> None:
    """Nothing listens there any more."""
    store = Store()
    with MirrorStub({KEY: DATA}) as gone:
        gone.vanish()
        with MirrorStub({KEY: DATA}) as second:
            remote, tally = remote_of(store, gone.url, second.url)
            assert read_all(remote) == DATA

    assert tally.by_source() == {"mirror": len(DATA)}


def test_without_a_manifest_no_mirror_is_asked(tmp_path: Path) -> None:
    """Nothing would prove what it sends; the cache is not asked, either."""
    store = Store()
    with MirrorStub({KEY: DATA}) as stub:
        cache = HostCache(tmp_path / "cache", 64 << 20, 0)
        remote, _ = remote_of(store, stub.url, cache=cache, proofs=())
        assert read_all(remote) == DATA

    assert stub.requests == []
    assert len(store.reads) == len(PARTS)
    assert not (tmp_path / "cache").exists()


def test_several_readers_meet_one_failure() -> None:
    """Requests that were under way when a mirror was set aside fail with it, and count once."""
    store, together = Store(), threading.Barrier(4)

    def lie_together(call: Call) -> None:
        together.wait(30)
        lie(call)

    with capture_logs() as logs, MirrorStub({KEY: DATA}, lie_together) as stub:
        remote, _ = remote_of(store, stub.url)
        buffers = [bytearray(4096) for _ in range(4)]
        threads = [
            threading.Thread(target=remote.read, args=(ITEM, at * 4096, 4096, memoryview(buffer), never))
            for at, buffer in enumerate(buffers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert b"".join(buffers) == DATA[: 4 * 4096]
    assert [line["event"] for line in logs] == ["mirror_set_aside"]


def test_a_mirror_behind_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the store is: by the authority that `AWS_CA_BUNDLE` names, and not without."""
    pem, other = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path, "other.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with MirrorStub({KEY: DATA}, tls=tls) as stub:
        for authority, source in ((pem, "mirror"), (other, "store")):
            monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
            remote, tally = remote_of(Store(), stub.url)
            assert read_all(remote) == DATA
            assert tally.by_source() == {source: len(DATA)}


# -- a mirror and secrets ----------------------------------------------------------------------------------


def test_a_mirror_gets_its_own_credentials_and_nobody_sees_them(capsys: pytest.CaptureFixture[str]) -> None:
    """User, password and query of the URL go to the mirror, and into no line."""
    with MirrorStub({KEY: DATA}, lie) as stub:
        url = f"http://reader:pass%20word-of-9@127.0.0.1:{stub.port}/bucket?sig=a-signature-of-24"
        remote, _ = remote_of(Store(), url)
        read_all(remote)

    (call,) = stub.requests
    assert call.path.endswith("?sig=a-signature-of-24")
    assert call.headers["authorization"] == "Basic cmVhZGVyOnBhc3Mgd29yZC1vZi05"
    said = capsys.readouterr()
    for secret in ("pass", "signature-of-24", "cmVhZGVy"):
        assert secret not in said.out + said.err


@pytest.mark.parametrize(
    "url",
    [
        "ftp://mirror/x",
        "mirror/x",
        "http://169.254.169.254/x",
        "http://reader:secret-of-mine@mirror/x",
        "http://mirror/x?sig=secret-of-mine",
        "http://mirror:0/x",
        "http://mirror:99999/x",
        "https://reader:secret-of-mine@mirror/x#there",
        "https://reader:secret-of-mine@mirror/a b",
    ],
)
def test_urls_that_are_no_mirrors_are_refused(url: str, tmp_path: Path) -> None:
    """Credentials in clear text to another host are, too; and the text does not show them."""
    with pytest.raises(SettingsError) as refused:
        load_settings(_settings(tmp_path, [url]), {})
    assert "secret-of-mine" not in str(refused.value)


def test_a_url_in_place_of_a_list_is_not_shown(tmp_path: Path) -> None:
    """The mistake is named, the value is not."""
    with pytest.raises(SettingsError) as refused:
        load_settings(_settings(tmp_path, "https://reader:secret-of-mine@mirror?sig=another-one"), {})
    assert "fetch.mirrors" in str(refused.value)
    assert "secret-of-mine" not in str(refused.value)
    assert "another-one" not in str(refused.value)


def test_a_slash_at_the_end_means_nothing() -> None:
    """The key follows the path."""
    assert Fetch(mirrors=["https://mirror/x/"]).mirrors == ["https://mirror/x"]


def _settings(folder: Path, mirrors: object) -> Path:
    path = folder / "servesync.yaml"
    document = {
        "store": {"url": "s3://bucket"},
        "serving": {"models_dir": "/models"},
        "models": [{"name": "m"}],
        "fetch": {"mirrors": mirrors},
    }
    path.write_text(json.dumps(document))
    return path


# -- a cache before them -----------------------------------------------------------------------------------


def test_the_cache_gets_what_a_mirror_has_sent(tmp_path: Path) -> None:
    """A second agent asks neither mirror nor store."""
    with MirrorStub({KEY: DATA}) as stub:
        read_all(remote_of(Store(), stub.url, cache=HostCache(tmp_path / "cache", 64 << 20, 0))[0])
    store = Store()
    remote, tally = remote_of(store, cache=HostCache(tmp_path / "cache", 64 << 20, 0))

    assert read_all(remote) == DATA
    assert store.reads == []
    assert tally.by_source() == {"cache": len(DATA)}


def test_what_is_wrong_is_not_kept(tmp_path: Path) -> None:
    """A store that sends other bytes leaves nothing in the cache."""

    class Liar(Store):
        def read(
            self, item: StoredObject, offset: int, length: int, buffer: memoryview, _stop: Callable[[], bool]
        ) -> None:
            buffer[:] = bytes(length)

    cache = HostCache(tmp_path / "cache", 64 << 20, 0)
    read_all(remote_of(Liar(), cache=cache)[0])

    assert not any(cache.has(proof.sha256, proof.size) for proof in PARTS)


def test_every_bit_of_a_cached_part_counts(tmp_path: Path) -> None:
    """One that is flipped is found, the part is fetched instead, and the cache has the right one again."""
    cache, store = HostCache(tmp_path / "cache", 64 << 20, 0), Store()
    small = Proof(0, 64, hashlib.sha256(DATA[:64]).hexdigest())
    remote, _ = remote_of(store, cache=cache, proofs=(small,))
    remote.read(ITEM, 0, 64, memoryview(bytearray(64)), never)
    path = cache.folder / small.sha256[:2] / small.sha256

    for bit in range(64 * 8):
        wrong = bytearray(DATA[:64])
        wrong[bit // 8] ^= 1 << bit % 8
        path.write_bytes(wrong)
        buffer = bytearray(64)
        remote.read(ITEM, 0, 64, memoryview(buffer), never)
        assert bytes(buffer) == DATA[:64]

    assert len(store.reads) == 1 + 64 * 8
    assert path.read_bytes() == DATA[:64]


def test_agents_at_the_same_time_fetch_each_part_once(tmp_path: Path) -> None:
    """Three of them, which begin together, and whose ranges are cut in different ways."""
    store, together = Store(), threading.Barrier(3)
    remotes = [remote_of(store, cache=HostCache(tmp_path / "cache", 64 << 20, 0))[0] for _ in range(3)]
    found: list[bytes] = []

    def agent(remote: Remote, parts: int) -> None:
        together.wait(30)
        data = bytearray(len(DATA))
        step = parts * 4096
        for at in range(0, len(DATA), step):
            remote.read(ITEM, at, step, memoryview(data)[at : at + step], never)
        found.append(bytes(data))

    threads = [threading.Thread(target=agent, args=item) for item in zip(remotes, (1, 2, 4), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [DATA] * 3
    assert sum(length for _, length in store.reads) == len(DATA)
