"""Which names a version's files may have: one rule for archives, directories, manifests and what is packed.

A SavedModel's graph names its assets, so a name that a model was exported with is accepted if it can be
written on this filesystem, and shown escaped. What is refused would be another name somewhere else, or could
not be told from another one.
"""

import unicodedata
from typing import Final

MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 1024
MAX_DEPTH: Final = 16
MODEL_FILES: Final = frozenset({"saved_model.pb", "saved_model.pbtxt"})
"""One of them lies at the top of every SavedModel."""

FOLDERS: Final = frozenset({"variables", "assets", "assets.extra"})
"""The folders of a SavedModel."""

_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that show nothing, though Python calls them printable."""

_SELECTORS: Final = dict.fromkeys((*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
"""They choose how the character before looks, such as an emoji in colour."""

RENAMING: Final = "an asset gets another name only where the model is exported, since its graph names it"
"""What to know before a file is renamed."""


def flaw_of_name(name: str) -> str:
    """Return why `name` cannot be a file's or directory's, as a predicate; empty if it can."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        return "is not a relative path of plain names (no empty name, no `.` or `..`, no backslash)"
    if not (name.isprintable() and _BLANK.isdisjoint(name) and name.translate(_SELECTORS)):
        return "has a name with an invisible, unknown or control character"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has a name longer than {MAX_NAME_BYTES} bytes"
    if name.endswith((".", " ")):
        return "has a name that ends in a dot or a space, which some filesystems drop"
    if not unicodedata.is_normalized("NFC", name):
        return "has a name that is not in Unicode's form NFC, so another one looks the same"
    return ""


def flaw_of_path(path: str) -> str:
    """Return why `path` cannot be a file's or directory's in a version, as a predicate; empty if it can."""
    names = path.split("/")
    flaw = next(filter(None, map(flaw_of_name, names)), "")
    if not flaw and len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if not flaw and len(names) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} directories"
    return flaw


def folded(path: str) -> str:
    """Return what two paths have in common that a filesystem may take for one.

    Neither case nor variation selectors count there (ext4 and others with `casefold`).
    """
    if path.isascii():
        return path.lower()
    plain = unicodedata.normalize("NFD", path).translate(_SELECTORS)
    return unicodedata.normalize("NFC", plain.casefold())
