"""The files of a version that its graph names: vocabularies and whatever else lies below `assets/`.

TensorFlow appends each name to the path of `assets/` and gives the result to the graph, whether or not the
file exists. The init op opens most files while the server loads; others are opened when a request needs them.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.verify.saved_model import Asset

FOLDER: Final = "assets"
SHOWN: Final = 5
SHOWN_CHARACTERS: Final = 200
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def check_asset_files(root: Path, assets: Collection[Asset], again: str) -> None:
    """Make sure that every asset file of a graph lies in the version in `root`.

    `again` is advice to the person who exported the model; it ends each text.

    Raises:
        ReleaseRefused: `ASSET_INVALID`: a name is empty, absolute, or leads out of `assets/`, or two assets
            set the same tensor; `ASSET_MISSING`: a file is not there, or something else has its place.
        OSError: the disk does not say what a path is.
    """
    wanted = sorted({asset.file for asset in assets})
    outside = [name for name in wanted if not _is_inside(name)]
    if outside:
        text = f"the graph names asset files that cannot lie below {FOLDER}/: {_few(outside)}; {again}"
        raise ReleaseRefused(Reason.ASSET_INVALID, text, files=outside[:SHOWN])
    _check_tensors(assets, again)
    missing = [name for name in wanted if not _is_file(root / FOLDER / name)]
    if missing:
        listed = _few([f"{FOLDER}/{name}" for name in missing])
        text = (
            f"asset files of the graph are missing, or are no regular files: {listed} ({_there(root)}): the "
            f"server needs them to load or to answer; put them back under these names, or {again}"
        )
        raise ReleaseRefused(Reason.ASSET_MISSING, text, files=missing[:SHOWN])


def _check_tensors(assets: Iterable[Asset], again: str) -> None:
    """Make sure that no two assets set one tensor: Python's TensorFlow takes that, the server does not."""
    counts = Counter(asset.tensor for asset in assets)
    twice = sorted(tensor for tensor, count in counts.items() if count > 1)
    if twice:
        text = (
            f"the graph sets a tensor to more than one asset: {_few(twice)}: the server refuses that ('fed "
            f"more than once'); add each asset to the collection of assets once (tf.lookup adds its own), "
            f"and {again}"
        )
        raise ReleaseRefused(Reason.ASSET_INVALID, text, tensors=twice[:SHOWN])


def _is_inside(name: str) -> bool:
    """Whether a name leads to a file below `assets/`, wherever the version lies."""
    parts = name.split("/")
    return not name.startswith("/") and ".." not in parts and "\0" not in name and parts[-1] not in {"", "."}


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (is_file() raises for a name too long)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise


def _there(root: Path) -> str:
    """Return in words what lies in `assets/`, so that a renamed file shows in the text."""
    folder = root / FOLDER
    if not folder.is_dir():
        return f"there is no {FOLDER}/"
    names = sorted(path.name for path in folder.iterdir())
    return f"{FOLDER}/ holds {_few(names)}" if names else f"{FOLDER}/ is empty"


def _few(names: list[str]) -> str:
    """Return some of the names, escaped and cut."""
    shown = ", ".join(ascii(name[:SHOWN_CHARACTERS]) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
