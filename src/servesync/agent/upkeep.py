"""Makes the directories that server and workspace need, and updates records that are out of date."""

from servesync import disk
from servesync.agent import announce, leftovers
from servesync.agent.context import AgentContext
from servesync.agent.discovery import discover
from servesync.agent.model_snapshot import ModelSnapshot, refusals_of
from servesync.errors import DiskError, Reason
from servesync.jobs import JobKind


def prepare_folders(context: AgentContext) -> None:
    """Make every directory, of the models that are known by now.

    Raises:
        DiskError: the models directory cannot be used, or no model's base path in it.
    """
    workspace = context.workspace
    discover(context)
    models = list(context.models)
    try:
        workspace.prepare(models)
    except OSError as error:
        _prepare_new(context)
        if not context.state.upkeep.prepared:
            raise disk.describe(error, f"preparing {workspace.models_dir}") from error
    else:
        context.state.upkeep.prepared = set(models)


def clean(context: AgentContext) -> list[OSError]:
    """Put what an earlier run left half-done into the trash; return what could not be moved.

    A tree with which a transfer may go on stays until it is known whether anybody wants it.
    """
    leftovers.look(context)
    at_work = [item.staged.tree for item in context.state.transfers.values() if item.staged]
    at_work += [item.tree for item in context.state.upkeep.interrupted.values()]
    problems = [] if context.is_busy(JobKind.TRANSFER) else context.workspace.clean(at_work)
    for model in context.models:
        try:
            context.reserve(model).clean()
        except OSError as error:
            problems.append(error)
    context.state.upkeep.trash_is_due = True
    return problems


def update_records(context: AgentContext, found: ModelSnapshot) -> None:
    """Update the records that a snapshot has shown to be out of date."""
    model = found.facts.model
    shelf = context.shelf(model)
    try:
        shelf.write_refreshed(found.inventory)
        for version, token in found.status_tokens.items():
            shelf.note_said(version, token)
        if found.unreadable:
            refusals_of(context, model).replace_damaged(found.offered, context.utc())
    except OSError as error:
        announce.failed(context, disk.describe(error, f"writing records of {model}"))


def _prepare_new(context: AgentContext) -> None:
    """Make the directories of models that are new, or whose base path could not be used before."""
    for model in context.models.keys() - context.state.upkeep.prepared:
        try:
            context.workspace.prepare([model])
        except OSError as error:
            context.failed(disk.describe(error, f"making the directories of {model}"))
        else:
            context.state.upkeep.prepared.add(model)


def ensure_shelves(context: AgentContext) -> None:
    """Put back what somebody removed of the workspace, and base paths of models that never had a version.

    Without a base path the server stops updating every model. Where versions were served, the base path
    comes back together with the next one.
    """
    _prepare_new(context)
    try:
        context.workspace.make_folders()
    except OSError as error:
        context.failed(disk.describe(error, f"making {context.workspace.root}"))
    for model in context.models:
        try:
            there = context.workspace.make_shelf(model)
        except OSError as error:
            context.failed(disk.describe(error, f"making the base path of {model}"))
            continue
        if not there:
            text = (
                f"somebody removed {context.workspace.shelf(model)}: what the server has in memory stays "
                "until the folder is there again, so it comes back with a version in it"
            )
            context.failed(DiskError(Reason.SHELF_REMOVED, text), model)
