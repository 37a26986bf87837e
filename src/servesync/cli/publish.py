"""The commands that write into the store: `publish` and `manifest`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal, TypedDict

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from servesync import disk
from servesync.errors import Reason, SettingsError
from servesync.manifest import dump
from servesync.publishing import (
    Published,
    Request,
    manifest_of_file,
    manifest_of_object,
    publish_tree,
    store_at,
)
from servesync.settings import Level, Limits, LoadLimits, Store
from servesync.settings_file import environment_overrides, load_settings
from servesync.store import KeyPattern

READABLE: Final = "whoever publishes must be able to read every file and folder of the version"
UNPACKED_ASIDE: Final = (
    "the archive must be readable, and is unpacked for a moment below the temporary directory; TMPDIR names "
    "another one"
)
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Take store, limits and verify.load from an agent's settings file.",
    ),
]
StoreUrl = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="s3://BUCKET/PREFIX of the store.")
]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint-url", metavar="URL", help="Where the store is, if not at AWS."),
]
Region = Annotated[str | None, typer.Option(help="The bucket's region.")]
Addressing = Annotated[
    Literal["auto", "path", "virtual"],
    typer.Option("--addressing-style", help="Where requests name the bucket; see store.addressing_style."),
]
Payer = Annotated[
    Literal["requester"] | None,
    typer.Option("--request-payer", help="For a bucket whose owner lets readers pay."),
]
Pattern = Annotated[str, typer.Option("--key-pattern", help="How keys name versions; see store.key_pattern.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Put into the manifest; repeatable.")
]
LevelOption = Annotated[Level, typer.Option(help="How much is proven: verify.level.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")]


def publish(  # noqa: PLR0913 (each is an option)
    directory: Annotated[Path, typer.Argument(help="The version's directory, which holds saved_model.pb.")],
    *,
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    version: Annotated[int, typer.Option("--version", min=0, help="The version's number, a new one.")],
    config: ConfigFile = None,
    store: StoreUrl = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    addressing_style: Addressing = "auto",
    request_payer: Payer = None,
    key_pattern: Pattern = "{model}/{version}",
    label: Labels = None,
    level: LevelOption = "checksum",
    archive_format: Annotated[
        Literal["tar.zst", "tar.gz"], typer.Option("--format", help="tar.gz for other tools' sake.")
    ] = "tar.zst",
    dry_run: DryRun = False,
) -> None:
    """Verify, pack and upload a version: immutable, the archive first, its manifest last."""
    where = store_of(
        config,
        store,
        endpoint_url=endpoint_url,
        region=region,
        addressing_style=addressing_style,
        request_payer=request_payer,
        key_pattern=key_pattern,
    )
    request = Request(
        model=model,
        version=version,
        labels=_labels(label),
        level=level,
        archive_format=archive_format,
        dry_run=dry_run,
        **_of_agents(config),
    )
    with (
        _ended_by_signals(),
        _bar(f"{model} {version}", request) as shown,
        disk.described(f"reading {directory}", READABLE),
    ):
        done = publish_tree(directory, where, shown)
    _tell(where, done)


def manifest(  # noqa: PLR0913 (each is an option)
    archive: Annotated[str, typer.Argument(help="An archive's file, or its s3://BUCKET/KEY.")],
    *,
    model: Annotated[str | None, typer.Option("--model", help="For a file: the model's name.")] = None,
    version: Annotated[int | None, typer.Option("--version", min=0, help="For a file: its version.")] = None,
    config: ConfigFile = None,
    store: StoreUrl = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    addressing_style: Addressing = "auto",
    request_payer: Payer = None,
    key_pattern: Pattern = "{model}/{version}",
    label: Labels = None,
    level: LevelOption = "checksum",
    dry_run: DryRun = False,
) -> None:
    """Make a manifest for an archive that exists: printed for a file, put beside an object of the store."""
    labels = _labels(label)
    if not archive.startswith("s3://"):
        if model is None or version is None:
            raise SettingsError(
                Reason.SETTINGS_INVALID, "a file does not say its --model and --version: give both"
            )
        request = Request(model, version, labels, level, **_of_agents(config))
        with _ended_by_signals(), disk.described(f"reading {archive}", UNPACKED_ASIDE):
            sys.stdout.buffer.write(dump(manifest_of_file(Path(archive), request)))
        return
    where = store_of(
        config,
        store,
        endpoint_url=endpoint_url,
        region=region,
        addressing_style=addressing_style,
        request_payer=request_payer,
        key_pattern=key_pattern,
    )
    key = archive.removeprefix(f"s3://{where.bucket}/{where.prefix}")
    parsed = KeyPattern(where.key_pattern).parse(key)
    if parsed is None:
        text = f"{archive!a} is no archive below {where.url} by the key pattern {where.key_pattern!a}"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    request = Request(parsed.model, parsed.version, labels, level, dry_run=dry_run, **_of_agents(config))
    with (
        _ended_by_signals(),
        _bar(f"{parsed.model} {parsed.version}", request) as shown,
        disk.described(f"unpacking {archive}", UNPACKED_ASIDE),
    ):
        done = manifest_of_object(where, shown)
    _tell(where, done)


def store_of(config: Path | None, url: str | None, **fields: str | None) -> Store:
    """Return the store that the options name; `fields` are those of the section `store` besides the URL.

    Raises:
        SettingsError: they name none, or two.
    """
    if (config is None) == (url is None):
        text = "say where the store is: either --store s3://BUCKET/PREFIX or -c with an agent's settings file"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    if config is not None:
        return load_settings(config, environment_overrides()).store
    return store_at(url=url, **fields)


class _OfAgents(TypedDict, total=False):
    limits: Limits
    load: LoadLimits


def _of_agents(config: Path | None) -> _OfAgents:
    """Return what a request takes over from an agent's settings file; nothing without one."""
    if config is None:
        return {}
    settings = load_settings(config, environment_overrides())
    return {"limits": settings.limits, "load": settings.verify.load}


def _labels(given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for label in given or ():
        name, equals, value = label.partition("=")
        if not equals or name in found:
            text = f"--label {label!a}: must be NAME=VALUE, each name once"
            raise SettingsError(Reason.SETTINGS_INVALID, text)
        found[name] = value
    return found


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: what was sent is removed, and it says so.

    A signal that whoever started the command has it ignore (`nohup`) stays ignored.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    heeded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    old = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        text = "agents take nothing that is not complete; the same command completes it"
        sys.stderr.write(f"servesync: stopped by {str(interrupt) or 'Ctrl-C'}: {text}\n")
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _bar(title: str, request: Request) -> Iterator[Request]:
    """Lend the request with a progress bar, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield request
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def progress(done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield replace(request, progress=progress)


def _tell(store: Store, done: Published) -> None:
    found, archive = done.manifest, done.manifest.archive
    size = _size(archive.size)
    counts = f"{found.totals.files} files, {found.totals.tensors} tensors, {len(archive.parts)} parts"
    typer.echo(f"{found.model} {found.version}: {done.outcome}")
    typer.echo(f"  s3://{store.bucket}/{done.key} ({size}, sha256 {archive.sha256})")
    typer.echo(f"  s3://{store.bucket}/{done.manifest_key} ({counts})")
    for note in done.notes:
        typer.echo(f"  note: {note}", err=True)


def _size(size: int) -> str:
    """Return a number of bytes as people read it."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"
