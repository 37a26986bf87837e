"""Trains and exports the two small models of the demo. Run as a script: it imports TensorFlow."""

import sys
from pathlib import Path
from typing import Any, Final

STEPS: Final = {1: 8, 2: 400}
"""Training steps of each version: too few for y = 2x + 1 in the first, enough in the second."""


def export_demo_models(out: Path) -> list[Path]:
    """Write version 1 and 2 as SavedModels to `out/1` and `out/2`; return these directories."""
    import tensorflow as tf  # noqa: PLC0415 (only ever in a process of its own)

    class Line(tf.Module):  # type: ignore[misc]
        """y = slope * x + start, and a table of its training history that gives the model some size."""

        def __init__(self) -> None:
            super().__init__()
            self.slope = tf.Variable(0.0, name="slope")
            self.start = tf.Variable(0.0, name="start")
            self.history = tf.Variable(tf.random.normal([512, 512], seed=1), name="history", trainable=False)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:  # noqa: ANN401
            return {"y": self.slope * x + self.start}

    x = tf.linspace([-1.0], [1.0], 64)
    y = 2.0 * x + 1.0
    made = []
    for version, steps in STEPS.items():
        model = Line()
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model.slope * x + model.start - y) ** 2)
            for variable, gradient in zip(
                (model.slope, model.start), tape.gradient(loss, (model.slope, model.start)), strict=True
            ):
                variable.assign_sub(0.05 * gradient)
        folder = out / str(version)
        tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
        made.append(folder)
    return made


if __name__ == "__main__":
    export_demo_models(Path(sys.argv[1]))
