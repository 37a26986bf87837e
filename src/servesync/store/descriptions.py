"""Reads botocore's descriptions of services without what the agent never uses: they are most of its memory.

`endpoints.json` alone names hundreds of services in every region; a good part of the rest is documentation.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from botocore.loaders import JSONFileLoader, Loader, create_loader

_SERVICES: Final = frozenset({"s3", "sts", "sso", "portal.sso", "oidc", "signin"})
"""The store, and what credentials come from. Any other would have the usual names of its region's domain."""


class _Files(JSONFileLoader):
    def _load_file(self, full_path: str, open_method: Callable[..., BinaryIO]) -> Any:  # noqa: ANN401 (JSON)
        """Return the content of a file, None if there is none; botocore calls this for each file."""
        path = Path(full_path)
        if not path.is_file():
            return None
        with open_method(full_path, "rb") as file:
            content = json.loads(file.read(), object_hook=_undocumented)
        if path.name.startswith("endpoints."):
            for partition in content["partitions"]:
                found = partition["services"]
                partition["services"] = {name: found[name] for name in found.keys() & _SERVICES}
        return content


def _undocumented(item: dict[str, Any]) -> dict[str, Any]:
    if isinstance(item.get("documentation"), str):
        item["documentation"] = ""
    return item


@functools.cache
def loader(data_path: str | None) -> Loader:
    """Return the loader of descriptions, which keeps what it has read."""
    made = create_loader(data_path)
    made.file_loader = _Files()
    return made
