"""Loads one version with TensorFlow's Python package, and fails as the real loader does.

A missing `variables.index` is no failure: the real loader then restores nothing and reports success, and
every request that reads a variable fails later. A version with a saver and without that file is treated
so here; that some of its signatures may read no variable is not looked at.
"""

import os
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from servesync.demo.standin.codes import Code, LoadFailed

INDEX: Final = "variables/variables.index"
TAGS: Final = frozenset({"serve"})
_import_lock = threading.Lock()


@dataclass(frozen=True)
class Loaded:
    """A version in memory; it never looks at its directory again."""

    definitions: dict[str, Any]
    """The signatures as the metadata request shows them."""
    functions: dict[str, Any] = field(default_factory=dict)
    """The signatures, callable; empty if variables were never restored."""
    root: object = None
    """Owns the variables that the functions read."""

    @property
    def is_initialized(self) -> bool:
        """Whether there is anything to run."""
        return self.root is not None


def tensorflow() -> Any:  # noqa: ANN401 (a module)
    """Return TensorFlow, imported at the first call and told to use few threads."""
    with _import_lock:
        return _imported()


@cache
def _imported() -> Any:  # noqa: ANN401 (a module)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf  # noqa: PLC0415 (half a GiB and four seconds: not before the first load)

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    return tf


def reserve(model: str, version: int, path: Path) -> None:
    """Walk over a version's files as the real server does before it loads.

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
        LoadFailed: the real server would end this version with an error, too.
    """
    if (path / "export.meta").exists():
        raise LoadFailed(Code.UNIMPLEMENTED, "Session Bundle is no longer supported.")
    tf = tensorflow()
    meta_graph = _meta_graph(path)
    definitions = {name: _definition(signature) for name, signature in meta_graph.signature_def.items()}
    if meta_graph.saver_def.restore_op_name and not (path / INDEX).exists():
        return Loaded(definitions)
    try:
        root = tf.saved_model.load(str(path), tags=sorted(TAGS))
    except tf.errors.OpError as error:
        raise LoadFailed(_code(error), str(error.message)) from error
    except IndexError as error:  # the form in which TensorFlow's Python side gets OUT_OF_RANGE
        raise LoadFailed(Code.OUT_OF_RANGE, str(error)) from error
    except Exception as error:  # a SavedModel is a program: what it raises at load can be anything
        raise LoadFailed(Code.INTERNAL, f"{type(error).__name__}: {error}") from error
    return Loaded(definitions, dict(root.signatures), root)


def _code(error: Any) -> Code:  # noqa: ANN401 (a tf.errors.OpError)
    """Return the code of TensorFlow's error; its Python side loses that of a data shard that is missing."""
    code = Code.of_number(error.error_code)
    is_absence = code is Code.UNKNOWN and "No such file or directory" in str(error.message)
    return Code.NOT_FOUND if is_absence else code


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
