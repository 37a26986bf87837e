"""What the commands that work with a log, `run` and `sync`, do first."""

from pathlib import Path

from servesync.logs import Event, configure, get_logger
from servesync.settings import Settings
from servesync.settings_file import environment_overrides, load_settings, service_variables


def settings_of(config: Path) -> Settings:
    """Return the settings, and begin to log as they say."""
    environment = environment_overrides()
    settings = load_settings(config, environment)
    configure(settings.log.level, settings.log.format)
    skipped = service_variables(environment)
    if skipped:
        text = "Kubernetes made them of a Service: set enableServiceLinks: false in the pod, or rename that"
        get_logger().warning(Event.VARIABLES_SKIPPED, variables=skipped, because=text)
    return settings
