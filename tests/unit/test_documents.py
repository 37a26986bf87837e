"""The documents for people: every link leads somewhere, and every command exists with its options."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer

from servesync.cli import app
from settings_texts import ROOT, documents, fenced

COMMANDS = getattr(typer.main.get_command(app), "commands")  # noqa: B009 (Typer's type does not name it)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as its readers' sites make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, anchor = 0, base
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def links(path: Path) -> list[str]:
    """Return where a document leads within the project."""
    text = re.sub(r"`[^`]*`", "", prose(path))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("path", documents(), ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    """Files and folders are there, and so are the headings."""
    lost = []
    for link in links(path):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if (
            not target.exists()
            or not target.is_relative_to(ROOT)
            or (anchor and anchor not in anchors(target))
        ):
            lost.append(link)
    assert lost == []


def commands(path: Path) -> list[str]:
    """Return each servesync command that a document shows, in a block or in a line."""
    found = []
    for block in fenced(path.read_text(), "console"):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line.removeprefix("$ ") for line in lines if re.match(r"\$ (\S+/)?servesync ", line)]
    found += re.findall(r"`(servesync [a-z][^`]*)`", prose(path))
    return [re.sub(r"^\S*/", "", line) for line in found]


SHOWN = [(path, command) for path in documents() for command in commands(path)]


@pytest.mark.parametrize(
    ("path", "line"), SHOWN, ids=lambda item: named(item) if isinstance(item, Path) else item
)
def test_commands_exist(path: Path, line: str) -> None:
    """The command has the options that are shown, and they take what is given."""
    bare = re.sub(r"[\[\]]|\s*\|.*|\s#.*", "", line)  # [--optional], a pipe, a remark
    _, name, *arguments = shlex.split(bare)
    assert name in COMMANDS, f"{named(path)}: {line}"

    if not arguments:  # only its name is meant
        return
    command = COMMANDS[name]
    while arguments and hasattr(command, "commands"):  # a group of commands
        name = arguments.pop(0)
        assert name in command.commands, f"{named(path)}: {line}"
        command = command.commands[name]
    context = command.make_context(name, [], resilient_parsing=True)
    context.resilient_parsing = False  # it was only to make one without arguments
    try:
        command.make_parser(context).parse_args(args=arguments)
    except Exception as error:  # noqa: BLE001 (which module it is from depends on Typer's version)
        pytest.fail(f"{named(path)}: {line}: {error}")


def test_documents_are_found() -> None:
    """The tests above would be content with nothing."""
    assert ROOT / "README.md" in documents()
    assert len(SHOWN) > 10
    assert anchors(ROOT / "docs/reasons.md") >= {"store_denied", "disk"}


def test_every_document_is_reached_from_the_readme() -> None:
    """A page that no link leads to is read by nobody."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        if path.is_dir():
            waiting += path.glob("*.md")
        elif path.suffix == ".md":
            targets = [(path.parent / link.partition("#")[0]).resolve() for link in links(path)]
            waiting += [target for target in targets if target.is_relative_to(ROOT)]
    assert [named(path) for path in documents() if path not in reached] == []


def test_tests_that_documents_name_exist() -> None:
    """What shows a promise must be there."""
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named_ones = {name for path in documents() for name in re.findall(r"`(test_\w+)`", path.read_text())}
    assert len(named_ones) > 10
    assert named_ones - there == set()
