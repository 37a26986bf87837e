"""Versions are loaded on trial by real TensorFlow, and whatever that process meets ends in one reason."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import forked
from fixtures_models import KINDS
from servesync.errors import CheckFailed, Reason, ReleaseRefused, SettingsError, Stopped
from servesync.runtime.verify_command import verify_command
from servesync.settings import GIB, MIB, LoadLimits, Signature, TensorSpec
from servesync.verify import Expectations, LoadReport, load_model, read_signatures
from servesync.verify.golden import GOLDEN

LONG = os.environ.get("LONG_TESTS") == "1"
ANYTHING = Expectations()
LONG_ONLY = pytest.mark.skipif(not LONG, reason="starts TensorFlow once more; make faults runs it")
FOR_EVER = "threading.Event().wait()"


def request(signature: str, inputs: dict[str, Any], outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one golden request."""
    return {"signature": signature, "inputs": inputs, "outputs": outputs} | more


def version(real_models: Path, kind: str, folder: Path, *requests: dict[str, Any]) -> Path:
    """Return a copy of a model that carries these golden requests."""
    root = Path(shutil.copytree(real_models / kind, folder / kind))
    if requests:
        (root / GOLDEN).parent.mkdir()
        (root / GOLDEN).write_text(json.dumps({"schema": "servesync.golden/1", "requests": requests}))
    return root


def children() -> list[psutil.Process]:
    """Return the processes that this one has started, living and dead; not those of the tests."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if child.name() != "weed" and child.pid not in forked.forkers]


def refused(root: Path, limits: LoadLimits | None = None, **more: Any) -> ReleaseRefused:
    """Return the refusal that a version meets; nothing may be left of its process."""
    before = children()
    with pytest.raises(ReleaseRefused) as caught:
        load_model(root, ANYTHING, limits or LoadLimits(), **more)
    assert children() == before
    return caught.value


def waiting(pipe: Path) -> dict[str, Any]:
    """Return a request that waits, without using the processor, until somebody reads from a new pipe."""
    os.mkfifo(pipe)
    return request("write", {"path": str(pipe)}, {"y": str(pipe)})


def acting(real_models: Path, folder: Path, act: str) -> Path:
    """Return a version that does this when the stand-in for TensorFlow loads it."""
    root = version(real_models, "plain_module", folder)
    (root / "act.py").write_text(act)
    return root


ODD_NUMBERS = {
    "inputs": {"x": [0, 2.5, -1, "NaN"], "words": ["yes", {"b64": "/wA="}, "", "\u00e9"]},
    "outputs": {
        "y": ["NaN", "Infinity", "-Infinity", "NaN"],
        "same": ["yes", {"b64": "/wA="}, "", "\u00e9"],
        "sizes": [3, 2, 0, 2],
        "is_long": [False, True, False, False],
    },
}
"""Strings, infinities and NaN: JSON has no form for them, and they can be asked and expected all the same."""


def test_a_good_version_is_loaded_in_a_confined_process(
    real_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers as expected, from where there is no network, no credential and no way to write."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    pipe = tmp_path / "pipe"
    seen: dict[str, str] = {}
    known, reading = children(), list[int]()

    def look() -> None:
        for child in children():
            if child not in known and not reading and _is_running_a_model(child):
                place = Path("/proc", str(child.pid))
                seen["network"] = str((place / "ns/net").readlink())
                seen.update({name: (place / name).read_text() for name in ("limits", "status", "environ")})
                seen["cwd"] = str((place / "cwd").readlink())
                reading.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    asked = [
        request("multiply", {"x": [[1.0, 2.0], [0.0, -3.0]]}, {"y": [[2.0, -2.0], [0.0, 3.0]]}),
        request("divide", **ODD_NUMBERS),
        waiting(pipe),
    ]
    root = version(real_models, "on_request", tmp_path, *asked)
    report = load_model(root, ANYTHING, LoadLimits(cpu_seconds=500), check=look)
    os.close(reading[0])

    assert report.signatures == read_signatures(root)
    assert report.golden_requests == 3
    assert (report.network == "isolated") == (seen["network"] != str(Path("/proc/self/ns/net").readlink()))
    assert [name for name in ("AWS_", "secret") if name in seen["environ"]] == []
    assert "NoNewPrivs:\t1" in seen["status"]
    assert seen["cwd"] == "/"
    rows = {row[:25].strip(): row[25:].split()[0] for row in seen["limits"].splitlines()[1:]}
    assert rows["Max cpu time"] == "500"
    assert rows["Max file size"] == "0"
    assert rows["Max address space"] == str(64 * GIB)
    assert 0 < report.load_seconds < report.seconds
    assert report.peak_memory_bytes > 100 * MIB
    assert children() == []


def _is_running_a_model(child: psutil.Process) -> bool:
    """Whether its thread pools are there: TensorFlow makes them when it loads the first model."""
    try:
        return bool(child.num_threads() > 2)
    except psutil.Error:
        return False


def test_every_wrong_answer_is_named(real_models: Path, tmp_path: Path) -> None:
    """Request, output, place, both values, how far off, how far it may be."""
    inputs = {"x": [1.0, -1.0], "words": ["a", "b"]}
    wrong = [
        request("divide", inputs, {"y": ["NaN", "-Infinity"], "same": ["a", "c"], "sizes": [1, 4]}),
        request("divide", inputs, {"y": [5.0, "Infinity"], "is_long": [False, True]}),
        request("divide", inputs, {"same": ["a"]}),
    ]
    error = refused(version(real_models, "on_request", tmp_path, *wrong))

    assert error.reason is Reason.GOLDEN_DIFFERS
    assert "request 1, output same[1] is b'b', not b'c'" in str(error)
    assert "request 1, output sizes[1] is 1, not 4, off by 3 (allowed: 0)" in str(error)
    assert "request 1, output y[0] is inf, not nan" in str(error)
    assert error.facts["outputs"] == 6


@pytest.mark.usefixtures("standin_tensorflow")
def test_what_cannot_be_loaded_is_refused(real_models: Path, tmp_path: Path) -> None:
    """The words of the error are in the message."""
    error = refused(acting(real_models, tmp_path, "raise ValueError('a variable is cut')"))

    assert error.reason is Reason.LOAD_FAILED
    assert "TensorFlow cannot load the version: ValueError: a variable is cut;" in str(error)


@pytest.mark.slow
@LONG_ONLY
def test_what_tensorflow_cannot_load_is_refused(real_models: Path, tmp_path: Path) -> None:
    """Here variables that were cut short; TensorFlow's own words are in the message."""
    root = version(real_models, "plain_module", tmp_path)
    shard = root / "variables/variables.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:100])
    error = refused(root)

    assert error.reason is Reason.LOAD_FAILED
    assert "TensorFlow cannot load the version" in str(error)


