"""Turns a predict request's JSON into tensors and the outputs into JSON, rows and columns alike.

Source: TensorFlow Serving's documentation, "RESTful API", Predict API.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.loader import Loaded, tensorflow

Json: TypeAlias = Any
DEFAULT_SIGNATURE: Final = "serving_default"
UNINITIALIZED: Final = (
    "Error while reading resource variable from Container: localhost. This could mean that the variable was "
    "uninitialized."
)


def predict(loaded: Loaded, request: Mapping[str, Json]) -> Json:
    """Answer a predict request in the row (`instances`) or the column (`inputs`) format.

    Raises:
        RequestFailed: the request does not fit the model, or the model failed on it.
    """
    name = request.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str) or name not in loaded.definitions:
        raise _invalid(f'Serving signature name: "{name}" not found in signature def')
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        raise _invalid("JSON Value: not formatted correctly, expecting either 'instances' or 'inputs'")
    if not loaded.is_initialized or name not in loaded.functions:
        raise RequestFailed(Code.FAILED_PRECONDITION, UNINITIALIZED)
    function = loaded.functions[name]
    specs = function.structured_input_signature[1]
    given = _decoded(request["instances" if by_rows else "inputs"])
    outputs = _run(function, specs, _by_rows(given, list(specs)) if by_rows else _by_columns(given, specs))
    return _as_rows(outputs) if by_rows else {"outputs": _only_or_all(outputs)}


def _run(function: Any, specs: Mapping[str, Any], named: Mapping[str, Json]) -> dict[str, Json]:  # noqa: ANN401
    tf = tensorflow()
    try:
        tensors = {name: tf.constant(named[name], dtype=spec.dtype) for name, spec in specs.items()}
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise _invalid(f"Failed to process element: {error}") from error
    try:
        outputs = function(**tensors)
    except tf.errors.OpError as error:
        raise RequestFailed(Code.of_number(error.error_code), str(error.message)) from error
    except (ValueError, TypeError) as error:  # a shape that the signature does not take
        raise _invalid(str(error)) from error
    return {name: _encoded(tensor.numpy().tolist()) for name, tensor in outputs.items()}


def _by_rows(given: Json, names: list[str]) -> Mapping[str, Json]:
    if not isinstance(given, list) or not given:
        raise _invalid("JSON Value: 'instances' must be a list with at least one element")
    if not isinstance(given[0], dict):
        return _single(given, names)
    for row in given:
        if not isinstance(row, dict) or row.keys() != set(names):
            raise _invalid(f"Failed to process element of 'instances' list: expected an object with {names}")
    return {name: [row[name] for row in given] for name in names}


def _by_columns(given: Json, specs: Mapping[str, Any]) -> Mapping[str, Json]:
    if not isinstance(given, dict):
        return _single(given, list(specs))
    if given.keys() != specs.keys():
        raise _invalid(f"Missing named input: expected {list(specs)} in 'inputs'")
    return given


def _single(given: Json, names: list[str]) -> Mapping[str, Json]:
    if len(names) != 1:
        raise _invalid(f"JSON Value: inputs must be named: {names}")
    return {names[0]: given}


def _as_rows(outputs: Mapping[str, Json]) -> Json:
    sizes = {len(value) if isinstance(value, list) else -1 for value in outputs.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise _invalid("Tensor does not have a batch dimension: ask with 'inputs' instead of 'instances'")
    if len(outputs) == 1:
        return {"predictions": _only_or_all(outputs)}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def _only_or_all(outputs: Mapping[str, Json]) -> Json:
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _decoded(value: Json) -> Json:
    """Replace `{"b64": TEXT}` by the bytes that it stands for."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise _invalid(f"Unable to base64 decode: {error}") from error
    return {name: _decoded(item) for name, item in value.items()}


def _encoded(value: Json) -> Json:
    """Give bytes as text, or as `{"b64": TEXT}` where they are no text."""
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _invalid(message: str) -> RequestFailed:
    return RequestFailed(Code.INVALID_ARGUMENT, message)
