"""`servesync demo`."""

import typer


def demo() -> None:
    """Show the whole journey on this machine: a real S3 server, real models, and a model server."""
    from servesync.demo.journey import run_demo  # noqa: PLC0415 (its parts come with the extra `demo`)

    raise typer.Exit(run_demo())
