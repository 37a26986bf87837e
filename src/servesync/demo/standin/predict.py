"""Turns a predict request's JSON into tensors, and the outputs into JSON, by rows or by columns.

Source: TensorFlow Serving's documentation, "RESTful API", Predict API; json_tensor.cc for strings: those of
an output whose name ends with `_bytes` are in base64, all others stand as they are.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.loader import Loaded, tensorflow
from servesync.domain.methods import Method

Json: TypeAlias = Any
DEFAULT_SIGNATURE: Final = "serving_default"
METHODS: Final = tuple(f"tensorflow/serving/{method.value}" for method in Method)


def predict(
    loaded: Loaded, name: str, request: Mapping[str, Json], timeout_ms: int, *, checks_method: bool
) -> Json:
    """Answer a predict request for the signature `name`, in the row (`instances`) or the column format.

    `timeout_ms`: after which the request is given up. `checks_method`: refuse signatures of unknown methods.

    Raises:
        RequestFailed: the request does not fit the model, or the model failed on it.
    """
    if name not in loaded.signatures:
        raise _invalid(f'Serving signature name: "{name}" not found in signature def')
    by_rows = "instances" in request
    if by_rows == ("inputs" in request):
        raise _invalid("JSON Value: not formatted correctly, expecting either 'instances' or 'inputs'")
    signature = loaded.signatures[name]
    given, names = _decoded(request["instances" if by_rows else "inputs"]), sorted(signature.inputs)
    tensors = _tensors(signature, _by_rows(given, names) if by_rows else _by_columns(given, names))
    if checks_method and signature.method_name not in METHODS:
        text = f"one of {{{', '.join(METHODS)}}}. Was: {signature.method_name}"
        raise RequestFailed(Code.INTERNAL, f"Expected prediction signature method_name to be {text}")
    found = loaded.run(signature, tensors, timeout_ms)
    outputs = {
        key: _encoded(_listed(value), in_base64=key.endswith("_bytes")) for key, value in found.items()
    }
    return _as_rows(outputs) if by_rows else {"outputs": _only_or_all(outputs)}


def _tensors(signature: Any, named: Mapping[str, Json]) -> dict[str, Any]:  # noqa: ANN401 (a SignatureDef)
    """Return arrays of the signature's types."""
    tf = tensorflow()
    try:
        return {
            name: tf.constant(named[name], dtype=tf.as_dtype(info.dtype)).numpy()
            for name, info in signature.inputs.items()
        }
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise _invalid(f"Failed to process element: {error}") from error


def _listed(value: Any) -> Json:  # noqa: ANN401 (an array; bytes for a scalar of strings)
    return value if isinstance(value, bytes) else value.tolist()


def _by_rows(given: Json, names: list[str]) -> Mapping[str, Json]:
    if not isinstance(given, list) or not given:
        raise _invalid("JSON Value: 'instances' must be a list with at least one element")
    if not isinstance(given[0], dict):
        return _single(given, names)
    for row in given:
        if not isinstance(row, dict) or row.keys() != set(names):
            raise _invalid(f"Failed to process element of 'instances' list: expected an object with {names}")
    return {name: [row[name] for row in given] for name in names}


def _by_columns(given: Json, names: list[str]) -> Mapping[str, Json]:
    if not isinstance(given, dict):
        return _single(given, names)
    if given.keys() != set(names):
        raise _invalid(f"Missing named input: expected {names} in 'inputs'")
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


def _encoded(value: Json, *, in_base64: bool) -> Json:
    """Return bytes as `{"b64": TEXT}`, or as text, which goes out as it is even if it is not UTF-8."""
    if isinstance(value, list):
        return [_encoded(item, in_base64=in_base64) for item in value]
    if not isinstance(value, bytes):
        return value
    if in_base64:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode(errors="surrogateescape")


def _invalid(message: str) -> RequestFailed:
    return RequestFailed(Code.INVALID_ARGUMENT, message)
