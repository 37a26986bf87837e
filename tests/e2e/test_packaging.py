"""What a user installs: the wheel and the source archive are whole, and work in an environment of their own.

The short form lends an empty environment the dependencies that the wheel declares, and no others, from this
one. LONG_TESTS=1 installs them anew, by the pins of constraints.txt.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import servesync
from docker_context import copied
from servesync.settings_schema import example

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("LONG_TESTS") == "1"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the source tree, and without what leads Python there."""
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd="/", env=clean | (env or {})
    )


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built by the declared backend without a network."""
    for module in ("hatchling", "hatch_fancy_pypi_readme"):
        if find_spec(module) is None:
            pytest.skip(f"no {module} here (pip install {module})")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (found,) = dist.glob("*.whl")
    return found


def told_by(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(packed.read(name))


def names_in(wheel: Path) -> set[str]:
    """Return the names of all files in a wheel."""
    return set(contents(wheel))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return every file in a wheel."""
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


# -- contents ----------------------------------------------------------------------------------------------


def test_the_wheel_is_whole(wheel: Path) -> None:
    """Every module, the mark that it is typed, the example, the licence; nothing else."""
    sources = {
        str(path.relative_to(ROOT / "src"))
        for kind in ("*.py", "*.html")
        for path in (ROOT / "src").rglob(kind)
    }
    names = names_in(wheel)
    packed = {name for name in names if name.startswith("servesync/")}

    assert packed == sources | {"servesync/py.typed", "servesync/config.example.yaml"}
    assert {name.partition("/")[0] for name in names - packed} == {
        f"servesync-{servesync.__version__}.dist-info"
    }
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    with zipfile.ZipFile(wheel) as file:
        assert file.read("servesync/config.example.yaml").decode() == example()


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    """The version has one source, and the README is the description."""
    told = told_by(wheel)

    assert told["Version"] == servesync.__version__
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert set(told.get_all("Provides-Extra", [])) >= {"tensorflow", "demo"}
    assert "# servesync" in str(told.get_payload())


def test_the_source_archive_is_enough(dist: Path, tmp_path: Path) -> None:
    """It holds what `make test` needs, and the wheel made of it is the same."""
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
        packed.extractall(tmp_path, filter="data")
    done = run(*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path / "again", archive)

    needed = {"Makefile", "constraints.txt", ".ci/setup", "config.example.yaml", "docs/settings.md"}
    assert needed | {"tests/conftest.py", "LICENSE", "CHANGELOG.md", "src/servesync/py.typed"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".git/", ".venv"))]
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").glob("*.whl")
    (first,) = dist.glob("*.whl")
    assert contents(again) == contents(first)
    ours = {str(path.relative_to(ROOT)) for name in FOLDERS for path in files_below(ROOT / name)}
    assert ours - names == set()
    assert len(ours) > 200


FOLDERS = ("src", "tests", "bench", "docs", "deploy", "examples", ".ci")


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder that are not made by running something."""
    left_out = {"__pycache__", "results"}
    return [path for path in folder.rglob("*") if path.is_file() and not left_out & set(path.parts)]


def test_the_images_have_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """The build context and what the Dockerfile copies of it are enough to make it."""
    place = copied("build", tmp_path)
    done = run(*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path / "wheels", place)

    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "wheels").glob("*.whl")
    assert contents(made) == contents(wheel)
    assert contents(made)["servesync/config.example.yaml"].decode() == example()


def test_the_links_of_the_description_work(wheel: Path, dist: Path) -> None:
    """The package's page has no other files beside it: what the README links to is named as a path."""
    markdown = pytest.importorskip("markdown_it", reason="no markdown-it-py here")
    told = told_by(wheel)
    text = str(told.get_payload())
    tokens = [inner for token in markdown.MarkdownIt().parse(text) for inner in token.children or []]
    targets = [str(token.attrGet("href")) for token in tokens if token.type == "link_open"]
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    named = {path.rstrip("/") for path in re.findall(r"`((?:docs|deploy|examples)/[\w./-]*)`", text)}

    assert told["Description-Content-Type"] == "text/markdown"
    assert [target for target in targets if not re.match(r"https?://|#", target)] == []
    assert len(named) > 15
    assert [path for path in named if not any(f"{name}/".startswith(f"{path}/") for name in names)] == []


# -- in an environment of its own --------------------------------------------------------------------------


