"""What TensorFlow reads. Run as a script: `tensorflow_view.py`; JSON in, JSON out.

The input is an object with a list of `checkpoints` and one of `messages`, and so is the answer. For each
message it has the numbers of the fields by their names in capitals. For each checkpoint it has every tensor
that TensorFlow lists: its type, shape, and either the masked CRC32C of the value that it read, computed here
from the value alone, or the error with which it refused. Values are read with the operation by which the
server restores them, one at a time: after a wrong checksum TensorFlow's reader of checkpoints kills the
process when it is asked again.
"""

import json
import struct
import sys
from typing import Any

import google_crc32c
import tensorflow as tf
from google.protobuf import any_pb2, descriptor_pool
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

DESCRIBED = (any_pb2, saved_model_pb2, tensor_bundle_pb2)
"""What makes the messages known."""


def masked_crc(value: Any, *, strings: bool) -> int:
    """Return the checksum that belongs into the index."""
    data = value.tobytes() if not strings else b""
    if strings:
        texts = [value] if isinstance(value, bytes) else list(value.ravel())
        lengths = b"".join(struct.pack("<I", len(text)) for text in texts)
        data = lengths + struct.pack("<I", masked(google_crc32c.value(lengths))) + b"".join(texts)
    return masked(google_crc32c.value(data))


def masked(crc: int) -> int:
    """Return a checksum as TensorFlow stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def view(prefix: str) -> dict[str, Any]:
    """Return what TensorFlow finds in one checkpoint."""
    reader = tf.train.load_checkpoint(prefix)
    types = reader.get_variable_to_dtype_map()
    found: dict[str, Any] = {}
    for name, shape in reader.get_variable_to_shape_map().items():
        found[name] = {"dtype": types[name].as_datatype_enum, "shape": shape}
        try:
            [tensor] = tf.raw_ops.RestoreV2(
                prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[types[name]]
            )
        except tf.errors.OpError as error:
            found[name]["error"] = f"{type(error).__name__}: {error.message}"
        else:
            value = tensor.numpy()
            found[name]["crc"] = masked_crc(value, strings=types[name] == tf.string)
    return found


def numbers(message: str) -> dict[str, int]:
    """Return the numbers of a message's fields."""
    found = descriptor_pool.Default().FindMessageTypeByName(message)
    return {field.name.upper(): field.number for field in found.fields}


def main() -> None:
    """Look at everything in the input."""
    asked = json.load(sys.stdin)
    checkpoints = {prefix: view(prefix) for prefix in asked["checkpoints"]}
    messages = {name: numbers(name) for name in asked["messages"]}
    json.dump({"checkpoints": checkpoints, "messages": messages}, sys.stdout)


if __name__ == "__main__":
    main()
