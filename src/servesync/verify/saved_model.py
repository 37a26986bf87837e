"""What a `saved_model.pb` says: its tags, its signatures, and whether it needs variables.

Field numbers: tensorflow/core/protobuf/saved_model.proto, meta_graph.proto, saver.proto and
core/framework/{graph,function,node_def}.proto. Constants and attributes are skipped, not copied.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.verify.wire import Malformed, fields

IN_MEMORY_BYTES: Final = 64 << 20
MAX_BYTES: Final = (1 << 31) - 1
SERVE: Final = frozenset({"serve"})
VARIABLE_OPS: Final = frozenset({b"VarHandleOp", b"VariableV2", b"Variable", b"AutoReloadVariable"})


@dataclass(frozen=True, slots=True)
class Graph:
    """One meta graph of a SavedModel."""

    tags: frozenset[str]
    tensorflow_version: str
    signatures: tuple[str, ...]
    restores: bool
    """It has a saver: the server restores variables before it serves."""
    has_variables: bool
    assets: tuple[str, ...]


@contextmanager
def opened(path: Path) -> Iterator[memoryview]:
    """Lend the bytes of a file: in memory if it is of ordinary size, else mapped.

    Raises:
        Malformed: it is empty, or larger than a message can be.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise Malformed(f"{size} bytes")
    if size <= IN_MEMORY_BYTES:
        yield memoryview(path.read_bytes())
        return
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(mapped)
    try:
        yield view
    finally:
        view.release()
        with suppress(BufferError):  # the frames of an error hold pieces: it is unmapped when they go
            mapped.close()


def read_graphs(data: memoryview) -> list[Graph]:
    """Return the meta graphs of a serialized SavedModel.

    Raises:
        Malformed: the bytes are no SavedModel.
    """
    return [_graph(field.message()) for field in fields(data) if field.number == 2]  # noqa: PLR2004


def _graph(data: memoryview) -> Graph:
    tags: list[str] = []
    version = ""
    signatures: list[str] = []
    assets: list[str] = []
    restores = has_variables = False
    for field in fields(data):
        match field.number:
            case 1:
                more, version = _info(field.message())
                tags += more
            case 2:
                has_variables = has_variables or _has_variables(field.message())
            case 3:
                restores = any(item.number == 3 and item.data for item in fields(field.message()))  # noqa: PLR2004
            case 5:
                signatures += [item.text() for item in fields(field.message()) if item.number == 1]
            case 6:
                assets += [item.text() for item in fields(field.message()) if item.number == 2]  # noqa: PLR2004
            case _:
                pass
    return Graph(frozenset(tags), version, tuple(sorted(signatures)), restores, has_variables, tuple(assets))


def _info(data: memoryview) -> tuple[list[str], str]:
    tags = []
    version = ""
    for field in fields(data):
        if field.number == 4:  # noqa: PLR2004
            tags.append(field.text())
        elif field.number == 5:  # noqa: PLR2004
            version = field.text()
    return tags, version


def _has_variables(graph_def: memoryview) -> bool:
    """Whether any node of the graph or of its function library makes a variable; reads all of it."""
    found = False
    for field in fields(graph_def):
        if field.number == 1:
            found |= _is_variable(field.message())
        elif field.number == 2:  # noqa: PLR2004 (the function library)
            for function in fields(field.message()):
                if function.number == 1:
                    nodes = [item for item in fields(function.message()) if item.number == 3]  # noqa: PLR2004
                    found |= any([_is_variable(node.message()) for node in nodes])  # noqa: C419 (read all)
    return found


def _is_variable(node: memoryview) -> bool:
    operation = b""
    for field in fields(node):
        if field.number == 2:  # noqa: PLR2004
            operation = bytes(field.message()[:64])
    return operation in VARIABLE_OPS
