"""Warm-up requests made of golden ones: the same inputs, in the form in which the server reads them.

Source: TensorProto and TensorShapeProto of tensorflow/core/framework, and what `verify/warmup.py` names.
Fields are written in the order of their numbers and maps in that of their keys, so that the same requests
give the same bytes.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import JsonValue

from servesync.domain.versions import Model
from servesync.errors import Reason, ReleaseRefused, SettingsError
from servesync.publishing.pack import Made
from servesync.settings import Dtype, Signature
from servesync.verify import read_signatures
from servesync.verify.compare import decoded
from servesync.verify.golden import GOLDEN, Request, read_golden
from servesync.verify.proto import (
    Dim,
    InferenceRequest,
    MapEntry,
    ModelSpec,
    PredictionLog,
    TensorProto,
    TensorShapeProto,
)
from servesync.verify.tfrecord import record
from servesync.verify.warmup import WARMUP
from servesync.wire import encoded

_CODES: Final = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float16": "e", "bfloat16": "f", "float32": "f", "float64": "d",
}  # fmt: skip
"""The types that a golden request may have, but for strings, by the code of `struct`."""
_INFINITY: Final = 0x7F800000
"""As a float32; what is more is no number."""


def warmup_from_golden(root: Path, model: Model) -> Made:
    """Return the file of warm-up requests for the version in `root`, one for each of its golden requests.

    Raises:
        SettingsError: it has no golden requests, or warm-up requests of its own.
        ReleaseRefused: its golden requests, or its graph, are not sound.
        OSError: a file cannot be read.
    """
    if os.path.lexists(root / WARMUP):
        text = f"the version has a {WARMUP} of its own: leave out --warmup-from-golden, or remove that file"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    signatures = read_signatures(root)
    requests = read_golden(root, signatures)
    if not requests:
        text = f"the version has no {GOLDEN} to make warm-up requests of: docs/golden.md says how to write it"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    logs = []
    for number, request in enumerate(requests, 1):
        try:
            logs.append(record(_log(request, signatures[request.signature], model)))
        except (OverflowError, struct.error) as error:
            text = f"{GOLDEN}: request {number}: a number is too large for the type of its input"
            raise ReleaseRefused(Reason.GOLDEN_INVALID, text, file=GOLDEN) from error
    return Made(WARMUP, b"".join(logs))


def _log(request: Request, signature: Signature, model: Model) -> bytes:
    """Return a PredictionLog of a request."""
    spec = encoded(ModelSpec.NAME, model.encode()) + encoded(
        ModelSpec.SIGNATURE_NAME, request.signature.encode()
    )
    message = encoded(InferenceRequest.MODEL_SPEC, spec)
    for name, value in sorted(request.inputs.items()):
        tensor = _tensor(value, signature.inputs[name].dtype)
        entry = encoded(MapEntry.KEY, name.encode()) + encoded(MapEntry.VALUE, tensor)
        message += encoded(InferenceRequest.PREDICT_INPUTS, entry)
    return encoded(PredictionLog.PREDICT_LOG, encoded(PredictionLog.REQUEST, message))


def _tensor(nested: JsonValue, dtype: Dtype) -> bytes:
    """Return a TensorProto of a golden request's input, which has been checked."""
    values = decoded(nested, text=dtype == "string")
    flat = list(_flat(values))
    shape = b""
    while isinstance(values, list):
        size = encoded(Dim.SIZE, len(values)) if values else b""
        shape += encoded(TensorShapeProto.DIM, size)
        values = values[0] if values else None
    tensor = encoded(TensorProto.DTYPE, get_args(Dtype).index(dtype) + 1) + encoded(
        TensorProto.TENSOR_SHAPE, shape
    )
    if dtype == "string":
        return tensor + b"".join(encoded(TensorProto.STRING_VAL, value) for value in flat)
    content = struct.pack(f"<{len(flat)}{_CODES[dtype]}", *flat)
    if dtype == "bfloat16":
        content = b"".join(map(_bfloat16, struct.unpack(f"<{len(flat)}I", content)))
    return tensor + (encoded(TensorProto.TENSOR_CONTENT, content) if content else b"")


def _flat(value: Any) -> Iterator[Any]:  # noqa: ANN401 (nested lists)
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _bfloat16(bits: int) -> bytes:
    """Return the upper half of a float32, rounded to the nearest, to even if there are two; NaN stays NaN."""
    is_nan = bits & 0x7FFFFFFF > _INFINITY
    return struct.pack("<H", 0x7FC0 if is_nan else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
