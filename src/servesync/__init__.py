"""Brings models from an S3 store into TensorFlow Serving safely."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from servesync.publishing import Published

__version__ = "0.1.0"


def publish(  # noqa: PLR0913 (names, like the options of the command)
    directory: str | Path,
    *,
    store: str,
    model: str,
    version: int,
    labels: Mapping[str, str] | None = None,
    level: Literal["structure", "checksum", "load"] = "checksum",
    archive_format: Literal["tar.zst", "tar.gz"] = "tar.zst",
    endpoint_url: str | None = None,
    region: str | None = None,
    addressing_style: Literal["auto", "path", "virtual"] = "auto",
    request_payer: Literal["requester"] | None = None,
    key_pattern: str = "{model}/{version}",
    warmup_from_golden: bool = False,
    dry_run: bool = False,
) -> "Published":
    """Publish the SavedModel in `directory` as one immutable version; for training pipelines.

    Does what `servesync publish` does: verifies, packs and uploads, the archive first, its manifest last. The
    same content again is a success (`outcome` "already there") that writes nothing. `store` is
    `s3://BUCKET/PREFIX`; credentials come from the usual AWS chain. `warmup_from_golden` adds warm-up
    requests for the server, one for each golden request that the directory carries.

    Raises:
        servesync.errors.SettingsError: an argument is not acceptable.
        servesync.errors.ReleaseRefused: the SavedModel is not sound, or something else is in the store under
            this number (`error.reason` is `release_exists`).
        servesync.errors.StoreError, servesync.errors.TransferError: the store refused or did not answer. As
            after every error, no agent takes anything of this version, and calling again completes it.
        OSError: a file cannot be read.
    """
    from servesync.publishing import Request, publish_tree, store_at  # noqa: PLC0415 (needs boto3)

    request = Request(
        model=model,
        version=version,
        labels=labels or {},
        level=level,
        archive_format=archive_format,
        warmup_from_golden=warmup_from_golden,
        dry_run=dry_run,
    )
    where = store_at(
        url=store,
        endpoint_url=endpoint_url,
        region=region,
        addressing_style=addressing_style,
        request_payer=request_payer,
        key_pattern=key_pattern,
    )
    return publish_tree(Path(directory), where, request)
