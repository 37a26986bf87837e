"""Runs the stand-in: `python -m servesync.demo.standin --rest_api_port=8501 --model_config_file=...`."""

import os
import signal
import sys
from pathlib import Path

from servesync.demo.standin.config import BadConfig, ModelConfig, parse_config
from servesync.demo.standin.flags import Flags, parse_flags
from servesync.demo.standin.rest import listen
from servesync.demo.standin.server import FAILED_START, Serving, say

FIRST_LINE = "This is servesync's stand-in for tensorflow_model_server, not tensorflow_model_server itself."


def main() -> int:
    """Run until a signal ends the process, which like the real server's it does at once."""
    sys.stdout.write(FIRST_LINE + "\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if "--version" in sys.argv[1:]:
        return 0
    try:
        flags, unknown = parse_flags(sys.argv[1:])
        models = _models(flags)
    except (BadConfig, OSError, ValueError) as error:
        say(f"Failed to start server. Error: {error}")
        return FAILED_START
    for word in unknown:
        say(f"unknown argument: {word}")
    serving = Serving(flags, models)
    serving.start()
    if not serving.wait_for_start():
        say("Failed to start server. Error: Unknown: 1 servable(s) did not become available")
        sys.stdout.flush()
        os._exit(FAILED_START)
    if flags.rest_api_port:
        server = listen(serving, flags.rest_api_port)
        say(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
        server.serve_forever()
    signal.pause()
    return 0


def _models(flags: Flags) -> list[ModelConfig]:
    if flags.model_config_file:
        models = parse_config(Path(flags.model_config_file).read_text())
        if any(model.labels for model in models) and not flags.allow_version_labels_for_unavailable_models:
            raise BadConfig("labels name versions that are not available yet")
        return models
    if not flags.model_base_path.startswith("/"):
        raise BadConfig("--model_base_path must be absolute")
    return [ModelConfig(flags.model_name, flags.model_base_path)]


if __name__ == "__main__":
    sys.exit(main())
