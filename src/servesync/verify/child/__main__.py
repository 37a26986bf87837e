"""What the trial process does, in its order: confine itself, import TensorFlow and libraries, load, ask, end.

It announces each step before it begins, so that the parent knows in which step it died.

Arguments: the descriptor to read the task from, the one to write the answer to, the parent's process id.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final, TypeAlias

from servesync.verify import compare
from servesync.verify.child import confine

MESSAGE_CHARACTERS: Final = 2000
MAX_DIFFERENCES: Final = 20
MODEL: Final = "servesync.verify.child.model"

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Sends one line to the parent."""


def main() -> None:
    """Carry out one task and end at once, without what TensorFlow does at exit."""
    task_fd, answer_fd, parent = map(int, sys.argv[1:])
    confine.die_with(parent)
    with open(task_fd, encoding="utf-8") as file:  # noqa: PTH123 (a descriptor)
        task = json.load(file)
    confine.limit(task["limits"])
    network = "isolated" if confine.isolate_network(parent) else "not isolated"
    tell = partial(_tell, answer_fd)
    model, failure = _imported(task["limits"]["libraries"], tell)
    if model is None:
        tell(failure)
    else:
        tell({"tensorflow": model.VERSION, "network": network})
        tell(_tried(model, task, tell) | _used())
    os._exit(0)


def _imported(libraries: Sequence[str], tell: Tell) -> tuple[ModuleType | None, dict[str, Any]]:
    """Import TensorFlow and the libraries; return the module that uses it, or the answer with the error."""
    library = ""
    try:
        model = importlib.import_module(MODEL)
        for library in libraries:
            tell({"doing": "import", "library": library})
            importlib.import_module(library)
    except BaseException as error:  # noqa: BLE001 (a broken installation can raise anything, also SystemExit)
        outcome = "no_library" if library else "no_tensorflow"
        return None, _failure(outcome, error) | {"library": library}
    return model, {}


def _tried(model: ModuleType, task: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Load the model and run the requests; return the answer."""
    started = time.monotonic()
    tell({"doing": "load"})
    try:
        loaded = model.load(task["root"])
        signatures = model.signatures(loaded)
    except Exception as error:  # noqa: BLE001 (a SavedModel is a program: it can raise anything)
        return _failure("load_failed", error) | {"memory": model.is_out_of_memory(error)}
    seconds = time.monotonic() - started
    differences: list[dict[str, Any]] = []
    for number, request in enumerate(task["requests"], 1):
        tell({"doing": "request", "request": number})
        try:
            differences += _asked(model, loaded.signatures[request["signature"]], number, request)
        except Exception as error:  # noqa: BLE001 (ditto)
            failure = _failure("request_failed", error)
            return failure | {"memory": model.is_out_of_memory(error), "request": number}
    return {
        "outcome": "loaded",
        "signatures": signatures,
        "differences": differences[:MAX_DIFFERENCES],
        "load_seconds": seconds,
    }


def _asked(model: ModuleType, function: Any, number: int, request: Mapping[str, Any]) -> list[dict[str, Any]]:  # noqa: ANN401
    """Run one golden request; return one difference for each output that is wrong."""
    outputs = model.run(function, request["inputs"])
    differences = []
    for name, value in sorted(request["outputs"].items()):
        expected = compare.decoded(value, text=function.structured_outputs[name].dtype.name == "string")
        tolerances = request["absolute_tolerance"], request["relative_tolerance"]
        found = compare.worst(outputs[name], expected, *tolerances)
        if found is not None:
            differences.append(found | {"request": number, "output": name})
    return differences


def _failure(outcome: str, error: BaseException) -> dict[str, Any]:
    """Return the answer for an error; names of files in its text may not be UTF-8, and are escaped."""
    text = f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
    shown = text.encode(errors="backslashreplace").decode()[:MESSAGE_CHARACTERS]
    return {"outcome": outcome, "message": shown}


def _used() -> dict[str, Any]:
    """Return the CPU time and the memory that this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_memory_bytes": used.ru_maxrss * 1024}


def _tell(answer_fd: int, value: Mapping[str, Any]) -> None:
    data = memoryview(json.dumps(value, allow_nan=False).encode() + b"\n")
    while data:
        data = data[os.write(answer_fd, data) :]


if __name__ == "__main__":
    main()
