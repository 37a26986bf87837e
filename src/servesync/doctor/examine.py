"""The order of the examination: from the settings outwards, each area on its own."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from servesync.doctor.disk_area import examine_disk
from servesync.doctor.environment import examine_environment
from servesync.doctor.findings import Check, Finding, fail, isolate, ok
from servesync.doctor.layout import LayoutArea
from servesync.doctor.lock import examine_lock
from servesync.doctor.other_sources import examine_cache, examine_mirrors
from servesync.doctor.processes import find_server
from servesync.doctor.readers import examine_readable
from servesync.doctor.server import examine_server
from servesync.doctor.server_flags import examine_flags
from servesync.doctor.server_memory import examine_memory
from servesync.doctor.settings_checks import examine_settings
from servesync.doctor.store import StoreArea
from servesync.domain.versions import Model
from servesync.errors import SettingsError
from servesync.install import Workspace
from servesync.settings import Settings
from servesync.settings_file import load_settings, override_names


def examine(config: Path, environment: Mapping[str, str], show_keys: int) -> Iterator[Finding]:
    """Yield every finding as soon as it is made; `show_keys`: how many keys that are no release are named."""
    try:
        settings = load_settings(config, environment)
    except SettingsError as error:
        yield from _mistakes(config, error)
        return
    names = override_names(environment)
    more = f"; overridden by {', '.join(names)}" if names else ""
    yield ok(Check.SETTINGS_FILE, f"{config} can be used; models: {len(settings.models)}{more}")
    yield from isolate("settings", lambda: examine_settings(settings))
    yield from isolate("environment", lambda: examine_environment(settings.store, environment))
    store, layout = StoreArea(settings.store), LayoutArea(settings, show_keys)
    yield from isolate("store", store.examine)
    if store.can_list:
        yield from isolate("layout", layout.examine)
    yield from isolate("mirrors", lambda: examine_mirrors(settings.fetch, layout.sample))
    yield from isolate("cache", lambda: examine_cache(settings.store, settings.limits))
    yield from _this_machine(settings, config, layout.largest_bytes)


def _mistakes(config: Path, error: SettingsError) -> Iterator[Finding]:
    problems = error.facts.get("problems")
    advice = "correct it; `servesync schema` lets an editor check it while you type"
    for problem in problems if isinstance(problems, list) else [str(error)]:
        yield fail(Check.SETTINGS_FILE, f"{config}: {problem}", advice)


def _this_machine(settings: Settings, config: Path, largest_bytes: int) -> Iterator[Finding]:
    serving, workspace = settings.serving, Workspace(settings.serving.models_dir)
    models = [Model(model.name) for model in settings.models]
    server = find_server(serving.rest_url) if serving.rest_url else None
    shelves = [workspace.shelf(model) for model in models]
    yield from isolate("disk", lambda: examine_disk(workspace, models, settings.limits, largest_bytes))
    yield from isolate("disk", lambda: examine_readable(serving.models_dir, shelves, server))
    yield from isolate("lock", lambda: examine_lock(workspace, config))
    yield from isolate("server", lambda: examine_server(serving, workspace, models))
    yield from isolate("server", lambda: examine_memory(settings.memory, serving.rest_url))
    if server is not None:
        yield from isolate("server", lambda: examine_flags(server, serving, workspace, models))
