"""What is measured: each case runs servesync, and what it is compared with, once in turn."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from neighbour import Neighbour
from rig import BUCKET, PREFIX, Link
from rivals import IGZIP, OF_FRAMES, OF_TAR_GZ, PUBLISH, ZSTD
from scene import Release, Scene

OURS: Final = "servesync"
SYNC: Final = "servesync sync"
FULL: Final = "servesync, into an empty directory"
HEAD: Final = "servesync, the version before it is installed"
UNDISTURBED: Final = "servesync, undisturbed"
KILLED: Final = "servesync, until kill -9"
AGAIN: Final = "servesync, started again"
PUBLISHED: Final = "servesync publish"
IDLE: Final = "nothing"
AGENTS: Final = ("first", "second", "third")

Figures = dict[str, float]
Turn = Iterator[tuple[str, Figures]]


@dataclass(frozen=True)
class Case:
    """`ours` is the row that the others are compared with. `links`: the ways to the store that are used."""

    title: str
    ours: str
    links: tuple[str, ...]
    turn: Callable[[Scene, Link], Turn]


def tar_gz(scene: Scene, link: Link) -> Turn:
    """Without a manifest."""
    release = scene.tar_gz(scene.wanted.megabytes)
    yield SYNC, asdict(scene.install(link, release))
    yield from ((name, asdict(found)) for name, found in scene.rivals(OF_TAR_GZ, link, release))


def frames(scene: Scene, link: Link) -> Turn:
    """With a manifest, in frames cut at tensor boundaries."""
    release = scene.frames(scene.wanted.megabytes)
    yield SYNC, asdict(scene.install(link, release))
    yield from ((name, asdict(found)) for name, found in scene.rivals(OF_FRAMES, link, release))


def head(scene: Scene, link: Link) -> Turn:
    """A version that differs from the installed one in its last tensors."""
    old = scene.frames(scene.wanted.megabytes)
    new = scene.frames(scene.wanted.megabytes, 2)
    with scene.place() as folder:
        yield FULL, asdict(scene.sync(link, old, folder))
        os.sync()
        yield HEAD, asdict(scene.sync(link, new, folder)) | {"stored_mb": new.stored_bytes / 1e6}
    yield from ((name, asdict(found)) for name, found in scene.rivals((ZSTD,), link, new))


def restart(scene: Scene, link: Link) -> Turn:
    """The process is killed when half of the bytes have been sent, and started again."""
    release = scene.frames(scene.wanted.megabytes)
    yield UNDISTURBED, asdict(scene.install(link, release))
    with scene.place() as folder:
        before = scene.rig.sent_bytes()
        half = before + release.stored_bytes / 2
        first = scene.sync(link, release, folder, kill_when=lambda: scene.rig.sent_bytes() > half)
        yield KILLED, asdict(first)
        again = scene.sync(link, release, folder)
        twice = first.sent_mb + again.sent_mb - release.stored_bytes / 1e6
        yield AGAIN, asdict(again) | {"twice_mb": twice}


def fleet(scene: Scene, link: Link) -> Turn:
    """Three agents of one machine, one after the other, with one `store.cache_dir` if servesync has it."""
    release = scene.frames(scene.wanted.megabytes)
    with scene.place() as folder:
        (folder / "cache").mkdir()
        sent = 0.0
        for agent in AGENTS:
            (folder / agent).mkdir()
            found = scene.sync(link, release, folder / agent, cache=folder / "cache")
            sent += found.sent_mb
            yield (
                f"servesync, the {agent} agent",
                asdict(found) | {"all_mb": sent, "stored_mb": release.stored_bytes / 1e6},
            )
            os.sync()


def sizes(scene: Scene, link: Link) -> Turn:
    """Both kinds of releases, from small to large."""
    for megabytes in scene.wanted.sizes:
        both: tuple[tuple[str, Release], ...] = (
            ("tar.gz", scene.tar_gz(megabytes)),
            ("frames", scene.frames(megabytes)),
        )
        for kind, release in both:
            yield f"servesync, {kind}, {megabytes} MB", asdict(scene.install(link, release))
        if (published := scene.published.pop(megabytes, None)) is not None:
            yield f"{PUBLISHED}, {megabytes} MB", asdict(published)


def publish(scene: Scene, link: Link) -> Turn:
    """The way into the store; what was published is removed again."""
    tree, release = scene.tree(scene.wanted.megabytes), scene.frames(scene.wanted.megabytes)
    model = "published"
    yield PUBLISHED, asdict(scene.publish(tree, model, 1, link.url))
    _remove(scene, f"{PREFIX}/{model}/")
    aside = Release(model, 1, f"{PREFIX}/{model}/2.tar.zst", release.stored_bytes, release.files_bytes)
    yield from ((name, asdict(found)) for name, found in scene.rivals((PUBLISH,), link, aside))
    _remove(scene, f"{PREFIX}/{model}/")


def neighbour(scene: Scene, link: Link) -> Turn:
    """How long a client of the model server waits while a version comes."""
    bare, published = scene.tar_gz(scene.wanted.megabytes), scene.frames(scene.wanted.megabytes)
    with Neighbour(scene.folder) as client:
        yield IDLE, client.idle()
        for kind, release in (("tar.gz", bare), ("frames", published)):
            with scene.place() as folder:
                yield f"servesync, {kind}", client.during(partial(scene.sync, link, release, folder))
        for rival, release in ((IGZIP, bare), (ZSTD, published)):
            if scene.tools.has(rival):
                with scene.place() as folder:
                    yield rival.name, client.during(partial(scene.rival, rival, link, release, folder))


def _remove(scene: Scene, prefix: str) -> None:
    listed = scene.rig.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    for item in listed.get("Contents", ()):
        scene.rig.client.delete_object(Bucket=BUCKET, Key=item["Key"])


EVERYWHERE: Final = ("http", "https", "slow")
CASES: Final = {
    "tar.gz": Case("A bare tar.gz", SYNC, EVERYWHERE, tar_gz),
    "frames": Case("A release that `servesync publish` made", SYNC, EVERYWHERE, frames),
    "head": Case("A retrained head", HEAD, EVERYWHERE, head),
    "restart": Case("Killed half way, and started again", AGAIN, EVERYWHERE, restart),
    "fleet": Case("Three agents with one cache", "servesync, the first agent", ("http",), fleet),
    "sizes": Case("Sizes", "", ("http",), sizes),
    "publish": Case("The way into the store", PUBLISHED, ("http", "https"), publish),
    "neighbour": Case("A client of the model server meanwhile", IDLE, ("https",), neighbour),
}
