"""Writes graphs of TensorFlow 1 that restore nothing or name assets.

All take the tensor `x` and give `y`. Most keep what they know in local variables and tables, which no
checkpoint holds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def local(*, resource: bool = True) -> Any:
    """Return a local variable that begins with 3."""
    local_only = [v1.GraphKeys.LOCAL_VARIABLES]
    return v1.get_variable("w", initializer=3.0, collections=local_only, use_resource=resource)


def kept() -> Any:
    """Return a variable that begins with 1, which is restored from the checkpoint."""
    return v1.get_variable("kept", initializer=1.0)


def save(
    out: Path, work: Callable[[Any], Any], start: Callable[[], Any] | None, dtype: Any = tf.float32
) -> None:
    """Write a graph that computes `work` and is initialized by the operation that `start` returns."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(dtype, [None], name="x")
        y = tf.identity(work(x), name="y")
        session.run(
            [v1.global_variables_initializer(), v1.local_variables_initializer(), v1.tables_initializer()]
        )
        v1.saved_model.simple_save(
            session, str(out), {"x": x}, {"y": y}, legacy_init_op=start() if start else None
        )


def local_variable(out: Path) -> None:
    """Good: the init op sets it."""
    save(out, lambda x: x * local(), v1.local_variables_initializer)


def local_reference(out: Path) -> None:
    """Good: the same in the older form."""
    save(out, lambda x: x * local(resource=False), v1.local_variables_initializer)


def main_op(out: Path) -> None:
    """Good: the init op that most exporters took, which sets all that there is."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.multiply(x, local(), name="y")
        session.run(v1.local_variables_initializer())
        builder = v1.saved_model.Builder(str(out))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        everything = v1.saved_model.main_op.main_op()
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=everything
        )
        builder.save()


def initialized_in_function(out: Path) -> None:
    """Good: the init op calls a function, which sets it."""
    made: list[Any] = []

    def work(x: Any) -> Any:
        made.append(local())
        return x * made[0]

    @tf.function  # type: ignore[untyped-decorator]
    def begin() -> Any:
        made[0].assign(3.0)
        return tf.constant(1)

    save(out, work, lambda: tf.group(begin()))


def uncollected(out: Path) -> None:
    """Good: a variable that no collection lists, so that there is no saver, and an init op of its own."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        variable = v1.get_variable("w", initializer=3.0, collections=[])
        y = tf.multiply(x, variable, name="y")
        session.run(variable.initializer)
        start = tf.group(variable.initializer)
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": y}, legacy_init_op=start)


def unread(out: Path) -> None:
    """Good: no request reads the variable, which counted something while the model was trained."""
    save(out, lambda x: (local(), x * 3.0)[1], None)


def metric(out: Path) -> None:
    """Good: requests add to local variables, which begin with what the init op sets."""

    def work(x: Any) -> Any:
        _, update = v1.metrics.mean(x)
        with tf.control_dependencies([update]):
            return x * 3.0

    save(out, work, v1.local_variables_initializer)


def scratch(out: Path) -> None:
    """Good: each request sets the variable before it reads it."""

    def work(x: Any) -> Any:
        variable = local()
        with tf.control_dependencies([variable.assign(3.0)]):
            return x * variable.read_value()

    save(out, work, None)


def table(out: Path) -> None:
    """Good: a table whose keys and values are constants of the graph."""

    def work(x: Any) -> Any:
        pairs = tf.lookup.KeyValueTensorInitializer(["1", "2"], [3.0, 6.0])
        return v1.lookup.StaticHashTable(pairs, -1.0).lookup(x)

    save(out, work, v1.tables_initializer, tf.string)


