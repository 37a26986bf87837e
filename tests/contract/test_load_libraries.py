"""Operations that are not TensorFlow's own: modules bring them, or the refusal names the setting.

And what a process says that dies of one: which signal, doing what, and the line that says why.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from servesync.errors import CheckFailed, Reason, ReleaseRefused, SettingsError
from servesync.settings import LoadLimits
from servesync.verify import Expectations, LoadReport, load_model, require_tensorflow
from servesync.verify.golden import GOLDEN

LONG = os.environ.get("LONG_TESTS") == "1"
ECHO = "operation_module"
COMPUTING = "import tensorflow as tf\nONE = tf.constant(1.0) + 0.0\n"
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
verify: {load: {libraries: [%s]}}
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


def said_by(command: list[str], model: Path, modules: Mapping[str, str], folder: Path, *places: Path) -> str:
    """Return what a command says of a packed model where these modules lie and are in the settings.

    ECHO and what else lies in `places` is there, too.
    """
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    libraries = [*modules, *([ECHO] if SUPPORT in places else [])]
    (folder / "servesync.yaml").write_text(SETTINGS % ", ".join(libraries))
    archive = folder / "m.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(model, "1")
    settings = ["--level", "load", "-c", str(folder / "servesync.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "servesync", command[0], str(archive), *command[1:], *settings],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [folder, *places]))},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_unknown_operation_names_itself_and_the_setting(echo_model: Path) -> None:
    """The server may know what Python's TensorFlow does not."""
    with pytest.raises(ReleaseRefused) as caught:
        load(echo_model)

    assert caught.value.reason is Reason.LOAD_OPERATION_UNKNOWN
    assert caught.value.facts["operation"] == "ServesyncEcho"
    assert "does not know the operation ServesyncEcho" in str(caught.value)
    assert "the server may know it" in str(caught.value)
    assert "in verify.load.libraries, or set verify.level: checksum" in str(caught.value)


def test_a_crash_says_what_it_did_and_why(
    echo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed check in C++: the check, and nothing of the stack below it.

    The first request is answered as it should be, by the operation of a module that comes after one which
    computes while it is imported: TensorFlow's threads are numbered before, since nobody can after that.
    """
    (tmp_path / "computing_library.py").write_text(COMPUTING)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ReleaseRefused) as caught:
        load(asked(echo_model, tmp_path, [1.0], [-2.0]), "computing_library", ECHO)

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
        ("import os; os.abort()", "killed by SIGABRT (it aborted itself); it printed nothing"),
        ("raise ImportError('caf\\udce9.so')", r"ImportError: caf\\udce9.so"),
        ("import os; os._exit(0)", "no answer that can be understood; it printed nothing"),
        (THREADS, "it reached verify.load.threads (200)"),
    ],
    ids=["error", "crash", "a name that is no text", "end", "limit"],
)
@pytest.mark.usefixtures("standin_tensorflow")
def test_a_module_that_cannot_be_imported_refuses_nothing(
    code: str, expected: str, echo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is this machine's trouble, and the message names the module; those before it are not blamed."""
    (tmp_path / "good_library.py").touch()
    (tmp_path / "broken_library.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(CheckFailed) as caught:
        load(echo_model, "good_library", "broken_library", threads=200)

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE
    assert f"verify.load.libraries: broken_library cannot be imported beside TensorFlow: {expected};" in str(
        caught.value
    )
    assert "the version is not to blame" in str(caught.value)


def test_a_module_that_is_not_installed_is_named_at_once() -> None:
    """As soon as it is in the settings, before a version comes."""
    with pytest.raises(
        SettingsError, match=r"verify\.load\.libraries: not installed: no_such_module"
    ) as caught:
        require_tensorflow(["json.decoder", "no_such_module.operations"])

    assert caught.value.reason is Reason.LOAD_UNAVAILABLE


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="starts TensorFlow once more; make faults runs it")
def test_a_module_of_the_settings_brings_its_operation(echo_model: Path, tmp_path: Path) -> None:
    """The version loads and answers, beside a module that computes while it is imported."""
    model = asked(echo_model, tmp_path, [1.0], [2.5, -3.0])

    said = said_by(["verify"], model, {"computing_library": COMPUTING}, tmp_path, SUPPORT)

    assert "golden requests answered as expected: 2" in said


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["verify"], "golden requests answered as expected: 0"),
        (["manifest", "--model", "m", "--version", "1"], '"saved_model.pb"'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_command_that_proves_imports_the_modules(
    command: list[str], expected: str, echo_model: Path, standin_tensorflow: Path, tmp_path: Path
) -> None:
    """Also where a version is proven on another machine than the agent's."""
    model = Path(shutil.copytree(echo_model, tmp_path / "acting"))
    (model / "act.py").write_text("import sys\nassert 'good_library' in sys.modules\n")

    said = said_by(command, model, {"good_library": ""}, tmp_path, standin_tensorflow)

    assert expected in said
