"""The command `run`."""

from servesync.cli.options import ConfigFile
from servesync.cli.working import settings_of
from servesync.runtime.process import run_daemon
from servesync.settings_file import environment_overrides


def run(config: ConfigFile) -> None:
    """Run the agent until SIGTERM or SIGINT. SIGHUP reloads the settings, SIGUSR1 syncs now."""
    run_daemon(config.absolute(), settings_of(config), environment_overrides())