def filled_table(out: Path) -> None:
    """Good: a table that is kept in a checkpoint, though there is no variable."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], name="x")
        kept = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, -1.0)
        session.run(kept.insert(tf.constant(["1", "2"]), tf.constant([3.0, 6.0])))
        y = tf.identity(kept.lookup(x), name="y")
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": y})


def vocabulary(out: Path) -> None:
    """Good: a table from an asset file."""
    path = out.parent / "old words.txt"
    path.write_text("1\n2\n")
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], name="x")
        lines = tf.lookup.TextFileInitializer(str(path), tf.string, -2, tf.int64, -1)
        found = v1.lookup.StaticHashTable(lines, -1).lookup(x)
        y = tf.identity(tf.cast(found + 1, tf.float32) * 3.0, name="y")
        session.run(v1.tables_initializer())
        v1.saved_model.simple_save(
            session, str(out), {"x": x}, {"y": y}, legacy_init_op=v1.tables_initializer()
        )


def set_when_asked(out: Path) -> None:
    """Good: the first request sets the variable, in a branch."""

    def work(x: Any) -> Any:
        variable = local()
        is_set = v1.is_variable_initialized(variable)
        return x * tf.cond(is_set, variable.read_value, lambda: variable.assign(3.0))

    save(out, work, None)


def set_in_call(out: Path) -> None:
    """Good: each request sets the variable, in a function."""

    def work(x: Any) -> Any:
        variable = local()

        @tf.function  # type: ignore[untyped-decorator]
        def multiply(x: Any) -> Any:
            variable.assign(3.0)
            return x * variable

        return multiply(x)

    save(out, work, None)


def read_in_training(out: Path) -> None:
    """Good: only a branch that no request takes reads the variable."""

    def work(x: Any) -> Any:
        variable = local()
        training = v1.placeholder_with_default(False, [])
        return 3.0 * tf.cond(training, lambda: x * variable, lambda: x)

    save(out, work, None)


def beside_restored(out: Path) -> None:
    """Good: a variable that is restored, and one that the init op sets."""
    save(out, lambda x: x * local() * kept(), v1.local_variables_initializer)


def default_signature_only(out: Path) -> None:
    """Good: what requests ask by default; the other signature reads what nothing sets."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.multiply(x, 3.0, name="y")
        other = v1.saved_model.predict_signature_def({"x": x}, {"y": x * local()})
        session.run(v1.local_variables_initializer())
        builder = v1.saved_model.Builder(str(out))
        default = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": default, "evaluate": other}
        )
        builder.save()


def uninitialized(out: Path) -> None:
    """Bad: nothing sets the variable."""
    save(out, lambda x: x * local(), None)


def only_tables_initialized(out: Path) -> None:
    """Bad: the init op sets tables, and no variable."""
    save(out, lambda x: x * local(), v1.tables_initializer)


def unset_beside_restored(out: Path) -> None:
    """Bad: the saver restores one variable, and nothing sets the other."""
    save(out, lambda x: x * local() * kept(), None)


def read_in_call(out: Path) -> None:
    """Bad: a function reads what nothing sets."""

    def work(x: Any) -> Any:
        variable = local()
        return tf.function(lambda x: x * variable)(x)

    save(out, work, None)


def read_in_loop(out: Path) -> None:
    """Bad: a loop reads what nothing sets."""

    def work(x: Any) -> Any:
        variable = local()
        return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * variable), [0, x])[1]

    save(out, work, None)


def counter(out: Path) -> None:
    """Bad: each request adds to a variable that has no value."""
    save(out, lambda x: x * local().assign_add(1.0), None)


def hanging(out: Path) -> None:
    """Neither: whoever loads it waits for ever, without using the processor."""
    save(out, lambda x: x * 3.0, lambda: v1.FIFOQueue(1, [tf.float32]).dequeue().op)


GOOD = [
    local_variable,
    local_reference,
    main_op,
    initialized_in_function,
    uncollected,
    unread,
    metric,
    scratch,
    table,
    filled_table,
    vocabulary,
    set_when_asked,
    set_in_call,
    read_in_training,
    beside_restored,
    default_signature_only,
]
BAD = [
    uninitialized,
    only_tables_initialized,
    unset_beside_restored,
    read_in_call,
    read_in_loop,
    counter,
]


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in [*GOOD, *BAD, hanging]:
        kind(out / kind.__name__)
