"""Reads one model: its shelf, its reserve, its records, and what the agent remembers of it."""

import hashlib
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from servesync import __version__
from servesync.agent.context import AgentContext
from servesync.agent.models_config import labels_of, server_policy_of
from servesync.domain.versions import Model, Release, Version, parse_version
from servesync.errors import Reason, ServerError
from servesync.install import Inventory, Record, Refusals
from servesync.planning.facts import (
    Everything,
    Facts,
    Follow,
    Hold,
    Latest,
    Pin,
    Policy,
    Served,
    Server,
    Trial,
)
from servesync.planning.status_staleness import mark_stale
from servesync.settings import ModelSettings

TAKES_THE_NUMBER: Final = (
    "was not put there by servesync, and the server takes its name for this version: move it away by hand"
)


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model. `status_tokens`: what records are to keep of the server's status, where that changes.

    `unreadable`: what to say of records that are there and cannot be read.
    """

    settings: ModelSettings
    inventory: Inventory
    reserve: Mapping[Version, Record]
    offered: Mapping[Version, Release]
    facts: Facts
    status_tokens: Mapping[Version, str]
    unreadable: tuple[str, ...] = ()


def policy_of(settings: ModelSettings) -> Policy:
    """Return the policy that a model's settings ask for."""
    versions = settings.versions
    if versions.latest is not None:
        return Latest(versions.latest)
    if versions.pin is not None:
        return Pin(frozenset(Version(number) for number in versions.pin))
    if versions.channel is not None:
        return Follow(tuple(versions.channel))
    return Everything()


def served_now(context: AgentContext, model: Model) -> tuple[Version, Record | None] | None:
    """Return the highest version that the server has confirmed, and its record; None if there is none.

    Where there is no server to ask, the highest installed one. It counts while it is repaired, doubted, or
    off the shelf for a moment, too; and so does one whose record cannot be read.

    Raises:
        OSError: the records cannot be read.
    """
    away = context.reserve(model).versions().items()
    known = {version: record for version, record in away if record.returning}
    shelf = context.shelf(model)
    known |= shelf.records()
    asked = context.ports.server is not None
    good = {version for version, record in known.items() if record.confirmed or not asked}
    good |= shelf.unrecorded()
    return (max(good), known.get(max(good))) if good else None


def refusals_of(context: AgentContext, model: Model) -> Refusals:
    """Return the refused releases of `model`, as far as the present settings would refuse them again.

    Raises:
        OSError: the records cannot be read.
    """
    settings, wish = context.settings, context.models[model].signatures
    parts = [__version__, settings.verify.model_dump_json(), settings.limits.model_dump_json(), repr(wish)]
    if wish == "as_served":
        served = served_now(context, model)
        parts.append(str(served[0] if served else None))
    checks = "\n".join(parts)
    return Refusals(context.workspace.refusals(model), hashlib.sha256(checks.encode()).hexdigest()[:16])


# -- one model ------------------------------------------------------------------------------------------


