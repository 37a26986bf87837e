"""Checks a version's paths: each is acceptable, and no two are the same on any filesystem."""

from collections.abc import Mapping
from typing import TypeAlias

from servesync.domain.paths import RENAMING, flaw_of_path, folded
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack.refusal import shown, too_many_members

Parts: TypeAlias = tuple[str, ...]


def parse_path(path: bytes, *, is_directory: bool) -> Parts:
    """Return the names that lead to a member, none for the top level itself (`./`).

    Only what `tar -C DIR -c .` writes is normalised: one leading `./`, and a directory's trailing `/`.

    Raises:
        ReleaseRefused: the path is absolute, climbs, is too long, too deep or no UTF-8, or holds a name that
            a version may not have (`domain.paths`).
    """
    if is_directory:
        path = path.removesuffix(b"/")
        if path == b".":
            return ()
    path = path.removeprefix(b"./")
    try:
        text = path.decode()
    except UnicodeDecodeError as error:
        raise _refused(path, "is no UTF-8") from error
    if flaw := flaw_of_path(text):
        raise _refused(path, flaw)
    names = tuple(text.split("/"))
    if any(name.startswith("._") for name in names):
        raise ReleaseRefused(
            Reason.ARCHIVE_LAYOUT,
            f"{shown(path)} is a file that macOS adds about another one; pack with"
            " `COPYFILE_DISABLE=1 tar --no-xattrs --format ustar -czf`",
            member=shown(path),
        )
    return names


def _refused(path: bytes, why: str) -> ReleaseRefused:
    text = f"the path {shown(path)} {why}; pack the version again without it ({RENAMING})"
    return ReleaseRefused(Reason.ARCHIVE_PATH, text, member=shown(path))


class Names:
    """Every file and directory seen so far, with the directories that their paths imply."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: dict[str, tuple[str, bool]] = {}

    def add(self, parts: Parts, *, is_directory: bool) -> None:
        """Note one member.

        Raises:
            ReleaseRefused: another member has this path, in this or another case, or is a file where a
                directory is needed; or there are more than `limits.max_members` files and directories.
        """
        for depth in range(1, len(parts)):
            self._claim("/".join(parts[:depth]), is_directory=True)
        self._claim("/".join(parts), is_directory=is_directory)

    def _claim(self, path: str, *, is_directory: bool) -> None:
        here = (path, is_directory)
        there = self._seen.setdefault(folded(path), here)
        if there is here:
            if len(self._seen) > self._limits.max_members:
                raise too_many_members(self._limits)
        elif there != here or not is_directory:
            raise ReleaseRefused(
                Reason.ARCHIVE_DUPLICATE,
                f"{shown(path)} occurs twice (as {shown(there[0])}); case does not count, as on some"
                " filesystems. Pack it again, each path once",
                member=shown(path),
            )


def check_paths(paths: Mapping[str, bool], top: str) -> None:
    """Make sure that unpacking accepts these paths; each comes with whether it is a directory.

    `top`: the folder of the archive that holds them all. Their number is not checked.

    Raises:
        ReleaseRefused: unpacking an archive of them would raise it.
    """
    names = Names(Limits().model_copy(update={"max_members": len(paths) + 1}))
    names.add((top,), is_directory=True)
    for path, is_directory in paths.items():
        names.add(parse_path(f"{top}/{path}".encode(), is_directory=is_directory), is_directory=is_directory)
