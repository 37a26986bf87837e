"""How long a rollback takes: `python bench/rollback.py [ROUNDS]`.

A real store, a real agent that polls every second, and a model server (the real one if it is on PATH, else
the stand-in) with a scan a second. Each round moves a channel back to the version in the reserve, and again
to the other one. The store is stopped the moment the agent has seen the channel move, and started again for
the next move. Printed: the time from the command's start, and from the agent's seeing it, until AVAILABLE;
and what was fetched, which is nothing.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from beside import Beside, at, export_models
from servesync.demo.seaweed import Seaweed
from servesync.demo.server import ModelServer


def prepare(bench: Beside) -> ModelServer:
    """Write the settings of both; return the server, not yet started."""
    folder = bench.folder
    server = ModelServer(folder / "models.config", folder / "server.log")
    (folder / "models.config").write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{folder / "models" / "m"}" '
        'model_platform: "tensorflow" model_version_policy { all {} } } }\n'
    )
    bench.configure(
        {
            "serving": {"models_dir": str(folder / "models"), "rest_url": server.url},
            "models": [{"name": "m", "versions": {"channel": "stable"}}],
        }
    )
    return server


def move(bench: Beside, store: Seaweed, number: str) -> tuple[float, float]:
    """Move the channel; return the seconds from the command's start, and from its being seen."""
    moved, available = len(bench.events("channel_moved")), len(bench.events("version_available"))
    pruned = len(bench.events("version_pruned"))
    begin = time.time()
    bench.call("promote", "m", number, "--channel", "stable")
    bench.until(lambda: len(bench.events("channel_moved")) > moved)
    store.stop()
    bench.until(lambda: len(bench.events("version_available")) > available)
    seen, done = at(bench.events("channel_moved")[-1]), at(bench.events("version_available")[-1])
    bench.until(lambda: len(bench.events("version_pruned")) > pruned)
    store.start_again()
    return done - begin, done - seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, Seaweed(Path(name, "seaweed")) as store:
        bench = Beside(Path(name), store, "rollback")
        server = prepare(bench)
        export_models(bench.folder / "exported")
        for number in ("1", "2"):
            bench.call("publish", f"{name}/exported/{number}", "--model", "m", "--version", number)
        bench.call("promote", "m", "1", "--channel", "stable")
        try:
            with bench.running():
                bench.until(lambda: bench.events("version_installed"))
                server.start()
                bench.until(lambda: bench.events("version_available"))
                bench.call("promote", "m", "2", "--channel", "stable")
                bench.until(lambda: bench.events("version_pruned"))
                fetched = len(bench.events("version_fetched"))
                moves = [move(bench, store, str(1 + turn % 2)) for turn in range(rounds * 2)]
                fetched = len(bench.events("version_fetched")) - fetched
        finally:
            server.kill()
    for what, seconds in zip(
        ("from the command", "from its being seen"), zip(*moves, strict=True), strict=True
    ):
        middle, most = statistics.median(seconds), max(seconds)
        print(f"{what} until AVAILABLE: median {middle:.2f} s, longest {most:.2f} s, of {len(moves)}")
    print(f"versions fetched meanwhile, with the store switched off: {fetched}")


if __name__ == "__main__":
    main()