def test_a_model_that_fails_on_a_request_is_refused(real_models: Path, tmp_path: Path) -> None:
    """The number of the request is named, and what the model said."""
    requests = [request("fail", {"words": words}, {"y": words}) for words in ("good", "bad")]
    error = refused(version(real_models, "on_request", tmp_path, *requests))

    assert error.reason is Reason.GOLDEN_FAILED
    assert "golden request 2" in str(error)
    assert "assertion failed" in str(error)


@pytest.mark.usefixtures("standin_tensorflow")
def test_a_crash_is_named_by_its_signal(real_models: Path, tmp_path: Path) -> None:
    """A version that brings the process down refuses itself; the agent lives on."""
    error = refused(acting(real_models, tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))

    assert error.reason is Reason.LOAD_CRASHED
    assert "TensorFlow died while it loaded the version: killed by SIGSEGV (invalid memory" in str(error)


@pytest.mark.parametrize(
    ("limits", "act"),
    [
        ({"memory_bytes": 400 * MIB}, f"kept = b'x' * (500 << 20); {FOR_EVER}"),
        ({"wall_seconds": 10.0}, FOR_EVER),
        (
            {"threads": 20},
            f"for _ in range(30): threading.Thread(target=threading.Event().wait).start()\n{FOR_EVER}",
        ),
    ],
    ids=["memory_bytes", "wall_seconds", "threads"],
)
@pytest.mark.usefixtures("standin_tensorflow")
def test_each_limit_that_is_watched_is_named(
    limits: dict[str, Any], act: str, real_models: Path, tmp_path: Path
) -> None:
    """The message names the setting to raise."""
    error = refused(acting(real_models, tmp_path, f"import threading\n{act}"), LoadLimits(**limits))

    assert error.reason is Reason.LOAD_LIMIT
    assert f"verify.load.{next(iter(limits))} (" in str(error)


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"address_space_bytes": 4 * GIB}, request("grow", {"size": 10_000_000_000}, {"y": 0})),
        pytest.param(
            {"memory_bytes": 1500 * MIB}, request("grow", {"size": 300_000_000}, {"y": 0}), marks=LONG_ONLY
        ),
        pytest.param({"wall_seconds": 20.0}, request("spin", {"times": 1 << 60}, {"y": 0}), marks=LONG_ONLY),
        pytest.param({"cpu_seconds": 20}, request("spin", {"times": 1 << 60}, {"y": 0}), marks=LONG_ONLY),
    ],
    ids=lambda value: next(iter(value)),
)
def test_each_limit_is_named(
    limits: dict[str, Any], asked: dict[str, Any], real_models: Path, tmp_path: Path
) -> None:
    """Also with TensorFlow itself, and at a request."""
    error = refused(version(real_models, "on_request", tmp_path, asked), LoadLimits(**limits))

    assert error.reason is Reason.LOAD_LIMIT
    assert f"verify.load.{next(iter(limits))} (" in str(error)
    assert "golden request 1" in str(error) or "wall_seconds" in limits  # a busy machine takes it for loading


