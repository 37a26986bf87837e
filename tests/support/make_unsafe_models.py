"""Writes SavedModels that do more than compute, and some that only look so."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

LONG = os.environ.get("LONG_TESTS") == "1"
NAMES = tf.TensorSpec([], tf.string)


class Served(tf.Module):  # type: ignore[misc]
    """A module whose only signature calls `work` on a string; `more` is saved with it."""

    def __init__(self, work: Callable[[Any], Any], more: Any = None) -> None:
        super().__init__()
        self.work = work
        self.more = more

    @tf.function(input_signature=[NAMES])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> Any:
        """Answer a request."""
        return {"y": self.work(x)}


def save(out: Path, work: Callable[[Any], Any], more: Any = None) -> None:
    """Write one model."""
    model = Served(work, more)
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def read_file(out: Path) -> None:
    """A file of the client's choice is returned."""
    save(out, tf.io.read_file)


def read_in_branch(out: Path) -> None:
    """The same, in one branch of a condition inside of a loop."""

    def work(x: Any) -> Any:
        def step(index: Any, text: Any) -> Any:
            return index + 1, tf.cond(index > 1, lambda: tf.io.read_file(text), lambda: text)

        return tf.while_loop(lambda index, _: index < 3, step, [0, x])[1]

    save(out, work)


def write_in_called_function(out: Path) -> None:
    """A function that is called writes, and no output needs it."""

    @tf.function(input_signature=[NAMES])  # type: ignore[untyped-decorator]
    def log(x: Any) -> Any:
        tf.io.write_file("/tmp/requests.txt", x)
        return x

    save(out, log)


def write_at_init(out: Path) -> None:
    """A file is written when the server loads the model."""

    class Log(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file("/tmp/loaded.txt", "loaded")

    with tf.init_scope():
        log = Log()
        log.resource_handle  # noqa: B018 (makes the resource)

    def work(x: Any) -> Any:
        size = tf.raw_ops.LookupTableSizeV2(table_handle=log.resource_handle)
        return tf.strings.join([x, tf.strings.as_string(size)])

    save(out, work, log)


def python_function(out: Path) -> None:
    """A function of the server's Python, if it had one."""
    save(out, lambda x: tf.py_function(lambda value: value, [x], tf.string))


def text_lines(out: Path) -> None:
    """A data set of lines, reduced by a function."""
    save(out, lambda x: tf.data.TextLineDataset(x).reduce(b"", lambda old, new: old + new))


def mapped_read(out: Path) -> None:
    """A function that a data set maps reads files."""
    save(
        out,
        lambda x: (
            tf.data.Dataset.from_tensors(x).map(tf.io.read_file).reduce(b"", lambda old, new: old + new)
        ),
    )


def print_to_file(out: Path) -> None:
    """A file is appended to by printing."""

    def work(x: Any) -> Any:
        tf.print(x, output_stream="file:///tmp/printed.txt")
        return x

    save(out, work)


def print_to_stderr(out: Path) -> None:
    """Nothing to report: it prints where the server logs."""

    def work(x: Any) -> Any:
        tf.print(x)
        return x

    save(out, work)


def unused_function(out: Path) -> None:
    """Nothing to report: the server leads to no function that reads."""

    @tf.function(input_signature=[NAMES])  # type: ignore[untyped-decorator]
    def unused(x: Any) -> Any:
        return tf.io.read_file(x)

    save(out, tf.strings.lower, unused)


def vocabulary_layer(out: Path) -> None:
    """Nothing to report: Keras looks strings up that it was given in a file."""
    vocabulary = out.parent / "words.txt"
    vocabulary.write_text("yes\nno\nperhaps\n")
    words = tf.keras.Input((1,), dtype=tf.string)
    ids = tf.keras.layers.StringLookup(vocabulary=str(vocabulary))(words)
    tf.keras.Model(words, ids).export(str(out), verbose=False)


def table_in_tf1(out: Path) -> None:
    """Nothing to report: a graph of TensorFlow 1, with its own saver, init op and vocabulary."""
    vocabulary = out.parent / "old.txt"
    vocabulary.write_text("yes\nno\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        asset = tf.constant(str(vocabulary))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        source = tf.lookup.TextFileInitializer(asset, tf.string, 1 - 3, tf.int64, -1)
        table = v1.lookup.StaticHashTable(source, -1)
        weight = v1.get_variable("weight", [2], use_resource=False)
        words = v1.placeholder(tf.string, [None])
        found = tf.cast(table.lookup(words), tf.float32) + weight[0]
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(out), {"words": words}, {"found": found}, legacy_init_op=v1.tables_initializer()
        )


def hundred_layers(out: Path) -> None:
    """Nothing to report: a convolutional network with about a hundred layers, or twenty in the short form."""
    image = last = tf.keras.Input((32, 32, 3))
    last = tf.keras.layers.Conv2D(8, 3, padding="same")(last)
    for _ in range(24 if LONG else 4):
        branch = tf.keras.layers.Conv2D(8, 3, padding="same")(last)
        branch = tf.keras.layers.BatchNormalization()(branch)
        branch = tf.keras.layers.ReLU()(branch)
        last = tf.keras.layers.Add()([last, branch])
    last = tf.keras.layers.GlobalAveragePooling2D()(last)
    tf.keras.Model(image, tf.keras.layers.Dense(10)(last)).export(str(out), verbose=False)


KINDS = [
    read_file,
    read_in_branch,
    write_in_called_function,
    write_at_init,
    python_function,
    text_lines,
    mapped_read,
    print_to_file,
    print_to_stderr,
    unused_function,
    vocabulary_layer,
    table_in_tf1,
    hundred_layers,
]


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in KINDS:
        kind(out / kind.__name__)
