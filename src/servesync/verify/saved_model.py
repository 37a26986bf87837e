"""Reads a `saved_model.pb`: its tags, signatures and asset files, and whether it needs variables.

Field numbers: tensorflow/core/protobuf/saved_model.proto, meta_graph.proto, saver.proto and
core/framework/{graph,function,node_def}.proto. Constants and attributes are skipped, not copied.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from servesync.verify.proto import (
    AnyList,
    AnyMessage,
    AssetFileDef,
    CollectionDef,
    FunctionDef,
    FunctionDefLibrary,
    GraphDef,
    MapEntry,
    MetaGraphDef,
    MetaInfoDef,
    NodeDef,
    SavedModel,
    SaverDef,
    TensorInfo,
)
from servesync.wire import Malformed, fields

IN_MEMORY_BYTES: Final = 64 << 20
MAX_BYTES: Final = (1 << 31) - 1
MAX_GRAPHS: Final = 1_000
MAX_NAMES: Final = 100_000
"""The most tags, signatures and assets, each, that are read of one graph."""

MAX_SIGNATURES: Final = 1000
MAX_SIGNATURE_BYTES: Final = 4 << 20
SERVE: Final = frozenset({"serve"})
VARIABLE_OPS: Final = frozenset({b"VarHandleOp", b"VariableV2", b"Variable", b"AutoReloadVariable"})
ASSETS_COLLECTION: Final = "saved_model_assets"
"""The collection in which TensorFlow 1 lists asset files; later releases have a field for them."""

_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset file, by its path below `assets/`, and the tensor that the loader sets to its full path."""

    tensor: str
    file: str


@dataclass(frozen=True, slots=True)
class Graph:
    """One meta graph of a SavedModel."""

    tags: frozenset[str]
    tensorflow_version: str
    signatures: tuple[str, ...]
    restores: bool
    """It has a saver: the server restores variables before it serves."""
    has_variables: bool
    assets: tuple["Asset", ...]
    """The assets that TensorFlow's loader reads."""
    signature_entries: tuple[bytes, ...]
    """Each signature as it is stored: a map entry of its name and its SignatureDef."""