@pytest.mark.usefixtures("standin_tensorflow")
def test_out_of_time_on_a_busy_machine_is_no_refusal_yet(real_models: Path, tmp_path: Path) -> None:
    """The first tries pass as trouble of this machine; who is not patient gets the refusal."""
    tree = acting(real_models, tmp_path, f"import threading; {FOR_EVER}")

    with pytest.raises(CheckFailed, match=r"tried again") as caught:
        load_model(tree, ANYTHING, LoadLimits(wall_seconds=10.0), patient=True)
    assert caught.value.reason is Reason.LOAD_LIMIT


def test_a_limit_reached_before_the_version_is_touched_does_not_refuse_it(real_models: Path) -> None:
    """TensorFlow itself needs more than this; the version is tried again once the limit is raised."""
    with pytest.raises(CheckFailed, match=r"verify\.load\.memory_bytes") as caught:
        load_model(real_models / "plain_module", ANYTHING, LoadLimits(memory_bytes=64 * MIB))

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE
    assert children() == []


def test_a_stopping_agent_takes_the_process_along(real_models: Path) -> None:
    """What `check` raises comes through, and the process is gone by then."""

    def stop() -> None:
        raise Stopped

    descriptors = psutil.Process().num_fds()
    with pytest.raises(Stopped):
        load_model(real_models / "plain_module", ANYTHING, LoadLimits(), check=stop)

    assert children() == []
    assert psutil.Process().num_fds() == descriptors


@pytest.mark.parametrize("least_bytes", [0, 100 * MIB], ids=["at_its_start", "under_way"])
def test_a_killed_agent_takes_the_process_along(least_bytes: int, real_models: Path, tmp_path: Path) -> None:
    """The kernel, or a look at the parent, ends it; also if the agent died before it could ask for that."""
    root = version(real_models, "on_request", tmp_path, waiting(tmp_path / "pipe"))
    code = """
        import sys
        from pathlib import Path
        from servesync.settings import LoadLimits
        from servesync.verify import Expectations, load_model
        load_model(Path(sys.argv[1]), Expectations(), LoadLimits())
    """
    agent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(root)])
    found: list[psutil.Process] = []
    while agent.poll() is None and not found:
        found = [child for child in psutil.Process(agent.pid).children() if _memory(child) >= least_bytes]
        time.sleep(0.01)
    agent.kill()
    agent.wait()

    assert len(found) == 1
    assert psutil.wait_procs(found, timeout=60)[1] == []


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return -1


def test_signatures_are_compared_before_anything_is_loaded(real_models: Path) -> None:
    """A version that clients cannot use costs no start of TensorFlow."""
    served = {"serving_default": Signature(inputs={}, outputs={"z": TensorSpec(dtype="float32")})}

    with pytest.raises(ReleaseRefused, match="output 'z' is missing") as caught:
        load_model(real_models / "plain_module", Expectations(same_as_served=served), LoadLimits())

    assert caught.value.reason is Reason.SIGNATURE_DIFFERS


def test_without_tensorflow_the_advice_is_to_install_it(
    real_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no fault of the release."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    with pytest.raises(SettingsError, match=r"install servesync\[tensorflow\]") as caught:
        load_model(real_models / "plain_module", ANYTHING, LoadLimits())

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="one start of TensorFlow for each kind; make faults runs it")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads(kind: str, real_models: Path) -> None:
    """And TensorFlow lists the signatures that were read from the file without it."""
    report: LoadReport = load_model(real_models / kind, ANYTHING, LoadLimits())

    assert report.signatures == read_signatures(real_models / kind)


@pytest.mark.parametrize(
    "kind",
    [
        "local_variable",
        *(
            pytest.param(kind, marks=pytest.mark.skipif(not LONG, reason="make faults runs it"))
            for kind in ("main_op", "uncollected", "unread", "metric", "scratch", "initialized_in_function")
        ),
    ],
)
def test_a_graph_that_restores_nothing_answers(kind: str, tf1_models: Path, tmp_path: Path) -> None:
    """Its variables are set by its init op, or by the request, here as on the server."""
    root = version(tf1_models, kind, tmp_path, request("serving_default", {"x": [1, 2]}, {"y": [3, 6]}))

    assert load_model(root, ANYTHING, LoadLimits()).golden_requests == 1


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="make faults runs it")
def test_a_model_cannot_write(real_models: Path, tmp_path: Path) -> None:
    """Not a byte; `servesync verify` says so."""
    target = str(tmp_path / "written")
    root = version(real_models, "on_request", tmp_path, request("write", {"path": target}, {"y": target}))

    with pytest.raises(ReleaseRefused) as caught:
        verify_command(root, "load")

    assert caught.value.reason is Reason.GOLDEN_FAILED
    assert not Path(target).exists() or Path(target).stat().st_size == 0