class ModelReader:
    """Reads one model at one moment."""

    def __init__(
        self,
        context: AgentContext,
        model: Model,
        settings: ModelSettings,
        settling: Mapping[Version, float],
        now: float,
    ) -> None:
        self._context = context
        self._state = context.state
        self._model = model
        self._settings = settings
        self._settling = settling
        self._now = now

    def read(self, *, server_is_late: bool) -> ModelSnapshot:
        """Return the model as it is now. `server_is_late`: the server counts as silent.

        Raises:
            OSError: the shelf or the records cannot be read.
        """
        context, state, model = self._context, self._state, self._model
        inventory = context.shelf(model).inventory(state.upkeep.checked.setdefault(model, {}))
        served = self._served(inventory, server_is_late=server_is_late)
        versions, tokens = _statuses(served, inventory)
        reserve, lost = context.reserve(model).contents()
        refusals = refusals_of(context, model)
        returning = frozenset(version for version, record in reserve.items() if record.returning)
        cooling_down = state.watch.cooling_down(model, self._now)
        listing = state.store.listing_of(model)
        releases = listing.releases.get(model, ()) if listing else ()
        offered = {release.version: release for release in releases}
        channels = state.store_documents.positions(model)
        labels = labels_of(context.settings.serving, self._settings, channels)
        facts = Facts(
            model=model,
            policy=policy_of(self._settings),
            offered=None if listing is None else {v: release.identity for v, release in offered.items()},
            held=_cooling_down_holds(cooling_down - returning) | self._holds(offered, inventory, refusals),
            shelf=inventory.versions,
            reserve={version: record.identity for version, record in reserve.items()},
            returning=returning,
            cooling_down=cooling_down,
            channels=channels,
            withdrawn=state.store_documents.withdrawn(model, offered, refusals),
            server=self._server(versions),
            labels=labels,
            labelled=context.config.labelled(model, labels) if context.config else frozenset(),
            retired={
                version: Version(record.retired_for)
                for version, record in reserve.items()
                if record.retired_for is not None
            },
        )
        unreadable = (
            *inventory.unreadable.values(),
            *lost.values(),
            *refusals.unreadable().values(),
            *state.store_documents.unreadable(model).values(),
        )
        return ModelSnapshot(self._settings, inventory, reserve, offered, facts, tokens, unreadable)

    def _served(self, inventory: Inventory, *, server_is_late: bool) -> Mapping[Version, Served] | None:
        """Return the server's last answer for the model, after the watch has taken note of it."""
        view, shelf = self._state.server, inventory.versions
        for answers in view.unnoted:
            answer_now = answers.statuses.get(self._model)
            if answer_now is not None:
                self._state.watch.record_status(
                    self._model, answer_now, shelf, answers.asked_at, answers.started_at
                )
        last = view.answers.statuses.get(self._model) if view.answers else None
        return None if last is None or isinstance(last, ServerError) or server_is_late else last

    def _server(self, versions: Mapping[Version, Served] | None) -> Server:
        serving, watch = self._context.settings.serving, self._state.watch
        policy, latest = server_policy_of(serving, self._settings)
        one_pass = self._context.one_pass
        silent = watch.silent_seconds(self._model, self._now)
        server = Server(
            asked=self._context.ports.server is not None,
            policy=policy,
            versions=versions,
            load_timeout_seconds=serving.load_timeout_seconds,
            scan_seconds=serving.scan_interval_seconds,
            may_be_starting=not one_pass and silent < serving.load_timeout_seconds,
            latest=latest,
            trials=self._trials(),
        )
        found = watch.facts(self._model, self._now, server)
        if one_pass:
            return replace(found, unreachable_seconds={}, answered_seconds=math.inf)
        return found

    def _trials(self) -> dict[Version, Trial] | None:
        """Return how versions have answered the trial requests; None if versions need no trial."""
        if self._context.settings.serving.smoke == "off":
            return None
        trials = self._state.trials.items()
        return {key[1]: it.result for key, it in trials if key[0] == self._model and it.result is not None}

    def _holds(
        self, offered: Mapping[Version, Release], inventory: Inventory, refusals: Refusals
    ) -> dict[Version, Hold]:
        """Return why versions must not be fetched now; of several reasons, the last one below counts."""
        store, model = self._context.settings.store, self._model
        holds = {
            version: Hold(
                Reason.RELEASE_INCOMPLETE,
                "a directory without a manifest; it counts as complete when it has not changed for "
                f"{store.settle_seconds:g} s (at the last listing, {left:.0f} s were left)",
            )
            for version, left in self._settling.items()
        }
        identities = {version: release.offer for version, release in offered.items()}
        if store.require_manifest:
            text = (
                "it has no manifest, and store.require_manifest asks for one; `servesync manifest` makes it"
            )
            holds |= {
                version: Hold(Reason.RELEASE_UNPROVEN, text)
                for version, release in offered.items()
                if release.manifest is None
            }
        wall = self._context.ports.clock.wall()
        holds |= self._state.attempts.holds(model, identities, self._now, wall)
        foreign = {v for v, item in inventory.versions.items() if not item.is_ours}
        holds |= refusals.holds(offered, foreign)
        holds |= {
            version: Hold(
                Reason.VERSION_FOREIGN,
                f"{str(self._context.workspace.shelf(model) / name)!a} {TAKES_THE_NUMBER}",
            )
            for name in inventory.foreign_names
            if (version := parse_version(name.strip(" \t\n\v\f\r").removeprefix("+"))) is not None
        }
        holds |= {
            version: Hold(Reason.RECORD_UNREADABLE, inventory.unreadable[version])
            for version in inventory.blocking
        }
        return holds | self._problems()

    def _problems(self) -> dict[Version, Hold]:
        listing = self._state.store.listing_of(self._model)
        found = listing.problems.items() if listing else ()
        return {
            version: Hold(error.reason, str(error)) for (name, version), error in found if name == self._model
        }


def _statuses(
    versions: Mapping[Version, Served] | None, inventory: Inventory
) -> tuple[Mapping[Version, Served] | None, dict[Version, str]]:
    """Return the statuses, with stale ones marked, and the tokens that records are to keep from now on."""
    if versions is None:
        return None, {}
    statuses, tokens = dict(versions), {}
    for version, item in inventory.versions.items():
        served, kept = mark_stale(versions.get(version), item.said_before)
        if served is not None:
            statuses[version] = served
        if kept != item.said_before:
            tokens[version] = kept
    return statuses, tokens


def _cooling_down_holds(versions: AbstractSet[Version]) -> dict[Version, Hold]:
    text = "taken off the shelf a moment ago; the server must see it gone before it may come again"
    return dict.fromkeys(versions, Hold(Reason.SERVER_REFUSED, text))
