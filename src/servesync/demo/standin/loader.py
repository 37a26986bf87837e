"""Loads one version with TensorFlow, and fails as the real loader does.

A missing `variables.index` is no failure: the real loader then restores nothing, says that all is well, and
every request fails later.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "variables/variables.index"
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""The names of gRPC's status codes, by number."""


class LoadFailed(Exception):
    """A load that failed; `code` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RequestFailed(Exception):
    """A request that a loaded model cannot answer; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Loaded:
    """A version in memory; it never looks at its directory again."""

    signatures: dict[str, Any]
    initialized: bool


def walk_sizes(model: str, version: int, path: Path) -> int:
    """Return the bytes below a version, as the real server adds them up before and after each load.

    Raises:
        LoadFailed: an entry cannot be read, or the version is no directory.
    """
    try:
        return _size(path)
    except OSError as error:
        code = "NOT_FOUND" if isinstance(error, FileNotFoundError) else "FAILED_PRECONDITION"
        name = f"{{name: {model} version: {version}}}"
        text = f"Error while attempting to reserve resources to load servable {name}"
        raise LoadFailed(code, f"{text}: {error}") from error


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
    import tensorflow as tf  # noqa: PLC0415 (half a GiB and four seconds: not before the first load)
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    if not (path / "saved_model.pb").exists():
        raise LoadFailed(
            "NOT_FOUND", f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
        )
    parsed = saved_model_pb2.SavedModel()
    try:
        parsed.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise LoadFailed("DATA_LOSS", f"Can't parse {path}/saved_model.pb as binary proto") from error
    if all(set(graph.meta_info_def.tags) != {"serve"} for graph in parsed.meta_graphs):
        raise LoadFailed("NOT_FOUND", "Could not find meta graph def matching supplied tags: { serve }.")
    restores = any(graph.saver_def.restore_op_name for graph in parsed.meta_graphs)
    if restores and not (path / INDEX).exists():
        return Loaded({}, initialized=False)
    try:
        loaded = tf.saved_model.load(str(path), tags=["serve"])
    except tf.errors.OpError as error:
        raise LoadFailed(_code_name(error.error_code), str(error.message)) from error
    except IndexError as error:  # the form in which TensorFlow's Python side gets OUT_OF_RANGE
        raise LoadFailed("OUT_OF_RANGE", str(error)) from error
    except Exception as error:
        raise LoadFailed("INTERNAL", f"{type(error).__name__}: {error}") from error
    return Loaded(dict(loaded.signatures) | {"": loaded}, initialized=True)


def _code_name(number: int) -> str:
    return CODES[number] if number < len(CODES) else "UNKNOWN"


def signature_of(loaded: Loaded, name: str) -> Any:  # noqa: ANN401 (a function that TensorFlow makes)
    """Return one signature.

    Raises:
        RequestFailed: variables were never restored, or there is no such signature.
    """
    if not loaded.initialized:
        raise RequestFailed(
            400,
            "Error while reading resource variable from Container: localhost. This could mean that the "
            "variable was uninitialized.",
        )
    if name not in loaded.signatures or not name:
        raise RequestFailed(400, f'Serving signature name: "{name}" not found in signature def')
    return loaded.signatures[name]


def describe(loaded: Loaded) -> dict[str, Any]:
    """Return the signatures as the metadata request shows them."""
    return {
        name: {
            "inputs": {key: _spec(spec) for key, spec in function.structured_input_signature[1].items()},
            "outputs": {key: _spec(spec) for key, spec in function.structured_outputs.items()},
            "method_name": "tensorflow/serving/predict",
        }
        for name, function in loaded.signatures.items()
        if name
    }


def _spec(spec: Any) -> dict[str, Any]:  # noqa: ANN401 (a tf.TensorSpec)
    rank_known = spec.shape.rank is not None
    sizes = [
        {"size": str(-1 if size is None else size), "name": ""} for size in (spec.shape if rank_known else ())
    ]
    return {
        "dtype": f"DT_{spec.dtype.name.upper()}",
        "tensor_shape": {"dim": sizes, "unknown_rank": not rank_known},
        "name": spec.name,
    }


def predict(loaded: Loaded, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a predict request in the row (`instances`) or the column (`inputs`) format.

    Raises:
        RequestFailed: the request does not fit the model.
    """
    import tensorflow as tf  # noqa: PLC0415

    function = signature_of(loaded, str(request.get("signature_name", "serving_default")))
    specs = function.structured_input_signature[1]
    rows = "instances" in request
    if rows == ("inputs" in request):
        raise RequestFailed(400, "JSON Value: must have either 'instances' or 'inputs'")
    try:
        named = _named_inputs(request["instances" if rows else "inputs"], list(specs), rows=rows)
        tensors = {name: tf.constant(named[name], dtype=spec.dtype) for name, spec in specs.items()}
        outputs = {name: tensor.numpy() for name, tensor in function(**tensors).items()}
    except (KeyError, ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise RequestFailed(400, f"Failed to process element: {error}") from error
    lists = {name: _plain(value.tolist()) for name, value in outputs.items()}
    if not rows:
        return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}
    if len(lists) == 1:
        return {"predictions": next(iter(lists.values()))}
    return {
        "predictions": [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    }


def _named_inputs(given: Any, names: list[str], *, rows: bool) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    if rows:
        if not isinstance(given, list) or not given:
            raise ValueError("'instances' must be a list with elements")
        if isinstance(given[0], dict):
            return {name: [row[name] for row in given] for name in names}
    elif isinstance(given, dict):
        return given
    if len(names) != 1:
        raise ValueError(f"inputs must be named: {names}")
    return {names[0]: given}


def _plain(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Turn bytes into text, as far as they are text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