@contextmanager
def opened(path: Path) -> Iterator[memoryview]:
    """Lend the bytes of a file: in memory if it is of ordinary size, else mapped.

    Raises:
        Malformed: the file is empty, or larger than a message can be.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise Malformed(f"{size} bytes")
    if size <= IN_MEMORY_BYTES:
        yield memoryview(path.read_bytes())
        return
    with path.open("rb") as file, mapped(file) as view:
        yield view


@contextmanager
def mapped(file: BinaryIO) -> Iterator[memoryview]:
    """Lend the bytes of a file, which has some, without reading them before they are looked at."""
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(mapping)
    try:
        yield view
    finally:
        view.release()
        with suppress(BufferError):  # an error's frames may use views of it: unmapped when they go
            mapping.close()


def read_graphs(data: memoryview) -> list[Graph]:
    """Return the meta graphs of a serialized SavedModel.

    Raises:
        Malformed: the bytes are no SavedModel, or one of absurdly many graphs or names.
    """
    graphs: list[Graph] = []
    for field in fields(data):
        if field.number == SavedModel.META_GRAPHS:
            _keep(graphs, _graph(field.message()), MAX_GRAPHS, "graphs")
    return graphs


def _keep(kept: list[_Kept], item: _Kept, most: int, what: str) -> None:
    if len(kept) >= most:
        raise Malformed(f"more than {most} {what}")
    kept.append(item)


def _graph(data: memoryview) -> Graph:
    tags: list[str] = []
    version = ""
    signatures: list[str] = []
    entries: list[bytes] = []
    restores = has_variables = False
    for field in fields(data):
        match field.number:
            case MetaGraphDef.META_INFO_DEF:
                more, version = _info(field.message())
                tags = more
            case MetaGraphDef.GRAPH_DEF:
                has_variables |= _has_variables(field.message())
            case MetaGraphDef.SAVER_DEF:
                restores = any(
                    part.number == SaverDef.RESTORE_OP_NAME and part.data for part in fields(field.message())
                )
            case MetaGraphDef.SIGNATURE_DEF:
                entries.append(_signature_entry(field.message(), entries))
                _keep(signatures, _text(field.message(), MapEntry.KEY), MAX_NAMES, "signatures")
            case _:
                pass
    return Graph(
        tags=frozenset(tags),
        tensorflow_version=version,
        signatures=tuple(sorted(signatures)),
        restores=restores,
        has_variables=has_variables,
        assets=_assets(data),
        signature_entries=tuple(entries),
    )


def _signature_entry(entry: memoryview, before: list[bytes]) -> bytes:
    """Return a copy of one signature; refuse it if there are too many, or too many bytes of them."""
    if len(entry) + sum(map(len, before)) > MAX_SIGNATURE_BYTES or len(before) >= MAX_SIGNATURES:
        raise Malformed(f"more than {MAX_SIGNATURES} signatures or {MAX_SIGNATURE_BYTES} bytes of them")
    return bytes(entry)


def _assets(meta_graph: memoryview) -> tuple[Asset, ...]:
    """Return the assets of a meta graph: from their field or, if that is empty, from the collection."""
    found: list[Asset] = []
    for data in _messages(meta_graph, MetaGraphDef.ASSET_FILE_DEF):
        _keep(found, _asset(data), MAX_NAMES, "assets")
    if not found:
        for collection in _messages(meta_graph, MetaGraphDef.COLLECTION_DEF):
            for data in _collected_assets(collection):
                _keep(found, _asset(data), MAX_NAMES, "assets")
    return tuple(found)


def _asset(data: memoryview) -> Asset:
    """Return one AssetFileDef."""
    tensor = ""
    for info in _messages(data, AssetFileDef.TENSOR_INFO):
        tensor = _text(info, TensorInfo.NAME) or tensor
    return Asset(tensor if ":" in tensor else f"{tensor}:0", _text(data, AssetFileDef.FILENAME))


def _collected_assets(collection: memoryview) -> Iterator[memoryview]:
    """Yield the assets in the collection of that name; nothing if this is another collection."""
    if _text(collection, MapEntry.KEY) != ASSETS_COLLECTION:
        return
    for definition in _messages(collection, MapEntry.VALUE):
        for any_list in _messages(definition, CollectionDef.ANY_LIST):
            for packed in _messages(any_list, AnyList.VALUE):
                yield from _messages(packed, AnyMessage.VALUE)


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    return (field.message() for field in fields(data) if field.number == number)


def _text(data: memoryview, number: int) -> str:
    """Return the string field `number` of a message; empty if the message does not have it."""
    text = ""
    for field in fields(data):
        if field.number == number:
            text = field.text()
    return text


def _info(data: memoryview) -> tuple[list[str], str]:
    tags: list[str] = []
    version = ""
    for field in fields(data):
        if field.number == MetaInfoDef.TAGS:
            _keep(tags, field.text(), MAX_NAMES, "tags")
        elif field.number == MetaInfoDef.TENSORFLOW_VERSION:
            version = field.text()
    return tags, version


def _has_variables(graph_def: memoryview) -> bool:
    """Whether any node of the graph or of its function library makes a variable; reads all of it."""
    found = False
    for field in fields(graph_def):
        if field.number == GraphDef.NODE:
            found |= _is_variable(field.message())
        elif field.number == GraphDef.LIBRARY:
            for function in fields(field.message()):
                if function.number == FunctionDefLibrary.FUNCTION:
                    found |= _makes_variable(function.message())
    return found


def _makes_variable(function: memoryview) -> bool:
    found = False
    for field in fields(function):
        if field.number == FunctionDef.NODE_DEF:
            found |= _is_variable(field.message())
    return found


def _is_variable(node: memoryview) -> bool:
    operation = b""
    for field in fields(node):
        if field.number == NodeDef.OP:
            operation = bytes(field.message()[:64])
    return operation in VARIABLE_OPS
