"""Warm-up files, byte by byte: records, PredictionLogs of each kind, and a SavedModel that they fit."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c

import graph_bytes as gb

LOGS = {
    "classify": 2,
    "regress": 3,
    "multi_inference": 4,
    "session_run": 5,
    "predict": 6,
    "predict_streamed": 7,
}


def framed(data: bytes) -> bytes:
    """Return one record of a TFRecord file: length, its checksum, data, its checksum."""

    def checked(piece: bytes) -> bytes:
        crc = google_crc32c.value(piece)
        return piece + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    return checked(struct.pack("<Q", len(data))) + checked(data)


def spec(signature: str = "", model: str = "") -> bytes:
    """Return the field of a request that names model and signature."""
    name = gb.data(3, signature) if signature else b""
    return gb.data(1, (gb.data(1, model) if model else b"") + name)


def log(kind: str, request: bytes) -> bytes:
    """Return a PredictionLog."""
    return gb.data(LOGS[kind], gb.data(1, request))


def predict(*inputs: str, signature: str = "") -> bytes:
    """Return a PredictionLog of a predict request; the tensors are empty."""
    return log("predict", spec(signature) + b"".join(gb.entry(2, name, b"") for name in inputs))


def tasks(*named: tuple[str, str]) -> bytes:
    """Return a multi-inference of these signatures and models."""
    return log("multi_inference", b"".join(gb.data(1, spec(*names)) for names in named))


def typed_signature(name: str, inputs: Mapping[str, tuple[int, int]]) -> bytes:
    """Return a signature with inputs of these types (DataType) and ranks, of any size, and the output y."""
    fields = b""
    for tensor, (dtype, rank) in inputs.items():
        dims = gb.data(2, gb.number(1, (1 << 64) - 1)) * rank
        fields += gb.entry(1, tensor, gb.data(1, f"{tensor}:0") + gb.number(2, dtype) + gb.data(3, dims))
    return gb.entry(5, name, fields + gb.entry(2, "y", gb.data(1, "y:0") + gb.number(2, 1)))


def write_golden(root: Path, requests: list[dict[str, Any]], *signatures: bytes) -> Path:
    """Write a SavedModel with these signatures that carries golden requests; each is answered with 0."""
    (root / "assets.extra").mkdir(parents=True)
    (root / "saved_model.pb").write_bytes(gb.saved_model(b"", *signatures))
    full = [request | {"outputs": {"y": 0.0}} for request in requests]
    golden = {"schema": "servesync.golden/1", "requests": full}
    (root / "assets.extra/servesync_golden.json").write_text(json.dumps(golden))
    return root


def signature(name: str, inputs: Iterable[str], defaults: Iterable[str] = ()) -> bytes:
    """Return a field of a meta graph: a signature with these inputs, some of them with default values."""
    given = b"".join(gb.entry(1, item, gb.data(1, f"{item}:0") + gb.number(2, 1)) for item in inputs)
    return gb.entry(5, name, given + b"".join(gb.entry(4, item, b"") for item in defaults))


def write_warmup(root: Path, content: bytes, *signatures: bytes) -> Path:
    """Write a SavedModel with a warm-up file; without `signatures`, one with the input x, and `two`."""
    mine = signatures or (signature("serving_default", ["x"]), signature("two", ["a", "b"], ["b"]))
    (root / "saved_model.pb").write_bytes(gb.saved_model(b"", *mine))
    file = root / "assets.extra/tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return root
