"""Keeps the versions in memory and the requests that use them (BasicManager's serving map)."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.loader import Loaded

Answer = TypeVar("Answer")


class ServingTable:
    """The loaded versions. Each change returns only when every earlier request has ended.

    Therefore a request that hangs delays AVAILABLE and END, as with the real server.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loaded: dict[tuple[str, int], Loaded] = {}
        self._requests: set[object] = set()

    def put(self, model: str, version: int, loaded: Loaded) -> None:
        """Let requests use a version."""
        with self._changed:
            self._loaded[model, version] = loaded
            self._drain()

    def remove(self, model: str, version: int) -> None:
        """Stop giving a version to requests, and free it when the last one has ended."""
        with self._changed:
            self._loaded.pop((model, version), None)
            self._drain()

    def use(
        self,
        model: str,
        version: int | None,
        label: str | None,
        labels: Mapping[str, int],
        work: Callable[[int, Loaded], Answer],
    ) -> Answer:
        """Return the result of `work` for a loaded version: the named, the labelled, or the highest one.

        Raises:
            RequestFailed: no such version is loaded.
        """
        with self._request():
            if label is not None:
                if label not in labels:
                    raise RequestFailed(
                        Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
                    )
                version = labels[label]
            number, loaded = self._find(model, version)
            return work(number, loaded)

    def _find(self, model: str, version: int | None) -> tuple[int, Loaded]:
        with self._changed:
            numbers = [number for name, number in self._loaded if name == model]
            if version is None and not numbers:
                raise RequestFailed(Code.NOT_FOUND, f"Servable not found for request: Latest({model})")
            number = max(numbers) if version is None else version
            if number not in numbers:
                raise RequestFailed(
                    Code.NOT_FOUND, f"Servable not found for request: Specific({model}, {number})"
                )
            return number, self._loaded[model, number]

    @contextmanager
    def _request(self) -> Iterator[None]:
        token = object()
        with self._changed:
            self._requests.add(token)
        try:
            yield
        finally:
            with self._changed:
                self._requests.discard(token)
                self._changed.notify_all()

    def _drain(self) -> None:
        before = set(self._requests)
        self._changed.wait_for(lambda: not before & self._requests)
