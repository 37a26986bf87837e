"""Writes a SavedModel whose init op waits for a pipe: `python make_hanging.py OUT PIPE`.

Whoever loads it hangs, without using the processor, until somebody reads from the pipe.
"""

import sys

import tensorflow as tf

v1 = tf.compat.v1


def main() -> None:
    """Save y = x + 1 for whoever gets as far as that."""
    out, pipe = sys.argv[1:]
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.add(x, 1.0, name="y")
        wait = tf.io.write_file(pipe, "x")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(out)
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map={"serving_default": signature}, main_op=wait
        )
        builder.save()


if __name__ == "__main__":
    main()
