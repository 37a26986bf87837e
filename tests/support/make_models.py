"""Writes real SavedModels with TensorFlow, one folder a kind. Run as a script: `make_models.py OUT`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ODD_NAME = """größe (v2), 100% 'neu': "a"&b #1 ~[bold] {x} <y>|*?!$`;^ 語彙🙂.txt"""


def plain_module(out: Path) -> None:
    """A tf.Module with two variables."""

    class Linear(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.random.normal([50, 20], seed=1), name="weight")
            self.bias = tf.Variable(tf.zeros([20]), name="bias")

        @tf.function(input_signature=[tf.TensorSpec([None, 50], tf.float32)])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": x @ self.weight + self.bias}

    model = Linear()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def keras_export(out: Path) -> None:
    """A Keras model, exported as Keras does it."""
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(8), tf.keras.layers.Dense(1)])
    model.export(str(out), verbose=False)


def string_assets(out: Path, name: str = "vocabulary.txt") -> None:
    """A lookup table from an asset file, and a variable of strings."""
    vocabulary = out.parent / name
    vocabulary.write_text("yes\nno\nperhaps\n")

    class Words(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            source = tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.table = tf.lookup.StaticHashTable(source, -1)
            self.names = tf.Variable([b"first", b"", b"third" * 100], name="names")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def serve(self, words: Any) -> Any:
            return {"ids": self.table.lookup(words), "names": self.names.read_value()}

    model = Words()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def odd_asset(out: Path) -> None:
    """A lookup table from an asset file whose name has whatever a name may have."""
    string_assets(out, ODD_NAME)


def several_shards(out: Path) -> None:
    """Variables on two devices, saved by a sharding saver, give two shards."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 300], name="x")
        with v1.device("/cpu:0"):
            one = v1.get_variable("one", [300, 30], initializer=v1.random_normal_initializer(seed=2))
        with v1.device("/cpu:1"):
            two = v1.get_variable("two", [30, 30], initializer=v1.random_normal_initializer(seed=3))
        y = x @ one @ two
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(out))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, saver=v1.train.Saver(sharded=True)
        )
        builder.save()


def without_variables(out: Path) -> None:
    """A graph of the first TensorFlow's kind, with neither variables nor saver."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": x * 2.0})


def partitioned(out: Path) -> None:
    """A variable cut into three slices."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 31], name="x")
        weight = v1.get_variable(
            "weight",
            [31, 5],
            initializer=v1.random_normal_initializer(seed=4),
            partitioner=v1.fixed_size_partitioner(3),
        )
        y = tf.matmul(x, tf.convert_to_tensor(weight))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": y})


def many_types(out: Path) -> None:
    """Tensors of many types, an empty one and a scalar among them."""

    class Types(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            kinds = [
                tf.float16,
                tf.bfloat16,
                tf.float64,
                tf.int8,
                tf.int16,
                tf.int64,
                tf.uint8,
                tf.complex64,
                tf.bool,
            ]
            self.all = [tf.Variable(tf.cast([1, 0, 1], kind)) for kind in kinds]
            self.empty = tf.Variable(tf.zeros([0, 5]))
            self.scalar = tf.Variable(7)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": x + self.scalar}

    model = Types()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def more_types(out: Path) -> None:
    """Types that are rarely saved: four bits, eight-bit floats, unsigned and wide ones."""

    class Types(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            kinds = [
                tf.dtypes.experimental.int4,
                tf.dtypes.experimental.uint4,
                tf.uint16,
                tf.uint32,
                tf.uint64,
                tf.complex128,
                tf.dtypes.experimental.float8_e5m2,
                tf.dtypes.experimental.float8_e4m3fn,
            ]
            values = np.array([1, 0, 3])
            self.all = [tf.Variable(values.astype(kind.as_numpy_dtype)) for kind in kinds]
            self.truth = tf.Variable([[True, False], [False, True]])
            self.empty_strings = tf.Variable(tf.zeros([0], tf.string))
            self.empty_bools = tf.Variable(tf.zeros([3, 0, 2], tf.bool))

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": x + 1}

    model = Types()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def long_strings(out: Path) -> None:
    """Strings whose lengths take one, two, three and four bytes."""

    class Strings(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            sizes = [0, 1, 127, 128, 16_383, 16_384, 70_000, 2_100_000, 3]
            self.texts = tf.Variable([bytes([65 + i]) * size for i, size in enumerate(sizes)])
            self.scalar = tf.Variable(b"x" * 65_537)
            self.after = tf.Variable([1.5, 2.5])

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": x + tf.size(self.texts)}

    model = Strings()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def stateless_module(out: Path) -> None:
    """A tf.Module without variables: it has a saver all the same, and a checkpoint of the object graph."""

    class Twice(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": 2 * x}

    model = Twice()
    tf.saved_model.save(model, str(out), signatures={"serving_default": model.serve})


def reference_variables(out: Path) -> None:
    """Variables of the first TensorFlow's kind, which are no resources."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        scale = v1.get_variable("scale", initializer=2.0, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": x * scale})


def partitioned_twice(out: Path) -> None:
    """Variables cut along another axis, and one with a name that sorts badly."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        wide = v1.get_variable(
            "wide",
            [3, 300],
            initializer=v1.random_normal_initializer(seed=5),
            partitioner=v1.fixed_size_partitioner(4, axis=1),
        )
        long = v1.get_variable(
            "a/b-c.d/long",
            [20_000],
            initializer=v1.zeros_initializer(),
            partitioner=v1.fixed_size_partitioner(7),
        )
        y = tf.matmul(x, tf.convert_to_tensor(wide)) + tf.reduce_sum(tf.convert_to_tensor(long))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(out), {"x": x}, {"y": y})


def on_request(out: Path) -> None:
    """A model that does what it is asked for: also to run for ever, to fail, to fill the memory, to write."""

    class OnRequest(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable([2.0, -1.0], name="factor")

        @tf.function(input_signature=[tf.TensorSpec([None, 2])])  # type: ignore[untyped-decorator]
        def multiply(self, x: Any) -> Any:
            return {"y": x * self.factor}

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])  # type: ignore[untyped-decorator]
        def spin(self, times: Any) -> Any:
            return {"y": tf.while_loop(lambda i: i < times, lambda i: [i + 1], [tf.constant(0, tf.int64)])[0]}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # type: ignore[untyped-decorator]
        def fail(self, words: Any) -> Any:
            with tf.control_dependencies([tf.debugging.Assert(words == "good", [words])]):
                return {"y": tf.identity(words)}

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])  # type: ignore[untyped-decorator]
        def grow(self, size: Any) -> Any:
            return {"y": tf.reduce_sum(tf.sort(tf.range(size)))}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # type: ignore[untyped-decorator]
        def write(self, path: Any) -> Any:
            with tf.control_dependencies([tf.io.write_file(path, "x")]):
                return {"y": tf.identity(path)}

        @tf.function(input_signature=[tf.TensorSpec([None]), tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def divide(self, x: Any, words: Any) -> Any:
            return {"y": x / 0.0, "same": words, "sizes": tf.strings.length(words), "is_long": x > 1.0}

    model = OnRequest()
    names = ("multiply", "spin", "fail", "grow", "write", "divide")
    named = {name: getattr(model, name) for name in names}
    tf.saved_model.save(model, str(out), signatures=named)


def saved_keras(out: Path) -> None:
    """A Keras model that answers in Python only: the server restores other variables than requests read."""
    tf.saved_model.save(_keras_of_numbers(tf.keras.layers.Dense(1)), str(out))


def saved_keras_in_module(out: Path) -> None:
    """The same, as a part of something else."""
    model = _keras_of_numbers(tf.keras.layers.Dense(1))
    module = tf.Module()
    module.model = model
    module.answer = tf.function(lambda x: {"y": model(x)}, input_signature=[tf.TensorSpec([None], name="x")])
    tf.saved_model.save(module, str(out), signatures=module.answer)


def saved_recurrent_keras(out: Path) -> None:
    """The same, where all variables are read in a loop."""
    tf.saved_model.save(_keras_of_numbers(tf.keras.layers.LSTM(1)), str(out))


def _keras_of_numbers(layer: Any) -> Any:
    """Return a model of a row of numbers."""
    shape = tf.keras.layers.Reshape((1, 1) if isinstance(layer, tf.keras.layers.LSTM) else (1,))
    return tf.keras.Sequential([tf.keras.Input((), name="x"), shape, layer])


KINDS = [
    plain_module,
    keras_export,
    string_assets,
    odd_asset,
    several_shards,
    without_variables,
    partitioned,
    many_types,
    more_types,
    long_strings,
    stateless_module,
    reference_variables,
    partitioned_twice,
    on_request,
    saved_keras,
    saved_keras_in_module,
    saved_recurrent_keras,
]


def two_devices() -> None:
    """Cut the processor in two, for the model that has variables on both."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in KINDS:
        kind(out / kind.__name__)


if __name__ == "__main__":
    two_devices()
    main(Path(sys.argv[1]))
