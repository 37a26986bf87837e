"""Which directory of an archive is the version.

An archive holds either the version's content at its top level (`saved_model.pb`, `variables/`, ...), or
exactly one top-level directory, named by the version's number (`0000001` is version 1), which holds it.
"""

import shlex
from collections.abc import Iterable
from typing import Final

from servesync.domain.paths import MODEL_FILES
from servesync.domain.versions import Version, parse_version
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack.paths import Names, Parts, parse_path
from servesync.unpack.refusal import shown

_MARKS: Final = MODEL_FILES | {"variables"}
"""A top level with one of these is a version's content."""

_COPIED_CHARACTERS: Final = 80
"""A folder with a longer name is not put into a command that somebody may copy into a shell."""


def check_version_paths(version: int, paths: Iterable[str], limits: Limits) -> None:
    """Make sure that the files of a version may be written, as if they came in the archive of its folder.

    Raises:
        ReleaseRefused: unpacking an archive of them would raise it.
    """
    names, top = Names(limits), TopLevel(Version(version))
    for path in paths:
        parts = parse_path(f"{version}/{path}".encode(errors="surrogatepass"), is_directory=False)
        top.add(parts, is_directory=False)
        names.add(parts, is_directory=False)
    top.root()


class TopLevel:
    """What lies at the top level so far; contradictions are refused as soon as they show."""

    def __init__(self, version: Version | None) -> None:
        self._version = version
        self._names: set[str] = set()
        self._folder: str | None = None
        self._model: Parts | None = None
        """The least deep folder that holds a model."""

    def add(self, parts: Parts, *, is_directory: bool) -> None:
        """Note one member.

        Raises:
            ReleaseRefused: a numbered directory is not this version's, or lies beside something else.
        """
        if not is_directory and parts[-1] in MODEL_FILES:
            self._model = parts[:-1] if self._model is None else min(self._model, parts[:-1], key=len)
        if not parts or parts[0] in self._names:
            return
        self._names.add(parts[0])
        number = parse_version(parts[0])
        if number is not None and (is_directory or len(parts) > 1):
            self._folder = parts[0]
        if self._folder is not None and len(self._names) > 1:
            raise self._refused(f"{shown(self._folder)} lies beside other content")
        if self._folder is not None and self._version is not None and number != self._version:
            raise ReleaseRefused(
                Reason.ARCHIVE_VERSION,
                f"the archive of version {self._version} holds the directory {shown(self._folder)};"
                f" pack the directory {self._version}, or publish it as version {number}",
                folder=shown(self._folder),
            )

    def root(self) -> str:
        """Return the top-level directory that is the version, or `""` where the top level itself is.

        Raises:
            ReleaseRefused: neither is the case, or the model lies deeper.
        """
        root = () if self._folder is None else (self._folder,)
        if self._model is not None and self._model != root:
            raise self._deeper("/".join(self._model))
        if self._folder is not None:
            return self._folder
        if self._names.isdisjoint(_MARKS):
            listed = ", ".join(shown(name) for name in sorted(self._names)[:5])
            raise self._refused(f"the top level holds {listed}, and neither a model nor a numbered directory")
        return ""

    def _deeper(self, folder: str) -> ReleaseRefused:
        version = 1 if self._version is None else self._version
        pack = f"tar -czf modelv{version}.tar.gz -C {shlex.quote(folder)} ."
        command = f" ({pack})" if folder.isascii() and len(folder) <= _COPIED_CHARACTERS else ""
        return ReleaseRefused(
            Reason.ARCHIVE_LAYOUT,
            f"the model lies in {shown(folder)}; an archive holds it at its top, or in a folder named by the"
            f" version: pack that directory{command}",
            folder=shown(folder),
        )

    def _refused(self, what: str) -> ReleaseRefused:
        version = 1 if self._version is None else self._version
        padded = f"{version:07d}"
        return ReleaseRefused(
            Reason.ARCHIVE_LAYOUT,
            f"{what}; pack either the version's directory (tar -czf modelv{version}.tar.gz {padded})"
            f" or its content (tar -czf modelv{version}.tar.gz -C {padded} .)",
        )
