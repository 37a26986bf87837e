"""Opens directories to name entries by, and tells files apart; changes nothing.

At and below a models directory (`follow_no_links`) no symbolic link is followed on the way, so nothing
outside of it is touched when somebody replaces one of its folders by a link while the agent runs.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from servesync.domain.versions import Stamp
from servesync.files import check_regular

READ_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_roots: Final[set[str]] = set()


def follow_no_links(root: Path) -> None:
    """Follow no symbolic link at or below `root` from now on; `root` itself may be reached through links.

    It holds for this process, and for every path that begins with `root` as it is written here.
    """
    _roots.add(str(root))


@contextlib.contextmanager
def opened_dir(path: Path) -> Iterator[int]:
    """Lend a descriptor of a directory, to name its entries by (`O_PATH`: it cannot be read or synced).

    Raises:
        FileNotFoundError: it is not there.
        NotADirectoryError: it, or a folder between it and a `follow_no_links` root, is a file or a link.
        OSError: it cannot be reached.
    """
    text = root = str(path)  # as text, and not as a `Path`: a look at many models does little else than this
    while root and root not in _roots:
        root = root.rpartition("/")[0]
    if root:
        below = text[len(root) + 1 :]
        top = os.open(root, _FOLDER | os.O_NOFOLLOW)
        handle = descend(top, root, below.split("/") if below else ())
    else:
        handle = os.open(text, _FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[int]:
    """Lend a descriptor of a regular file, to read it; a link is not followed, and a pipe is not waited for.

    Raises:
        FileNotFoundError: nothing has the name.
        NotRegular: it is a directory, a pipe, a device or the like.
        OSError: it cannot be opened; `ELOOP` for a link.
    """
    with opened_dir(path.parent) as parent, named(path):
        handle = os.open(path.name, _READ_FILE, dir_fd=parent)
    try:
        check_regular(path, os.fstat(handle))
        yield handle
    finally:
        os.close(handle)


def descend(handle: int, at: str | Path, names: Sequence[str]) -> int:
    """Return a descriptor of the directory that is reached by `names`, without following a link.

    `handle` is a descriptor of the directory `at`, and is closed.
    """
    for depth, name in enumerate(names, start=1):
        parent = handle
        try:
            handle = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            error.filename = str(Path(at, *names[:depth]))
            raise
        finally:
            os.close(parent)
    return handle


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Give errors the full path, where a call names an entry relative to an open directory."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def stamp_of(found: os.stat_result) -> Stamp:
    """Return what tells of a change of a file without reading it."""
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
