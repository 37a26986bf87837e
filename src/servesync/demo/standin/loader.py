"""Loads one version into a session of TensorFlow's, step by step as the real loader does it.

The steps are those of TensorFlow's `cc/saved_model/loader.cc`: import the graph, restore the variables if
there is an index, and run the init op. So the same code as in the real server decides what fails at load and
what fails only at a request. An operation that this TensorFlow does not know makes the load fail if it is in
the main graph, and a request if it is in the body of a function. Without `variables.index` nothing is
restored, and each request that reads a variable fails.
"""

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from servesync.demo.standin.codes import Code, LoadFailed, RequestFailed

INIT_OP: Final = "__saved_model_init_op"
INDEX: Final = "variables/variables.index"
TAGS: Final = frozenset({"serve"})
_PYTHONS: Final = re.compile(
    r"\A(Graph execution error:\n\n)?(Detected at node [^\n]* defined at [^\n]*:\n.*?^Node: [^\n]*\n)*",
    re.DOTALL | re.MULTILINE,
)
_import_lock = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A version in memory; it never reads its directory again."""

    signatures: Mapping[str, Any]
    """SignatureDef messages by name."""
    session: Any
    """The session that holds the graph and the variables; any number of threads may run it at once."""

    def definitions(self) -> dict[str, Any]:
        """Return the signatures as the metadata request shows them."""
        return {name: _definition(signature) for name, signature in self.signatures.items()}

    def run(self, signature: Any, tensors: Mapping[str, Any], timeout_ms: int = 0) -> dict[str, Any]:  # noqa: ANN401 (SignatureDef)
        """Return the outputs of a signature for input tensors (NumPy arrays), each by its name.

        `timeout_ms`: after which the request is given up; 0: never.

        Raises:
            RequestFailed: the runtime's error, or an input has a shape that the signature does not allow.
        """
        tf = tensorflow()
        fetches = {name: info.name for name, info in sorted(signature.outputs.items())}
        feeds = {signature.inputs[name].name: value for name, value in tensors.items()}
        try:
            options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
            found: dict[str, Any] = self.session.run(fetches, feeds, options=options)
        except tf.errors.OpError as error:
            raise RequestFailed(Code.of_number(error.error_code), _without_python(error.message)) from error
        except (ValueError, TypeError) as error:
            raise RequestFailed(Code.INVALID_ARGUMENT, str(error)) from error
        return found


def _without_python(message: object) -> str:
    """Return an error of the runtime as the real server has it: without what Python puts in front."""
    return _PYTHONS.sub("", str(message))


def tensorflow() -> Any:  # noqa: ANN401 (a module)
    """Return TensorFlow, imported at the first call and told to use few threads."""
    with _import_lock:
        return _tensorflow()


@cache
def _tensorflow() -> Any:  # noqa: ANN401 (a module)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf  # noqa: PLC0415 (half a GiB and four seconds: not before the first load)

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    return tf


def reserve(model: str, version: int, path: Path) -> None:
    """Walk over a version's files, as the real server does before it loads the version.

    Raises:
        LoadFailed: an entry cannot be read, or the version is no directory.
    """
    try:
        walk_sizes(path)
    except LoadFailed as error:
        name = f"{{name: {model} version: {version}}}"
        raise LoadFailed(
            error.code, f"Error while attempting to reserve resources to load servable {name}: {error}"
        ) from error


def walk_sizes(path: Path) -> int:
    """Return the bytes of all files below `path`.

    Raises:
        LoadFailed: an entry cannot be read, or `path` is no directory.
    """
    try:
        return _size(path)
    except FileNotFoundError as error:
        raise LoadFailed(Code.NOT_FOUND, f"{error.filename}; No such file or directory") from error
    except PermissionError as error:
        raise LoadFailed(Code.PERMISSION_DENIED, f"{error.filename}; Permission denied") from error
    except OSError as error:
        raise LoadFailed(Code.FAILED_PRECONDITION, f"{error.filename}; {error.strerror}") from error


def _size(path: Path) -> int:
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            total += _size(Path(entry.path)) if entry.is_dir() else entry.stat().st_size
    return total


def load(path: Path) -> Loaded:
    """Load the SavedModel in `path`.

    Raises:
        LoadFailed: the version cannot be loaded; the real server would give it an error, too.
    """
    if (path / "export.meta").exists():
        raise LoadFailed(Code.UNIMPLEMENTED, "Session Bundle is no longer supported.")
    tf = tensorflow()
    meta_graph = _meta_graph(path)
    try:
        return Loaded(dict(meta_graph.signature_def), _session(path, meta_graph))
    except LoadFailed:
        raise
    except tf.errors.OpError as error:
        raise LoadFailed(Code.of_number(error.error_code), _without_python(error.message)) from error
    except Exception as error:  # a SavedModel is a program, and can raise anything
        raise LoadFailed(Code.INTERNAL, f"{type(error).__name__}: {error}") from error


def _session(path: Path, meta_graph: Any) -> Any:  # noqa: ANN401 (a Session, a MetaGraphDef)
    """Return a session with the graph in it, its variables restored and its init op run."""
    v1 = tensorflow().compat.v1
    graph = _graph(meta_graph.graph_def)
    session = v1.Session(graph=graph, config=v1.ConfigProto(allow_soft_placement=True))
    assets = _assets(path, meta_graph)
    saver = meta_graph.saver_def
    if saver.restore_op_name and (path / INDEX).exists():
        prefix = str(path / "variables" / "variables")
        feeds = assets | {saver.filename_tensor_name: prefix}
        session.run(graph.get_operation_by_name(saver.restore_op_name), feeds)
    if init_op := _init_op(meta_graph):
        session.run(graph.get_operation_by_name(init_op), assets)
    return session


def _graph(definition: Any) -> Any:  # noqa: ANN401 (a Graph, a GraphDef)
    """Return the graph; only an unknown operation in the main graph is an error here.

    TensorFlow's Python side infers a call's shapes from the function's body, and must know its operations;
    the real server need not. Calls that are imported before their functions have no shapes to infer.
    """
    tf = tensorflow()
    try:
        return _imported(definition)
    except tf.errors.NotFoundError:
        functions = tf.compat.v1.GraphDef(library=definition.library, versions=definition.versions)
        definition.ClearField("library")
        return _imported(definition, functions)


def _imported(*definitions: Any) -> Any:  # noqa: ANN401 (a Graph, GraphDefs)
    v1 = tensorflow().compat.v1
    with v1.Graph().as_default() as graph:
        for definition in definitions:
            v1.import_graph_def(definition, name="")
    return graph


def _assets(path: Path, meta_graph: Any) -> dict[str, str]:  # noqa: ANN401 (a MetaGraphDef)
    """Return the paths that are fed to a graph, by the names of the tensors that take them."""
    found: dict[str, str] = {}
    for item in _asset_files(meta_graph):
        name = item.tensor_info.name
        if name in found:
            raise LoadFailed(Code.INVALID_ARGUMENT, f"Tensor {name} was passed more than once as a feed.")
        found[name] = str(path / "assets" / item.filename)
    return found


def _asset_files(meta_graph: Any) -> list[Any]:  # noqa: ANN401 (a MetaGraphDef)
    """Return the AssetFileDefs: from their field, or from the collection that old exports have."""
    if meta_graph.asset_file_def:
        return list(meta_graph.asset_file_def)
    from tensorflow.core.protobuf import meta_graph_pb2  # noqa: PLC0415 (comes with TensorFlow)

    packed = meta_graph.collection_def["saved_model_assets"].any_list.value
    return [meta_graph_pb2.AssetFileDef.FromString(item.value) for item in packed]


def _init_op(meta_graph: Any) -> str:  # noqa: ANN401 (a MetaGraphDef)
    """Return the name of the operation that prepares tables and the like; empty if there is none."""
    signature = meta_graph.signature_def.get(INIT_OP)
    if signature is not None:
        return str(signature.outputs[INIT_OP].name).partition(":")[0]
    for name in ("saved_model_main_op", "legacy_init_op"):
        nodes = meta_graph.collection_def[name].node_list.value
        if nodes:
            return str(nodes[0])
    return ""


def _meta_graph(path: Path) -> Any:  # noqa: ANN401 (a MetaGraphDef)
    """Return the graph to serve."""
    for graph in _saved_model(path).meta_graphs:
        if frozenset(graph.meta_info_def.tags) == TAGS:
            return graph
    raise LoadFailed(
        Code.NOT_FOUND,
        "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in "
        "the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
    )


def _saved_model(path: Path) -> Any:  # noqa: ANN401 (a SavedModel message)
    """Read saved_model.pb, or saved_model.pbtxt in its absence."""
    from google.protobuf import text_format  # noqa: PLC0415 (comes with TensorFlow)
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    found = saved_model_pb2.SavedModel()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.exists():
            found.ParseFromString(binary.read_bytes())
        elif text.exists():
            text_format.Parse(text.read_bytes(), found)
        else:
            raise LoadFailed(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. Check "
                "that the directory exists and that you have the right permissions for accessing it.",
            )
    except DecodeError as error:
        raise LoadFailed(Code.DATA_LOSS, f"Can't parse {binary} as binary proto") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadFailed(Code.DATA_LOSS, f"Can't parse {text} as text proto: {error}") from error
    except OSError as error:
        raise LoadFailed(Code.NOT_FOUND, f"{error.filename}; {error.strerror}") from error
    return found


def _definition(signature: Any) -> dict[str, Any]:  # noqa: ANN401 (a SignatureDef)
    return {
        "inputs": {name: _tensor(info) for name, info in signature.inputs.items()},
        "outputs": {name: _tensor(info) for name, info in signature.outputs.items()},
        "method_name": signature.method_name,
    }


def _tensor(info: Any) -> dict[str, Any]:  # noqa: ANN401 (a TensorInfo)
    from tensorflow.core.framework import types_pb2  # noqa: PLC0415

    shape = info.tensor_shape
    return {
        "dtype": types_pb2.DataType.Name(info.dtype),
        "tensor_shape": {
            "dim": [{"size": str(dim.size), "name": dim.name} for dim in shape.dim],
            "unknown_rank": shape.unknown_rank,
        },
        "name": info.name,
    }
