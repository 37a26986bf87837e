"""Finds a SavedModel that lies some folders below a directory, as MLflow and others export it."""

import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_FOLDERS: Final = 200
MOST_LEVELS: Final = 4


def model_below(root: Path) -> str:
    """Return the path below `root` of the folder that holds a `saved_model.pb`; empty if none is near.

    At most `MOST_FOLDERS` folders on `MOST_LEVELS` levels are read, the least deep ones first. A folder that
    cannot be read counts as empty.
    """
    waiting = deque([(root, 0)])
    for _ in range(MOST_FOLDERS):
        if not waiting:
            break
        folder, level = waiting.popleft()
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        if any(entry.name == "saved_model.pb" for entry in entries):
            return str(folder.relative_to(root))
        if level < MOST_LEVELS:
            waiting += [(Path(e.path), level + 1) for e in entries if e.is_dir(follow_symlinks=False)]
    return ""
