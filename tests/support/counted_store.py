"""A store that is counted: what it sends of archives, and where it stops sending."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent_box import AgentBox
from faulty_proxy import Exchange, FaultyProxy
from fixtures_store import Bucket
from mirror_stub import MirrorStub

ARCHIVE = ".tar.zst"


@dataclass
class Counted:
    """A fault that counts the bytes of archives. After `most_bytes` it sends nothing more of them."""

    sent_bytes: int = 0
    most_bytes: int | None = None
    is_stuck: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, exchange: Exchange) -> None:
        """Pass a request on."""
        if exchange.is_listing or ARCHIVE not in exchange.path or exchange.method != "GET":
            exchange.answer(exchange.forward())
            return
        answer = exchange.forward()
        with self._lock:
            stuck = self.most_bytes is not None and self.sent_bytes + len(answer.body) > self.most_bytes
            if not stuck:
                self.sent_bytes += len(answer.body)
        if stuck:
            self.is_stuck.set()
            exchange.wait_until_given_up()
            return
        exchange.answer(answer)


@contextmanager
def counted(bucket: Bucket, *boxes: AgentBox) -> Iterator[Counted]:
    """Put a proxy that counts between agents and their store."""
    count = Counted()
    with FaultyProxy(bucket.server.port, fault=count) as proxy:
        for box in boxes:
            box.endpoint_url = proxy.endpoint_url
        yield count


class CachingProxy(MirrorStub):
    """A mirror that reads an object from the store when it is first asked for, and once."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(_Lazily(bucket))
        self.read_bytes = self.objects.read_bytes  # type: ignore[attr-defined]


class _Lazily(dict[str, bytes]):
    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self._bucket = bucket
        self._lock = threading.Lock()
        self._read = 0

    def read_bytes(self) -> int:
        """Return how many bytes were read from the store."""
        return self._read

    def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        """Return an object; the next who asks waits for the first."""
        with self._lock:
            if key not in self:
                self[key] = self._bucket.client.get_object(Bucket=self._bucket.name, Key=key)["Body"].read()
                self._read += len(self[key])
            return self[key]
