"""Where the server enters a graph: signatures, init op and saver of the meta graph with the tag `serve`."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from servesync.verify.assets import full_name
from servesync.verify.parse_budget import Reader
from servesync.verify.proto import (
    AnyList,
    AnyMessage,
    AssetFileDef,
    CollectionDef,
    CompositeTensor,
    CooSparse,
    MapEntry,
    MetaGraphDef,
    MetaInfoDef,
    NodeList,
    SavedModel,
    SaverDef,
    SignatureDef,
    TensorInfo,
)
from servesync.verify.saved_model import ASSETS_COLLECTION
from servesync.wire import Field

INIT_SIGNATURE: Final = "__saved_model_init_op"
INIT_COLLECTIONS: Final = frozenset({b"legacy_init_op", b"saved_model_main_op"})
TAGS: Final = [b"serve"]
SAVER_NAMES: Final = {SaverDef.FILENAME_TENSOR_NAME, SaverDef.SAVE_TENSOR_NAME, SaverDef.RESTORE_OP_NAME}
SPARSE_NAMES: Final = {
    CooSparse.VALUES_TENSOR_NAME,
    CooSparse.INDICES_TENSOR_NAME,
    CooSparse.DENSE_SHAPE_TENSOR_NAME,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Entrances:
    """The names of tensors and nodes at which the server begins, as they stand in the meta graph."""

    graphs: list[memoryview] = dataclasses.field(default_factory=list)
    signatures: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)
    init: list[bytes] = dataclasses.field(default_factory=list)
    saver: list[bytes] = dataclasses.field(default_factory=list)
    restore: list[bytes] = dataclasses.field(default_factory=list)
    """The part of the saver that the server runs."""
    assets: set[bytes] = dataclasses.field(default_factory=set)
    """Tensors that the server sets to a path below `assets/` while it runs the init op or the saver."""


def read_entrances(reader: Reader, saved_model: memoryview) -> Entrances | None:
    """Return the entrances of the first meta graph with exactly the tag `serve`; None without such a graph.

    Raises:
        Malformed: the bytes are no SavedModel.
    """
    for field in reader.fields(saved_model):
        if field.number == SavedModel.META_GRAPHS and _tags(reader, field.message()) == TAGS:
            return _entrances(reader, field.message())
    return None


def _tags(reader: Reader, meta_graph: memoryview) -> list[bytes]:
    tags = set()
    for info in _all(reader, meta_graph, MetaGraphDef.META_INFO_DEF):
        tags |= {bytes(tag.message()) for tag in _all(reader, info.message(), MetaInfoDef.TAGS)}
    return sorted(tags)


def _entrances(reader: Reader, meta_graph: memoryview) -> Entrances:
    entrances = Entrances()
    files: list[memoryview] = []
    old_files: list[memoryview] = []
    for field in reader.fields(meta_graph):
        match field.number:
            case MetaGraphDef.GRAPH_DEF:
                entrances.graphs.append(field.message())
            case MetaGraphDef.SAVER_DEF:
                entrances.saver.extend(_texts(reader, field.message(), SAVER_NAMES))
                entrances.restore.extend(_texts(reader, field.message(), {SaverDef.RESTORE_OP_NAME}))
            case MetaGraphDef.COLLECTION_DEF:
                old_files += _add_collection(reader, entrances, field.message())
            case MetaGraphDef.SIGNATURE_DEF:
                _add_signature(reader, entrances, field.message())
            case MetaGraphDef.ASSET_FILE_DEF:
                reader.keep()
                files.append(field.message())
            case _:
                pass
    entrances.assets.update(_assets(reader, files or old_files))
    return entrances


def _assets(reader: Reader, files: list[memoryview]) -> set[bytes]:
    """Return the tensors of some AssetFileDefs whose files can only lie below `assets/`."""
    inside: set[bytes] = set()
    outside: set[bytes] = set()
    for file in files:
        name, is_inside = _asset(reader, file)
        (inside if is_inside else outside).add(name)
    return inside - outside


def _add_signature(reader: Reader, entrances: Entrances, entry: memoryview) -> None:
    name = ""
    tensors: list[bytes] = []
    for field in reader.fields(entry):
        if field.number == MapEntry.KEY:
            name = field.text()
        elif field.number == MapEntry.VALUE:
            for output in _all(reader, field.message(), SignatureDef.OUTPUTS):
                for info in _all(reader, output.message(), MapEntry.VALUE):
                    tensors += _tensor_names(reader, info.message())
    if name == INIT_SIGNATURE:
        entrances.init.extend(tensors)
    else:
        entrances.signatures.setdefault(name, []).extend(tensors)


def _tensor_names(reader: Reader, info: memoryview) -> list[bytes]:
    """Return the tensors of a TensorInfo: one, the three of a sparse one, or those of a composite."""
    names = []
    pending = [info]
    while pending:
        for field in reader.fields(pending.pop()):
            match field.number:
                case TensorInfo.NAME:
                    reader.keep()
                    names.append(bytes(field.message()))
                case TensorInfo.COO_SPARSE:
                    names += _texts(reader, field.message(), SPARSE_NAMES)
                case TensorInfo.COMPOSITE_TENSOR:
                    pending += [
                        part.message() for part in _all(reader, field.message(), CompositeTensor.COMPONENTS)
                    ]
                case _:
                    pass
    return names


def _add_collection(reader: Reader, entrances: Entrances, entry: memoryview) -> list[memoryview]:
    """Add the nodes of a collection of init ops; return the messages of one of assets."""
    key = b""
    pieces = []
    for field in reader.fields(entry):
        if field.number == MapEntry.KEY:
            key = bytes(field.message())
        elif field.number == MapEntry.VALUE:
            pieces.append(field.message())
    if key in INIT_COLLECTIONS:
        entrances.init.extend(_collected_nodes(reader, pieces))
    return _collected_messages(reader, pieces) if key == ASSETS_COLLECTION.encode() else []


def _collected_nodes(reader: Reader, collection: list[memoryview]) -> list[bytes]:
    """Return the names in a collection of nodes."""
    names = []
    for piece in collection:
        for nodes in _all(reader, piece, CollectionDef.NODE_LIST):
            names += _texts(reader, nodes.message(), {NodeList.VALUE})
    return names


def _collected_messages(reader: Reader, collection: list[memoryview]) -> list[memoryview]:
    """Return the messages in a collection of `google.protobuf.Any`."""
    messages = []
    for piece in collection:
        for many in _all(reader, piece, CollectionDef.ANY_LIST):
            for one in _all(reader, many.message(), AnyList.VALUE):
                for value in _all(reader, one.message(), AnyMessage.VALUE):
                    reader.keep()
                    messages.append(value.message())
    return messages


def _asset(reader: Reader, asset: memoryview) -> tuple[bytes, bool]:
    """Return the tensor of an AssetFileDef, and whether its file can only lie below `assets/`."""
    name = path = b""
    for field in reader.fields(asset):
        if field.number == AssetFileDef.TENSOR_INFO:
            for text in _texts(reader, field.message(), {TensorInfo.NAME}):
                name = text
        elif field.number == AssetFileDef.FILENAME:
            path = bytes(field.message())
    return full_name(name), bool(path) and b".." not in path.split(b"/")


def _all(reader: Reader, data: memoryview, number: int) -> Iterator[Field]:
    return (field for field in reader.fields(data) if field.number == number)


def _texts(reader: Reader, data: memoryview, numbers: set[int]) -> list[bytes]:
    """Return the strings of some fields; each counts as kept in the reader's budget."""
    texts = []
    for field in reader.fields(data):
        if field.number in numbers:
            reader.keep()
            texts.append(bytes(field.message()))
    return texts
