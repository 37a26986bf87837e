"""Lists the store in a job, and has the small documents read that a listing shows to be new."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from servesync import disk
from servesync.admin import Stage
from servesync.agent.context import AgentContext
from servesync.agent.discovery import discover
from servesync.agent.documents import NotReadYet
from servesync.agent.model_snapshot import refusals_of
from servesync.domain.versions import Model, Release
from servesync.errors import Stopped, StoreError, SyncError
from servesync.jobs import Ended, Job, JobContext, JobKind, ask_beside
from servesync.planning.memory import weight_of
from servesync.settings import EVERY_MODEL
from servesync.store import Listing
from servesync.transfer.manifests import check_size, manifest_of

DOCUMENTS_SECONDS: Final = 1.0
"""How long decisions wait for the documents that a listing shows to be new."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """The weight of a release by its manifest; None if the manifest is bad, which its transfer reports."""

    release: Release
    weight: int | None


def begin_poll(context: AgentContext) -> None:
    """Start to list the store, unless that is being done."""
    store, agent_status, view = context.ports.store, context.agent_status, context.state.store
    if context.is_busy(JobKind.LIST):
        view.is_wanted |= view.running is None
        return
    view.is_wanted = False
    names = frozenset(item.name for item in context.settings.models)
    view.asking_since = context.now()
    view.polled_at = context.ports.clock.wall()

    def wants(model: Model) -> bool:
        return EVERY_MODEL in names or model in names

    def work(job: JobContext) -> tuple[frozenset[str], Listing]:
        with agent_status.stage(Stage.LIST):  # a page may drip for longer than a cancel takes
            return names, ask_beside(lambda: store.list(wants, should_stop=job.should_stop), job.check)

    view.running = context.start(Job(JobKind.LIST, work))


def list_once_more(context: AgentContext) -> None:
    """List the store for a version that is ready to be put in place: it may have been withdrawn meanwhile."""
    view = context.state.store
    ready = [item.ready_at for item in context.state.transfers.values() if item.ready_at is not None]
    since = max(ready, default=None)
    if since is None or context.is_busy(JobKind.LIST):
        return
    if view.tried_at is None or view.tried_at < since:
        begin_poll(context)


def take_in_listing(context: AgentContext, message: Ended) -> None:
    """Take in a listing, or the error in its place; then the last good listing still counts."""
    view, error = context.state.store, message.error
    if view.running is None or view.running.job is not message.job:
        return  # another store was asked, under other settings
    view.running = None
    if isinstance(error, Stopped):
        return
    view.tried_at, view.is_new = view.asking_since, True
    if isinstance(message.result, tuple):
        view.names, view.listing = message.result
        view.error = None
        view.asked_at, view.listed_at = view.asking_since, view.polled_at
        view.arrived_at = context.now()
        context.state.documents.listed()
        discover(context)
        read_store_documents(context, context.models)
        _tidy_attempts(context, message.result[1])
    elif isinstance(error, StoreError):
        view.error = error
    elif isinstance(error, SyncError):
        view.error = StoreError(error.reason, error.what, error.advice)
    elif error is not None:
        view.error = None
    context.agent_status.polled(view.error.reason if view.error else None)


def read_store_documents(context: AgentContext, models: Iterable[Model]) -> None:
    """Take over channels and withdrawals; a document that fails is tried again after the next listing."""
    state = context.state
    for model in models:
        settings, listing = context.models.get(model), state.store.listing_of(model)
        if settings is None or listing is None:
            continue
        with _going_on(context, model):
            state.store_documents.follow(model, settings.channels, listing.channels.get(model, {}))
        with _going_on(context, model):
            shelf, reserve = context.shelf(model), context.reserve(model)
            here = {*shelf.records(), *shelf.unrecorded(), *reserve.versions()}
            here |= {version for name, version in state.transfers if name == model}
            releases = listing.documented(model)
            state.store_documents.look_for_withdrawals(model, releases, here, refusals_of(context, model))


def _tidy_attempts(context: AgentContext, listing: Listing) -> None:
    """Forget how often releases failed that the store does not offer any more."""
    for model in context.models:
        offers = {release.version: release.offer for release in listing.releases.get(model, ())}
        with _going_on(context, model):
            context.state.attempts.tidy(model, offers)


@contextmanager
def _going_on(context: AgentContext, model: Model) -> Iterator[None]:
    """Note what fails for the log, and go on."""
    try:
        yield
    except Stopped:
        raise
    except SyncError as error:
        context.failed(error)
    except OSError as problem:
        context.failed(disk.describe(problem, f"recording what the store says of {model}"))


# -- documents ------------------------------------------------------------------------------------------


def begin_documents(context: AgentContext) -> None:
    """Start jobs for the requested documents."""
    for job in context.state.documents.jobs():
        context.start(job)


def is_being_understood(context: AgentContext) -> bool:
    """Whether documents are still to be read that belong to a listing which has just arrived.

    They may withdraw listed versions or move channels, so decisions wait for them, but no longer than
    `DOCUMENTS_SECONDS`.
    """
    since = context.state.store.arrived_at
    if since is None or context.state.documents.is_idle:
        return False
    return context.now() - since < DOCUMENTS_SECONDS


def take_in_document(context: AgentContext, message: Ended) -> None:
    """Take in a document, and decide again on what waited for it."""
    state, error = context.state, message.error
    if isinstance(error, OSError):
        error = disk.describe(error, "reading a document of the store")
    state.documents.ended(message.job, message.result, error)
    release = state.weighing.pop(message.job.name, None)
    if release is not None:
        found = message.result
        state.memory.estimates.cache(release, found.weight if isinstance(found, Weighed) else None)
    elif message.job.model is not None:
        read_store_documents(context, [message.job.model])


def weigh(context: AgentContext, release: Release) -> None:
    """Have a release's manifest read, and cache the weight that it gives."""
    item = release.manifest
    if item is None:
        return
    try:
        check_size(item)
        found = context.state.documents.get(item, release.model, lambda data: _from_manifest(release, data))
    except NotReadYet:
        context.state.weighing[f"{item.key}\0{item.etag}"] = release
    except SyncError:  # the transfer of the version will report it
        context.state.memory.estimates.cache(release, None)
    else:
        weight = found.weight if isinstance(found, Weighed) else _from_manifest(release, found).weight
        context.state.memory.estimates.cache(release, weight)


def _from_manifest(release: Release, data: object) -> Weighed:
    try:
        item = release.manifest or release.objects[0]
        found = manifest_of(release, item, data if isinstance(data, bytes) else b"")
    except SyncError:
        return Weighed(release, None)
    files = ((file.path, file.size) for file in found.files)
    return Weighed(release, weight_of(files, found.totals.tensor_bytes))
