"""The commands that write into the store: `publish` and `manifest`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal

import typer
from rich import progress
from rich.console import Console

from servesync import disk
from servesync.cli.store_options import StoreOptions, with_store_options
from servesync.domain.manifest import dump
from servesync.errors import Reason, SettingsError
from servesync.publishing import Published, Request, manifest_of_file, manifest_of_object, publish_tree
from servesync.redaction import redact
from servesync.settings import Level, Store
from servesync.store import KeyPattern

READABLE: Final = "the publisher must be able to read every file and folder of the version"
UNPACKED_ASIDE: Final = (
    "the archive must be readable, and unpacks below the temporary directory; TMPDIR names another one"
)
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Put into the manifest; repeatable.")
]
LevelOption = Annotated[Level, typer.Option(help="How much is verified; see verify.level.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything except writing.")]


@with_store_options
def publish(  # noqa: PLR0913 (each is an option)
    directory: Annotated[Path, typer.Argument(help="The version's directory, which holds saved_model.pb.")],
    *,
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    version: Annotated[int, typer.Option("--version", min=0, help="The version's number, a new one.")],
    at: StoreOptions,
    label: Labels = None,
    level: LevelOption = "checksum",
    archive_format: Annotated[
        Literal["tar.zst", "tar.gz"], typer.Option("--format", help="tar.gz only if other tools need it.")
    ] = "tar.zst",
    warmup_from_golden: Annotated[
        bool,
        typer.Option(
            "--warmup-from-golden", help="Add warm-up requests for the server, made of the golden requests."
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Verify, pack and upload a version: immutable, the archive first, its manifest last."""
    where = at.store_settings()
    request = Request(
        model=model,
        version=version,
        labels=_labels(label),
        level=level,
        archive_format=archive_format,
        warmup_from_golden=warmup_from_golden,
        dry_run=dry_run,
        **at.of_agents(),
    )
    with (
        _ended_by_signals(),
        _bar(f"{model} {version}", request) as shown,
        disk.described(f"reading {directory}", READABLE),
    ):
        done = publish_tree(directory, where, shown)
    _tell(where, done)


@with_store_options
def manifest(  # noqa: PLR0913 (each is an option)
    archive: Annotated[str, typer.Argument(help="An archive's file, or its s3://BUCKET/KEY.")],
    *,
    model: Annotated[str | None, typer.Option("--model", help="For a file: the model's name.")] = None,
    version: Annotated[int | None, typer.Option("--version", min=0, help="For a file: its version.")] = None,
    at: StoreOptions,
    label: Labels = None,
    level: LevelOption = "checksum",
    dry_run: DryRun = False,
) -> None:
    """Make a manifest for an existing archive: print it for a file, upload it for an object of the store."""
    labels = _labels(label)
    if not archive.startswith("s3://"):
        if model is None or version is None:
            raise SettingsError(
                Reason.SETTINGS_INVALID, "a file does not say its --model and --version: give both"
            )
        request = Request(model, version, labels, level, **at.of_agents())
        with _ended_by_signals(), disk.described(f"reading {archive}", UNPACKED_ASIDE):
            sys.stdout.buffer.write(dump(manifest_of_file(Path(archive), request)))
        return
    where = at.store_settings()
    key = archive.removeprefix(f"s3://{where.bucket}/{where.prefix}")
    parsed = KeyPattern(where.key_pattern).parse(key)
    if parsed is None:
        pattern = f"the key pattern {where.key_pattern!a}"
        text = f"{redact(ascii(archive))} is no archive below {where.url} by {pattern}"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    request = Request(parsed.model, parsed.version, labels, level, dry_run=dry_run, **at.of_agents())
    with (
        _ended_by_signals(),
        _bar(f"{parsed.model} {parsed.version}", request) as shown,
        disk.described(f"unpacking {archive}", UNPACKED_ASIDE),
    ):
        done = manifest_of_object(where, shown)
    _tell(where, done)


def _labels(given: list[str] | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    for label in given or ():
        name, equals, value = label.partition("=")
        if not equals or name in labels:
            text = f"--label {label!a}: must be NAME=VALUE, each name once"
            raise SettingsError(Reason.SETTINGS_INVALID, text)
        labels[name] = value
    return labels


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: it removes what it sent, and says so.

    A signal that the command was started to ignore (`nohup`) stays ignored.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    heeded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    old = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        text = "agents ignore an incomplete version; run the same command again to complete it"
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
    text, bytes_done = progress.TextColumn("{task.description}"), progress.DownloadColumn()
    rates = progress.TransferSpeedColumn(), progress.TimeRemainingColumn()
    columns = (text, progress.BarColumn(), bytes_done, *rates)
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield replace(request, progress=show)


def _tell(store: Store, done: Published) -> None:
    written, archive = done.manifest, done.manifest.archive
    size = _size(archive.size)
    counts = f"{written.totals.files} files, {written.totals.tensors} tensors, {len(archive.parts)} parts"
    typer.echo(f"{written.model} {written.version}: {done.outcome}")
    typer.echo(f"  s3://{store.bucket}/{done.key} ({size}, sha256 {archive.sha256})")
    typer.echo(f"  s3://{store.bucket}/{done.manifest_key} ({counts})")
    for note in done.notes:
        typer.echo(f"  note: {note}", err=True)


def _size(size: int) -> str:
    """Return a number of bytes for people."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"
