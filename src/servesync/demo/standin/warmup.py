"""Replays the requests in `assets.extra/tf_serving_warmup_requests`, as the real server does at each load.

The file is a TFRecord file of `tensorflow.serving.PredictionLog` messages. The field numbers are those of
tensorflow/serving, `tensorflow_serving/apis/` (`prediction_log.proto`, `predict.proto`,
`classification.proto`, `regression.proto`, `input.proto`, `model.proto`).
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from servesync.demo.standin.codes import Code, LoadFailed, RequestFailed
from servesync.demo.standin.loader import Loaded, tensorflow
from servesync.verify.tfrecord import records
from servesync.verify.warmup import DEFAULT_SIGNATURE, MAX_RECORDS, WARMUP
from servesync.wire import Malformed

_PACKAGE: Final = "servesync.standin"
_SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "ModelSpec": {"signature_name": (3, "")},
    "NamedTensor": {"key": (1, ""), "value": (2, ".tensorflow.TensorProto")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "NamedTensor*")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "ExampleList": {"examples": (1, ".tensorflow.Example*")},
    "Input": {"example_list": (1, "ExampleList")},
    "ExamplesRequest": {"model_spec": (1, "ModelSpec"), "input": (2, "Input")},
    "ExamplesLog": {"request": (1, "ExamplesRequest")},
    "PredictionLog": {
        "classify_log": (2, "ExamplesLog"),
        "regress_log": (3, "ExamplesLog"),
        "multi_inference_log": (4, "ModelSpec"),
        "session_run_log": (5, "ModelSpec"),
        "predict_log": (6, "PredictLog"),
        "predict_streamed_log": (7, "ModelSpec"),
    },
}
"""Message, field, number, type (empty: text, star: repeated); the last message has only the fields in use."""


def warm_up(path: Path, loaded: Loaded) -> int:
    """Run every recorded request on a version that has just been loaded; return how many there were.

    Raises:
        LoadFailed: the file is damaged or too long, or a request failed; the version is not loaded.
    """
    if not (path / WARMUP).is_file():
        return 0
    number = 0
    for number, record in enumerate(_records(path / WARMUP), 1):
        if number > MAX_RECORDS:
            text = f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path / WARMUP}"
            raise LoadFailed(Code.INVALID_ARGUMENT, text)
        try:
            _replay(record, loaded)
        except RequestFailed as error:
            raise LoadFailed(error.code, str(error)) from error
    return number


def _records(file: Path) -> Iterator[bytes]:
    try:
        yield from map(bytes, records(file))
    except Malformed as error:
        text = f"corrupted record: {error}. Please verify your warmup data is in TFRecord format."
        raise LoadFailed(Code.DATA_LOSS, text) from error


def _replay(record: bytes, loaded: Loaded) -> None:
    """Run one record; one that names no kind of request passes.

    Raises:
        RequestFailed: the request failed, or the record cannot be parsed.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 (comes with TensorFlow)

    log = _prediction_log()()
    try:
        log.ParseFromString(record)
    except DecodeError as error:
        raise RequestFailed(Code.INVALID_ARGUMENT, "Failed to parse warmup record") from error
    if log.HasField("predict_log"):
        request = log.predict_log.request
        signature = _signature(request, loaded)
        tf = tensorflow()
        tensors = {item.key: tf.make_ndarray(item.value) for item in request.inputs}
        if tensors.keys() != signature.inputs.keys():
            raise RequestFailed(Code.INVALID_ARGUMENT, f"the inputs must be {sorted(signature.inputs)}")
        loaded.run(signature, tensors)
    for kind in ("classify_log", "regress_log"):
        if log.HasField(kind):
            _run_examples(getattr(log, kind).request, loaded)
    for kind in ("multi_inference_log", "session_run_log", "predict_streamed_log"):
        if log.HasField(kind):
            raise RequestFailed(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _run_examples(request: Any, loaded: Loaded) -> None:  # noqa: ANN401 (made at run time)
    """Run a signature whose one input is a batch of serialized `tf.Example`."""
    import numpy as np  # noqa: PLC0415 (comes with TensorFlow)

    signature = _signature(request, loaded)
    examples = [example.SerializeToString() for example in request.input.example_list.examples]
    loaded.run(signature, dict.fromkeys(signature.inputs, np.array(examples, dtype=object)))


def _signature(request: Any, loaded: Loaded) -> Any:  # noqa: ANN401 (messages)
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in loaded.signatures:
        text = f'Serving signature name: "{name}" not found in signature def'
        raise RequestFailed(Code.INVALID_ARGUMENT, text)
    return loaded.signatures[name]


@cache
def _prediction_log() -> Any:  # noqa: ANN401 (a class of messages, made at run time)
    """Return the class of PredictionLog; on the wire, map entries are like any repeated message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415
    from tensorflow.core.example import example_pb2  # noqa: PLC0415 (puts its file into the pool)
    from tensorflow.core.framework import tensor_pb2  # noqa: PLC0415

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="servesync/standin/warmup.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[tensor_pb2.DESCRIPTOR.name, example_pb2.DESCRIPTOR.name],
    )
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = field_type.LABEL_REPEATED if kind.endswith("*") else field_type.LABEL_OPTIONAL
            bare = kind.removesuffix("*")
            if bare:
                added.type = field_type.TYPE_MESSAGE
                added.type_name = bare if bare.startswith(".") else f".{_PACKAGE}.{bare}"
            else:
                added.type = field_type.TYPE_STRING
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.PredictionLog"))
