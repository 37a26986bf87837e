"""Runs the stand-in: `python -m servesync.demo.standin --rest_api_port=8501 --model_config_file=...`."""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from servesync import __version__
from servesync.demo.seaweed import die_with_parent
from servesync.demo.standin.config import BadConfig, ModelConfig, check_change, read_config
from servesync.demo.standin.flags import USAGE, BadFlag, Flags, parse_flags
from servesync.demo.standin.monitoring import read_monitoring
from servesync.demo.standin.rest import listen
from servesync.demo.standin.server import Serving, say

FIRST_LINE: Final = (
    "This is servesync's stand-in for tensorflow_model_server, not tensorflow_model_server itself."
)
FAILED_START: Final = 255


def main(arguments: list[str]) -> NoReturn:
    """Run until a signal ends the process; like the real server, it ends at once."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file, or a pipe
    sys.stdout.write(FIRST_LINE + "\n")
    sys.stdout.flush()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())  # the parent may have blocked signals
    try:
        flags, unknown = parse_flags(arguments)
        if flags.version:
            sys.stdout.write(f"servesync: {__version__}\n")
            _end(0)
        if flags.standin_die_with_parent:
            die_with_parent()
        for word in unknown:
            say(f"unknown argument: {word}")
        if unknown:
            say(USAGE)
        _serve(flags, _models(flags))
    except (BadConfig, BadFlag, OSError) as error:
        say(f"Failed to start server. Error: {error}")
    _end(FAILED_START)


def _models(flags: Flags) -> list[ModelConfig]:
    if flags.port == 0 and not flags.grpc_socket_path:
        text = "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
        raise BadConfig(text)
    if flags.model_config_file:
        models = read_config(Path(flags.model_config_file))
    elif flags.model_base_path.startswith("/"):
        models = [ModelConfig(flags.model_name, flags.model_base_path)]
    else:
        raise BadConfig(f"Expected an absolute --model_base_path, got {flags.model_base_path!a}")
    check_change(
        {}, models, lambda *_: False, allow_unavailable=flags.allow_version_labels_for_unavailable_models
    )
    return models


def _serve(flags: Flags, models: list[ModelConfig]) -> None:
    """Serve for ever; return if a model's highest version failed to load."""
    monitored = read_monitoring(Path(flags.monitoring_config_file)) if flags.monitoring_config_file else None
    serving = Serving(flags, models)
    serving.start()
    failed = serving.wait_for_start()
    if failed:
        say(f"Failed to start server. Error: {len(failed)} servable(s) did not become available: {failed}")
        return
    rpc = None
    if flags.port and importlib.util.find_spec("grpc"):
        from servesync.demo.standin.rpc import listen as listen_rpc  # noqa: PLC0415 (only where grpcio is)

        rpc = listen_rpc(serving, flags.port, blocks=flags.standin_reload_blocks)
        say(f"Running gRPC ModelServer at 127.0.0.1:{flags.port} ...")
    if flags.rest_api_port not in (0, flags.port):
        server = listen(serving, flags.rest_api_port, monitored)
        say(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
        server.serve_forever()
    while rpc is not None:  # it serves for as long as it is held
        signal.pause()
    signal.pause()


def _end(code: int) -> NoReturn:
    """End at once: loads that are under way are not waited for."""
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
