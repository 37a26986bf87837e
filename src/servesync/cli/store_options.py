"""The options that name the store: the same for every command that needs no running agent."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import typer

from servesync.errors import Reason, SettingsError
from servesync.publishing import store_at
from servesync.settings import Limits, LoadLimits, Store
from servesync.settings_file import environment_overrides, load_settings

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
    str | None, typer.Option("--endpoint-url", metavar="URL", help="The URL of the store, if it is not AWS.")
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


class OfAgents(TypedDict, total=False):
    """What a publisher takes over from the agents' settings file."""

    limits: Limits
    load: LoadLimits


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """The options of the command line; each field is one."""

    config: ConfigFile = None
    store: StoreUrl = None
    endpoint_url: Endpoint = None
    region: Region = None
    addressing_style: Addressing = "auto"
    request_payer: Payer = None
    key_pattern: Pattern = "{model}/{version}"

    def store_settings(self) -> Store:
        """Return the section `store` that the options name.

        Raises:
            SettingsError: the options name no store, or two.
        """
        if (self.config is None) == (self.store is None):
            text = "where is the store? Give --store s3://BUCKET/PREFIX, or -c and an agent's settings file"
            raise SettingsError(Reason.SETTINGS_INVALID, text)
        if self.config is not None:
            return load_settings(self.config, environment_overrides()).store
        return store_at(
            url=self.store,
            endpoint_url=self.endpoint_url,
            region=self.region,
            addressing_style=self.addressing_style,
            request_payer=self.request_payer,
            key_pattern=self.key_pattern,
        )

    def of_agents(self) -> OfAgents:
        """Return the values for a request from an agent's settings file; none without a file."""
        if self.config is None:
            return {}
        settings = load_settings(self.config, environment_overrides())
        return {"limits": settings.limits, "load": settings.verify.load}


def with_store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `StoreOptions`, which it gets as its argument `at`."""
    own = [item for item in inspect.signature(command).parameters.values() if item.name != "at"]
    options = list(inspect.signature(StoreOptions).parameters.values())

    @functools.wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 (the command's own arguments)
        at = StoreOptions(**{item.name: given.pop(item.name) for item in options})
        command(**given, at=at)

    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = {item.name: item.annotation for item in (*own, *options)}
    return run
