"""The only module besides the demo that imports TensorFlow, which takes seconds and half a GB."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any, Final

tempfile.tempdir = "/nonexistent"  # TensorFlow asks for the place, and finding one would write a file

import tensorflow as tf  # noqa: E402

from servesync.verify.answer import argument_name  # noqa: E402
from servesync.verify.compare import decoded  # noqa: E402

THREADS: Final = 4
tf.config.threading.set_intra_op_parallelism_threads(min(THREADS, os.cpu_count() or 1))
tf.config.threading.set_inter_op_parallelism_threads(2)
# set before a library is imported: once it has run an operation, TensorFlow refuses to change these numbers

VERSION: Final[str] = tf.__version__
_OUT_OF_MEMORY: Final = ("Cannot allocate memory", "bad_alloc", "OOM when allocating")


def load(root: str) -> Any:  # noqa: ANN401 (a loaded model has no type of its own)
    """Return the graph with the tag `serve` of the SavedModel in `root`."""
    return tf.saved_model.load(root, tags=["serve"])


def signatures(loaded: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what the loaded signatures take and give, as `settings.Signature` has it."""
    return {
        name: {
            "inputs": _specs(function.structured_input_signature[1]),
            "outputs": _specs(function.structured_outputs),
        }
        for name, function in loaded.signatures.items()
    }


def run(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Call one signature with values as a golden request has them; return its outputs as nested lists."""
    specs = function.structured_input_signature[1]
    tensors = {}
    for name, value in inputs.items():
        argument = name if name in specs else argument_name(name)
        is_text = specs[argument].dtype == tf.string
        tensors[argument] = tf.constant(decoded(value, text=is_text), dtype=specs[argument].dtype)
    return {name: _plain(tensor) for name, tensor in function(**tensors).items()}


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error was caused by a lack of memory."""
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return True
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _specs(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _spec(tensor) for name, tensor in named.items()}


def _spec(tensor: Any) -> dict[str, Any]:  # noqa: ANN401
    """Describe one input or output; older graphs give tensors where others give a TensorSpec."""
    shape = None if tensor.shape.rank is None else tensor.shape.as_list()
    dense = isinstance(tensor, tf.TensorSpec | tf.Tensor)
    return {
        "dtype": tensor.dtype.base_dtype.name,
        "shape": shape,
        "encoding": "dense" if dense else "composite",
    }


def _plain(tensor: Any) -> Any:  # noqa: ANN401
    if tensor.dtype.is_floating:
        tensor = tf.cast(tensor, tf.float64)
    value = tensor.numpy()
    return value.tolist() if hasattr(value, "tolist") else value
