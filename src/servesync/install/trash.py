"""Takes a version off the shelf in one rename; its files are removed later, which may take long."""

from pathlib import Path

from servesync import disk


def take_off(version: Path, trash: Path) -> None:
    """Move a version off the shelf in one rename; its files stay whole under the name `trash`.

    Raises:
        OSError: the disk refused; the version is still complete, on the shelf or in the trash.
    """
    disk.rename_noreplace(version, trash)
    disk.sync_dir(version.parent)
