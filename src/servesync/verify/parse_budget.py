"""Reads messages from an untrusted file within a budget of fields and of kept nodes."""

from collections.abc import Iterator
from typing import Final

from servesync.wire import Field, Malformed, fields

MAX_FIELDS: Final = 30_000_000
MAX_KEPT: Final = 1_000_000


class TooMuch(Malformed):
    """Reading further would take more time or memory than any real model needs."""


class Reader:
    """Reads messages, counts fields and kept nodes, and stops at the budget."""

    def __init__(self, max_fields: int = MAX_FIELDS, max_kept: int = MAX_KEPT) -> None:
        self._max_fields = max_fields
        self._fields_left = max_fields
        self._max_kept = max_kept
        self._kept_left = max_kept

    def fields(self, data: memoryview) -> Iterator[Field]:
        """Yield the fields of one message.

        Raises:
            Malformed: the message does not end where its fields do.
            TooMuch: the bound of fields is reached.
        """
        for field in fields(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                self.spend(0)
            yield field

    def spend(self, count: int) -> None:
        """Count `count` fields that were read without `fields`.

        Raises:
            TooMuch: the bound of fields is reached.
        """
        self._fields_left -= count
        if self._fields_left < 0:
            raise TooMuch(f"more than {self._max_fields} fields to read")

    def keep(self) -> None:
        """Count one node, function, entrance or finding that stays in memory.

        Raises:
            TooMuch: there are too many.
        """
        self._kept_left -= 1
        if self._kept_left < 0:
            raise TooMuch(f"more than {self._max_kept} nodes, functions and findings")