def lend(needed: list[str], place: Path) -> None:
    """Link the distributions that are needed, with all that they need, from this environment."""
    requirements = pytest.importorskip("packaging.requirements", reason="no packaging here")
    here, seen, waiting = Path(sysconfig.get_path("purelib")), set[str](), list(needed)
    while waiting:
        wanted = requirements.Requirement(waiting.pop())
        extras = wanted.extras or {""}
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if wanted.name.lower() in seen:
            continue
        seen.add(wanted.name.lower())
        found = metadata.distribution(wanted.name)
        waiting += found.requires or []
        for top in {path.parts[0] for path in found.files or [] if path.parts[0] != ".."}:
            if (here / top).exists() and not (place / top).exists():
                (place / top).symlink_to(here / top)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `servesync`, installed from the wheel into an empty environment without extras."""
    venv = tmp_path_factory.mktemp("venv")
    made = run(sys.executable, "-m", "venv", venv, *([] if LONG else ["--without-pip"]))
    assert made.returncode == 0, made.stderr
    python = venv / "bin" / "python"
    if LONG:
        pins = tmp_path_factory.mktemp("pins") / "pins.txt"
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        kept = [line.rstrip(" \\") for line in lines if re.match(r"[A-Za-z0-9]", line)]
        pins.write_text("\n".join(kept) + "\n")
        done = run(python, "-m", "pip", "--quiet", "install", "-c", pins, wheel)
    else:
        (place,) = venv.glob("lib/python*/site-packages")
        lend(told_by(wheel).get_all("Requires-Dist", []), place)
        done = run(*PIP, "--python", python, "install", "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    return venv / "bin" / "servesync"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings that need TensorFlow, and a store that is not there."""
    file = tmp_path / "servesync.yaml"
    file.write_text(
        "store: {url: s3://acme/prod, endpoint_url: 'http://127.0.0.1:9', region: us-east-1}\n"
        f"serving: {{models_dir: {tmp_path / 'models'}, rest_url: null}}\n"
        "models: [{name: m}]\nverify: {level: load}\n"
    )
    return file


KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}


def test_it_is_the_installed_one(installed: Path) -> None:
    """Not this source tree; and without TensorFlow."""
    code = "import importlib.util as u, servesync; print(servesync.__file__, u.find_spec('tensorflow'))"
    done = run(installed.with_name("python"), "-c", code)

    file, tensorflow = done.stdout.split()
    assert Path(file).is_relative_to(installed.parents[1])
    assert tensorflow == "None"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--help"], 0, "doctor"),
        (["--version"], 0, f"servesync {servesync.__version__}"),
        (["doctor", "--help"], 0, "--show-keys"),
        (["schema"], 0, "json-schema.org"),
        (["schema", "--example"], 0, "store:"),
        (["plan", "-c", "/nowhere.yaml"], 2, "settings_invalid"),
        (["plan"], 2, "Missing option"),
    ],
)
def test_commands_that_need_nothing(arguments: list[str], code: int, expected: str, installed: Path) -> None:
    """Help, version, schema, and messages instead of tracebacks."""
    done = run(installed, *arguments, env={"COLUMNS": "200"})

    assert done.returncode == code, done.stderr
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_tensorflow(installed: Path, settings: Path, tmp_path: Path) -> None:
    """The level that needs it is named, by every command that could meet it; the others work."""
    sync = run(installed, "sync", "-c", settings, env=KEYS)
    doctor = run(installed, "doctor", "-c", settings, env=KEYS)
    verify = run(installed, "verify", tmp_path, "--level", "load")
    plan = run(installed, "plan", "-c", settings, env=KEYS)

    assert (sync.returncode, verify.returncode) == (2, 2), sync.stderr + verify.stderr
    for done in (sync, verify):
        assert "verify.level: load needs TensorFlow: install servesync[tensorflow]" in done.stderr
    assert doctor.returncode == 3
    assert "fail  settings.tensorflow" in doctor.stdout
    assert plan.returncode == 1
    assert "store_unreachable" in plan.stdout


def test_it_is_typed_for_others(installed: Path, tmp_path: Path) -> None:
    """A type checker believes the installed package."""
    if find_spec("mypy") is None:
        pytest.skip("no mypy here (pip install mypy)")
    user = tmp_path / "user.py"
    user.write_text("import servesync\nreveal_type(servesync.__version__)\nservesync.publish(1)\n")
    mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache"]
    done = run(*mypy, "--follow-imports=silent", f"--python-executable={installed.with_name('python')}", user)

    assert 'Revealed type is "str"' in done.stdout.replace("builtins.", ""), done.stdout + done.stderr
    assert "Missing named argument" in done.stdout


def test_completion(installed: Path) -> None:
    """The script for a shell is printed, and the shell then gets the commands and options."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    shown = run("bash", "-c", f"{installed} --show-completion; true")
    words = {"_SERVESYNC_COMPLETE": "complete_bash", "COMP_WORDS": "servesync d", "COMP_CWORD": "1"}
    commands = run(installed, env=words)
    options = run(installed, env=words | {"COMP_WORDS": "servesync doctor --s", "COMP_CWORD": "2"})

    assert "_SERVESYNC_COMPLETE=complete_bash" in shown.stdout
    assert set(commands.stdout.split()) == {"demo", "doctor", "drain"}
    assert options.stdout.split() == ["--show-keys"]
