"""Operations that are not TensorFlow's own: modules bring them, or the refusal names the setting.

And what a process says that dies of one: which signal, doing what, and the line that says why.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from servesync.errors import CheckFailed, Reason, ReleaseRefused, SettingsError
from servesync.settings import LoadLimits
from servesync.verify import Expectations, LoadReport, load_model, require_tensorflow
from servesync.verify.golden import GOLDEN

ECHO = "operation_module"
SUPPORT = Path(__file__).parents[1] / "support"
THREADS = """
import threading
for _ in range(300):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
threading.Event().wait()
"""
SETTINGS = """
store: {url: s3://acme/prod}
serving: {models_dir: /models}
models: [{name: m}]
verify: {load: {libraries: [operation_module]}}
"""


def load(root: Path, *libraries: str, threads: int = 2048) -> LoadReport:
    """Load a version on trial."""
    return load_model(root, Expectations(), LoadLimits(libraries=list(libraries), threads=threads))


def asked(model: Path, folder: Path, *requests: list[float]) -> Path:
    """Return a copy of the model that carries these golden requests."""
    root = Path(shutil.copytree(model, folder / "asked"))
    (root / GOLDEN).parent.mkdir()
    golden = [{"inputs": {"x": values}, "outputs": {"y": values}} for values in requests]
    (root / GOLDEN).write_text(json.dumps({"schema": "servesync.golden/1", "requests": golden}))
    return root


def test_an_unknown_operation_names_itself_and_the_setting(echo_model: Path) -> None:
    """The server may know what Python's TensorFlow does not."""
    with pytest.raises(ReleaseRefused) as caught:
        load(echo_model)

    assert caught.value.reason is Reason.LOAD_OPERATION_UNKNOWN
    assert caught.value.facts["operation"] == "ServesyncEcho"
    assert "does not know the operation ServesyncEcho" in str(caught.value)
    assert "the server may know it" in str(caught.value)
    assert "in verify.load.libraries, or set verify.level: checksum" in str(caught.value)


def test_a_crash_says_what_it_did_and_why(echo_model: Path, tmp_path: Path) -> None:
    """A failed check in C++: the check, and nothing of the stack below it."""
    with pytest.raises(ReleaseRefused) as caught:
        load(asked(echo_model, tmp_path, [1.0], [-2.0]), ECHO)

    said = str(caught.value)
    assert caught.value.reason is Reason.LOAD_CRASHED
    assert "TensorFlow died while it ran golden request 2: killed by SIGABRT" in said
    assert "it printed: kernels.cc:" in said
    assert "Check failed: i < cc_ctx->num_outputs() (99 vs. 1);" in said
    assert "0x" not in said
    assert caught.value.facts["request"] == 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import nothing_such", "ModuleNotFoundError: No module named 'nothing_such'"),
        ("import os; os.abort()", "killed by SIGABRT (it gave up by itself); it printed nothing"),
        ("raise ImportError('caf\\udce9.so')", r"ImportError: caf\\udce9.so"),
        ("import os; os._exit(0)", "no answer that can be understood; it printed nothing"),
        (THREADS, "it reached verify.load.threads (200)"),
    ],
    ids=["error", "crash", "a name that is no text", "end", "limit"],
)
def test_a_module_that_cannot_be_imported_refuses_nothing(
    code: str, expected: str, echo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is this machine's trouble, and the message names the module; those before it are not blamed."""
    (tmp_path / "broken_library.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(CheckFailed) as caught:
        load(echo_model, ECHO, "broken_library", threads=200)

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE
    assert f"verify.load.libraries: broken_library cannot be imported beside TensorFlow: {expected};" in str(
        caught.value
    )
    assert "the version is not to blame" in str(caught.value)


def test_a_module_may_compute_while_it_is_imported(
    echo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's threads are numbered before, since that cannot be changed after the first operation."""
    (tmp_path / "computing_library.py").write_text("import tensorflow as tf\nONE = tf.constant(1.0) + 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert load(echo_model, "computing_library", ECHO).tensorflow_version


def test_a_module_that_is_not_installed_is_named_at_once() -> None:
    """As soon as it is in the settings, before a version comes."""
    with pytest.raises(
        SettingsError, match=r"verify\.load\.libraries: not installed: no_such_module"
    ) as caught:
        require_tensorflow(["json.decoder", "no_such_module.operations"])

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE


@pytest.mark.parametrize(
    ("command", "more", "expected"),
    [
        ("verify", [], "golden requests answered as expected: 2"),
        ("manifest", ["--model", "m", "--version", "1"], '"saved_model.pb"'),
    ],
    ids=["verify", "manifest"],
)
def test_a_module_of_the_settings_brings_its_operation(
    command: str, more: list[str], expected: str, echo_model: Path, tmp_path: Path
) -> None:
    """The version loads and answers, also where it is proven on another machine than the agent's."""
    (tmp_path / "servesync.yaml").write_text(SETTINGS)
    archive = tmp_path / "m.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(asked(echo_model, tmp_path, [1.0], [2.5, -3.0]), "1")
    options = ["--level", "load", "-c", str(tmp_path / "servesync.yaml"), *more]
    done = subprocess.run(
        [sys.executable, "-m", "servesync", command, str(archive), *options],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
