"""One place where servesync and its rivals are run in turn: the releases in the store, and the runs."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from measured import Failed, Run, run
from rig import BUCKET, PREFIX, Link, Rig
from rivals import Rival, Tools
from servesync.settings import Store
from weights import pack, write_model


@dataclass(frozen=True)
class Release:
    """An archive in the store. `files_bytes`: what all files of the version hold."""

    model: str
    version: int
    key: str
    stored_bytes: int
    files_bytes: int


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. `only`: the names of the rivals that are to be run; None for all."""

    megabytes: int
    sizes: tuple[int, ...]
    timeout_seconds: float
    only: frozenset[str] | None = None


class Scene:
    """Makes releases when they are first needed, and runs servesync and its rivals against them.

    Everything lies in `folder`, and each run has an empty folder of its own in it. `failed` says which rivals
    ended badly, and how: they are not tried again.
    """

    def __init__(self, folder: Path, rig: Rig, tools: Tools, wanted: Wanted) -> None:
        self.folder = folder
        self.rig = rig
        self.tools = tools
        self.wanted = wanted
        self.published: dict[int, Run] = {}
        self.failed: dict[str, str] = {}
        self._releases: dict[tuple[str, int], Release] = {}
        self._sizes: dict[Path, int] = {}
        self._local: dict[str, Path] = {}

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Lend an empty folder; it is removed, and the disk at rest, before anything else is measured."""
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            os.sync()

    def tree(self, megabytes: int, version: int = 1) -> Path:
        """Return a version's directory; version 2 is version 1 with a retrained head."""
        root = self.folder / f"trees-{megabytes}" / str(version)
        if root not in self._sizes:
            self._sizes[root] = write_model(root, megabytes, retrained=version)
        return root

    def tar_gz(self, megabytes: int) -> Release:
        """Return version 1 as a tar.gz without a manifest."""
        model = f"bare-{megabytes}"
        if (model, 1) not in self._releases:
            tree, archive = self.tree(megabytes), self.folder / f"{model}.tar.gz"
            pack(tree, archive)
            key = f"{PREFIX}/{model}/1.tar.gz"
            self.rig.client.upload_file(str(archive), BUCKET, key)
            self._local[key] = archive
            size = archive.stat().st_size
            self._releases[model, 1] = Release(model, 1, key, size, self._sizes[tree])
        return self._releases[model, 1]

    def frames(self, megabytes: int, version: int = 1) -> Release:
        """Return a version as `servesync publish` makes it."""
        model = f"frames-{megabytes}"
        if (model, version) not in self._releases:
            tree = self.tree(megabytes, version)
            published = self.publish(tree, model, version, self.rig.direct_url)
            self.published.setdefault(megabytes, published)
            key = f"{PREFIX}/{model}/{version}.tar.zst"
            size = self.rig.client.head_object(Bucket=BUCKET, Key=key)["ContentLength"]
            self._releases[model, version] = Release(model, version, key, size, self._sizes[tree])
        return self._releases[model, version]

    def publish(self, tree: Path, model: str, version: int, url: str) -> Run:
        """Publish a directory with servesync."""
        where = ["--store", f"s3://{BUCKET}/{PREFIX}", "--endpoint-url", url]
        what = [str(tree), "--model", model, "--version", str(version)]
        environment = self.rig.environment(self.rig.links["https"])
        command = [sys.executable, "-m", "servesync", "publish", *what, *where]
        return run(command, folder=self.folder, environment=environment)

    def install(self, link: Link, release: Release) -> Run:
        """Bring a release into an empty directory with servesync."""
        with self.place() as folder:
            return self.sync(link, release, folder)

    def sync(
        self,
        link: Link,
        release: Release,
        folder: Path,
        *,
        kill_when: Callable[[], bool] | None = None,
        cache: Path | None = None,
    ) -> Run:
        """Run `servesync sync` for exactly this version; what `folder` holds already stays there.

        `cache`: the agent shares this folder with others, if servesync can do that.

        Raises:
            Failed: the version is not there afterwards, though nobody killed the process.
        """
        settings = folder / "servesync.yaml"
        sections = {
            "store": {
                "url": f"s3://{BUCKET}/{PREFIX}",
                "endpoint_url": link.url,
                "region": "us-east-1",
                **({"cache_dir": str(cache)} if cache and "cache_dir" in Store.model_fields else {}),
            },
            "serving": {"models_dir": str(folder / "models"), "rest_url": None},
            "models": [{"name": release.model, "versions": {"pin": [release.version]}}],
            "limits": {"disk_reserve_bytes": 0},
        }
        settings.write_text(yaml.safe_dump(sections))
        command = [sys.executable, "-m", "servesync", "sync", "-c", str(settings)]
        found = self._measured(command, folder, self.rig.environment(link), kill_when)
        shelf = folder / "models" / release.model / str(release.version)
        if kill_when is None and bytes_below(shelf) != release.files_bytes:
            raise Failed(f"servesync sync left {bytes_below(shelf)} bytes, not {release.files_bytes}")
        return found

    def rivals(self, rivals: Sequence[Rival], link: Link, release: Release) -> Iterator[tuple[str, Run]]:
        """Run all rivals that this machine has; one that fails is named, and left out from then on."""
        for rival in rivals:
            if self.wanted.only is not None and rival.name not in self.wanted.only:
                continue
            if not self.tools.has(rival) or rival.name in self.failed:
                continue
            try:
                with self.place() as folder:
                    found = self.rival(rival, link, release, folder)
                yield rival.name, found
            except Failed as failure:
                self.note(rival.name, f"{link.title}: {failure}")

    def rival(self, rival: Rival, link: Link, release: Release, folder: Path) -> Run:
        """Run a rival in an empty folder that is lent.

        Raises:
            Failed: it ended badly, or did not leave all bytes of the version.
        """
        told = {
            "PATH": self.tools.path,
            "KEY": release.key,
            "PRESIGNED": self.rig.presigned(link, release.key),
            "TREE": str(self.tree(self.wanted.megabytes)),
        }
        if "$LOCAL" in rival.line:
            told["LOCAL"] = str(self._copy(release))
        (folder / "out").mkdir()
        command = ["bash", "-o", "pipefail", "-ec", rival.line]
        found = self._measured(command, folder, self.rig.environment(link) | told)
        if rival.unpacks and (there := bytes_below(folder / "out")) != release.files_bytes:
            raise Failed(f"it left {there} bytes, not {release.files_bytes}")
        return found

    def note(self, name: str, text: str) -> None:
        """Remember that something ended badly, by its last line and without this machine's paths."""
        print(f"{name} failed: {text}", file=sys.stderr)
        self.failed[name] = text.splitlines()[-1].replace(str(self.folder), "")[:200]

    def _copy(self, release: Release) -> Path:
        """Return a copy of an archive on this machine."""
        if release.key not in self._local:
            path = self.folder / release.key.replace("/", "-")
            self.rig.client.download_file(BUCKET, release.key, str(path))
            self._local[release.key] = path
        return self._local[release.key]

    def _measured(
        self,
        command: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        kill_when: Callable[[], bool] | None = None,
    ) -> Run:
        before = self.rig.sent_bytes()
        found = run(
            command,
            folder=folder,
            environment=environment,
            timeout_seconds=self.wanted.timeout_seconds,
            kill_when=kill_when,
        )
        return replace(found, sent_mb=(self.rig.settled_bytes() - before) / 1e6)


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files below a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
