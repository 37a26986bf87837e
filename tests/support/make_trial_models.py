"""Writes models that the server loads and that do not answer.

Each takes `x` ([?, 1] floats) and gives `y`, as the models of the demo do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def save(out: Path, work: Callable[[Any], Any]) -> None:
    """Save y = work(x), without an init op."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": tf.identity(work(x), name="y")})
        builder = v1.saved_model.Builder(str(out))
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map={"serving_default": signature}
        )
        builder.save()


def not_a_number(x: Any) -> Any:
    """Every answer is NaN."""
    return x * float("nan")


def hangs(x: Any) -> Any:
    """A request waits, without using the processor, for a queue that nobody fills."""
    return x + v1.FIFOQueue(1, [tf.float32], shared_name="never_filled").dequeue()


def no_table(x: Any) -> Any:
    """A request looks up a table that nothing has initialized."""
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1.0]))
    with v1.init_scope():
        table = tf.lookup.StaticHashTable(pairs, 0.0)
    return x + table.lookup(tf.strings.as_string(x))


def main(out: Path) -> None:
    """Write all of them below a folder."""
    for work in (not_a_number, hangs, no_table):
        save(out / work.__name__, work)
