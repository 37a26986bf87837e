"""Writes models that the server loads and that do not answer, or that answer with something else.

Each takes `x` ([?, 1] floats) and gives `y`, as the models of the demo do.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
ELSEWHERE = "/data/training/words.txt"
"""A file of the machine on which the model was trained."""
ASKED = [[-1.0], [0.0], [2.5]]


def save(out: Path, work: Callable[[Any], Any], *, has_init_op: bool = False) -> None:
    """Save y = work(x). With an init op, tables are initialized while the server loads."""
    with v1.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": tf.identity(work(x), name="y")})
        builder = v1.saved_model.Builder(str(out))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={"serving_default": signature},
            assets_collection=graph.get_collection("assets") or None,
            main_op=v1.tables_initializer() if has_init_op else None,
        )
        builder.save()


def not_a_number(out: Path) -> None:
    """Every answer is NaN."""
    save(out, lambda x: x * float("nan"))


def hangs(out: Path) -> None:
    """A request waits, without using the processor, for a queue that nobody fills."""
    save(out, lambda x: x + v1.FIFOQueue(1, [tf.float32], shared_name="never_filled").dequeue())


def no_table(out: Path) -> None:
    """A request looks up a table that nothing has initialized."""

    def work(x: Any) -> Any:
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1.0]))
        with v1.init_scope():
            table = tf.lookup.StaticHashTable(pairs, 0.0)
        return x + table.lookup(tf.strings.as_string(x))

    save(out, work)


def words(path: str) -> Any:
    """Return a table of a file's lines and their numbers."""
    lines = tf.lookup.TextFileInitializer(path, tf.string, -2, tf.int64, -1)
    return v1.lookup.StaticHashTable(lines, -1)


def looked_up(table: Any, x: Any) -> Any:
    """Return x, and the numbers of its words."""
    return x + tf.cast(table.lookup(tf.strings.as_string(x)), tf.float32)


def table_of_an_asset(out: Path) -> None:
    """Sound: the server initializes a table from a file below `assets/`, which a test can leave out."""
    path = out.parent / "words.txt"
    path.write_text("1.000000\n")

    def work(x: Any) -> Any:
        table = words(str(path))
        v1.add_to_collection("assets", v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)[0])
        return looked_up(table, x)

    save(out, work, has_init_op=True)


def table_elsewhere(out: Path) -> None:
    """The server initializes a table from a file of another machine, which no asset brings along."""
    save(out, lambda x: looked_up(words(ELSEWHERE), x), has_init_op=True)


def table_on_first_use(out: Path) -> None:
    """The same, but the first request initializes it."""

    def work(x: Any) -> Any:
        table = words(ELSEWHERE)
        with tf.control_dependencies([table.initializer]):
            return looked_up(table, tf.identity(x))

    save(out, work)


class Line(tf.Module):  # type: ignore[misc]
    """y = slope * x + start."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = tf.Variable(0.0, name="slope")
        self.start = tf.Variable(0.0, name="start")

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> Any:
        """Answer a request."""
        return {"y": self.slope * x + self.start}


def trained(out: Path, slope: float, start: float) -> Line:
    """Train a line on points of another one, and save it."""
    x = tf.linspace([-1.0], [1.0], 64)
    model = Line()
    for _ in range(200):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model.serve(x)["y"] - (slope * x + start)) ** 2)
        pairs = zip(model.variables, tape.gradient(loss, model.variables), strict=True)
        for variable, gradient in pairs:
            variable.assign_sub(0.1 * gradient)
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})
    return model


def weights(out: Path) -> None:
    """Write a version with golden requests to `true`, and one with the variables of another training."""
    model = trained(out / "true", 3.0, 2.0)
    trained(out / "other", 1.0, -4.0)
    answers = model.serve(tf.constant(ASKED))["y"].numpy().tolist()
    golden = {
        "schema": "servesync.golden/1",
        "requests": [
            {"inputs": {"x": [x]}, "outputs": {"y": [y]}} for x, y in zip(ASKED, answers, strict=True)
        ],
    }
    extra = out / "true/assets.extra"
    extra.mkdir()
    (extra / "servesync_golden.json").write_text(json.dumps(golden))
    shutil.copytree(out / "true", out / "swapped")
    shutil.rmtree(out / "swapped/variables")
    shutil.copytree(out / "other/variables", out / "swapped/variables")


KINDS = [
    not_a_number,
    hangs,
    no_table,
    table_of_an_asset,
    table_elsewhere,
    table_on_first_use,
    weights,
]


def main(out: Path) -> None:
    """Write all of them below a folder."""
    for kind in KINDS:
        kind(out / kind.__name__)
