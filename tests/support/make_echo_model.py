"""Writes a SavedModel whose operation TensorFlow itself does not have."""

from pathlib import Path
from typing import Any

import tensorflow as tf

import operation_module


class Echo(tf.Module):  # type: ignore[misc]
    """Gives back what it is asked, by the operation of `operation_module`."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> Any:
        """Answer a request."""
        graph = tf.compat.v1.get_default_graph()
        made = graph.create_op(operation_module.NAME.decode(), [x], [tf.float32])
        return {"y": tf.ensure_shape(made.outputs[0], [None])}


def main(out: Path) -> None:
    """Write it into a folder."""
    model = Echo()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})
