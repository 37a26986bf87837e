"""The connections to a store: sockets are closed at once, and bodies are read without a copy.

urllib3 returns a body as new bytes, behind TLS at most one record (16 KiB) at a time. Its work for each takes
longer than the cipher does.
"""

import http.client
import time
from typing import TYPE_CHECKING, Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import URLLib3Session

if TYPE_CHECKING:
    from urllib3.response import HTTPResponse

_BLOCK_BYTES: Final = 256 * 1024


class _Response(http.client.HTTPResponse):
    """Refuses an answer with two lengths while its connection can still be closed.

    urllib3 reads the lengths later. By then the answer owns the socket, and nobody closes it.
    """

    def begin(self) -> None:
        """Read the head.

        Raises:
            HTTPException: it has several lengths, or is not HTTP; the caller closes the connection.
        """
        super().begin()
        stated = ",".join(self.headers.get_all("content-length", [])).split(",")
        try:
            lengths = {int(length) for length in stated}
        except ValueError:
            return  # none at all: the client refuses such an answer later
        if len(lengths) > 1:
            raise http.client.HTTPException(f"several lengths: {sorted(lengths)}"[:80])

    def read_into(self, buffer: memoryview, seconds: float) -> int:
        """Read the body, which is not chunked, as `read_into` below does."""
        if self.isclosed():
            return 0
        wanted = len(buffer) if self.length is None else min(len(buffer), self.length)
        until = time.monotonic() + seconds
        done = 0
        while done < wanted:
            count = self.fp.readinto1(buffer[done:wanted])
            if not count:
                self.close()  # the other end has closed the connection
                break
            done += count
            if time.monotonic() > until:
                break
        if self.length is not None:
            self.length -= done
        if self.length == 0:
            self.close()
        return done


def read_into(answer: "HTTPResponse", buffer: memoryview, seconds: float) -> int:
    """Read some of the body of an answer into `buffer`, and return how many bytes; 0: the body has ended.

    This returns when the buffer is full, when the body ends, or at the first bytes after `seconds`: so a drip
    is seen. Only silence takes longer, until the connection's time-out.

    Raises:
        HTTPError: (urllib3's) the connection broke; so does OSError. The buffer's content is undefined.
    """
    original = answer._original_response  # noqa: SLF001 (urllib3 itself cannot read into a buffer)
    if not isinstance(original, _Response) or original.chunked:
        block = answer.read1(min(_BLOCK_BYTES, len(buffer)), decode_content=False)
        buffer[: len(block)] = block
        return len(block)
    count = original.read_into(buffer, seconds)
    if answer.length_remaining is not None:
        answer.length_remaining -= count
    return count


class _Connection(AWSHTTPConnection):
    response_class: Any = _Response  # its stubs are narrower than it is


class _SecureConnection(AWSHTTPSConnection):
    response_class: Any = _Response


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: Final = {"http": _Pool, "https": _SecurePool}


class Connections(URLLib3Session):
    """botocore's own session, with the pools above."""

    _manager: Any
    _proxy_managers: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 (botocore's own)
        """Open nothing yet; the arguments are those of `URLLib3Session`."""
        super().__init__(**arguments)
        self._pool_classes_by_scheme = _POOLS
        self._manager.pool_classes_by_scheme = _POOLS

    def close(self) -> None:
        """Close every connection that is not in use; botocore leaves that to the garbage collector."""
        for manager in (self._manager, *self._proxy_managers.values()):
            for key in manager.pools.keys():  # noqa: SIM118 (it cannot be iterated over)
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()
