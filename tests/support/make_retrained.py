"""Writes a model and its successor, whose head was trained on."""

from pathlib import Path
from typing import Any

import tensorflow as tf

LAYERS = 57
HEADS = 3
WIDTH = 512


class Tower(tf.Module):  # type: ignore[misc]
    """Many layers of 1 MiB, and a head of three."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.layers = [
            tf.Variable(tf.random.stateless_normal([WIDTH, WIDTH], seed=[1, n]), name=f"layer_{n:02}")
            for n in range(LAYERS)
        ]
        self.head = [
            tf.Variable(tf.random.stateless_normal([WIDTH, WIDTH], seed=[2 + extra, n]), name=f"head_{n}")
            for n in range(HEADS)
        ]

    @tf.function(input_signature=[tf.TensorSpec([None, WIDTH], tf.float32)])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> Any:
        """Answer a request."""
        for layer in self.layers + self.head:
            x = tf.nn.relu(x @ layer)
        return {"y": x}


def main(out: Path) -> None:
    """Write both."""
    for number in (1, 2):
        model = Tower(number)
        signatures = {"serving_default": model.serve}
        tf.saved_model.save(model, str(out / str(number)), signatures=signatures)
