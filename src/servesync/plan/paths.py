"""Which names a version's files may have: one rule for archives, manifests and what is packed."""

import re
from typing import Final

MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 1024
MAX_DEPTH: Final = 16
NAME_RULE: Final = "A-Z a-z 0-9 . _ + = @ - and inner spaces, no dot or space at the end"

_NAME: Final = re.compile(r"[A-Za-z0-9._+=@-](?:[A-Za-z0-9._+=@ -]*[A-Za-z0-9_+=@-])?", re.ASCII)


def is_plain_name(name: str) -> bool:
    """Tell whether `name` may be a file's or directory's, on every filesystem and in every shell."""
    return len(name) <= MAX_NAME_BYTES and _NAME.fullmatch(name) is not None and name != "."


def is_plain_path(path: str) -> bool:
    """Tell whether `path` is a relative path of plain names, with `/` between them."""
    names = path.split("/")
    return len(path) <= MAX_PATH_BYTES and len(names) <= MAX_DEPTH and all(map(is_plain_name, names))
