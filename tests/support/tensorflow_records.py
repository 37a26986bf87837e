"""Writes and reads TFRecord files as TensorFlow does, and tells as JSON what it found. Run as a script.

Arguments: a folder, with files to read and, in `write.json`, records (hexadecimal) by the name of a file to
write first. Told of each file: its records, or the error; and the predict requests of those that hold some.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

SCHEMA = {
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {"name": (1, "string"), "version": (2, "Int64Value"), "signature_name": (3, "string")},
    "InputsEntry": {"key": (1, "string"), "value": (2, "Tensor")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "InputsEntry*")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
"""Of tensorflow_serving/apis/{prediction_log,predict,model}.proto, what a predict request has."""


def prediction_log() -> Any:
    """Return the class of PredictionLog."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, type_name) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = kind.LABEL_REPEATED if type_name.endswith("*") else kind.LABEL_OPTIONAL
            bare = type_name.removesuffix("*")
            if bare in {"string", "int64"}:
                added.type = kind.Type.Value(f"TYPE_{bare.upper()}")
            else:
                added.type = kind.TYPE_MESSAGE
                added.type_name = ".tensorflow.TensorProto" if bare == "Tensor" else f".t.{bare}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.PredictionLog"))


def requests_of(records: list[bytes]) -> list[dict[str, Any]]:
    """Return what the predict requests say, and what no field of theirs says."""
    found = []
    for record in records:
        log = Log.FromString(record)
        request = log.predict_log.request
        inputs = {}
        for item in request.inputs:
            array = tf.make_ndarray(item.value)
            elements = np.array([str(element) for element in array.ravel()], dtype=object)
            values = elements.reshape(array.shape).tolist()
            inputs[item.key] = [tf.as_dtype(item.value.dtype).name, list(array.shape), values]
        spec = request.model_spec
        again = log.SerializeToString(deterministic=True)
        found.append(
            {"name": spec.name, "signature": spec.signature_name, "inputs": inputs, "same": again == record}
        )
    return found


def seen(file: Path) -> dict[str, Any]:
    """Return what a file holds."""
    try:
        if file.name.startswith("damaged"):  # by the reader itself: a dataset for each file takes seconds
            records = list(tf.compat.v1.io.tf_record_iterator(str(file)))
        else:
            records = [item.numpy() for item in tf.data.TFRecordDataset(str(file))]
    except tf.errors.OpError as error:
        return {"error": error.error_code}
    told: dict[str, Any] = {"records": [record.hex() for record in records]}
    if file.name.startswith("requests"):
        told["requests"] = requests_of(records)
    return told


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Log = prediction_log()
    for name, records in json.loads((folder / "write.json").read_text()).items():
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for record in records:
                writer.write(bytes.fromhex(record))
    json.dump(
        {file.name: seen(file) for file in sorted(folder.iterdir()) if file.suffix != ".json"}, sys.stdout
    )
