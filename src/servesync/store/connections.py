"""The connections to a store: each socket is closed at once, and not when memory is collected."""

import http.client
from typing import Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import URLLib3Session


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
