"""Writes models that take `tf.Example` messages and are asked by `:classify` or `:regress`.

They are made as TensorFlow's estimators make theirs: a graph of TensorFlow 1 that parses the examples, and
signatures of the methods classify and regress.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
Signatures = Mapping[str, Any]
DEFAULT = "serving_default"
REQUIRED = {
    "x": tf.io.FixedLenFeature([2], tf.float32),
    "n": tf.io.FixedLenFeature([], tf.int64),
    "word": tf.io.FixedLenFeature([], tf.string),
}
DEFAULTS = {
    "x": tf.io.FixedLenFeature([2], tf.float32, [0.5, 0.5]),
    "n": tf.io.FixedLenFeature([], tf.int64, 1),
    "word": tf.io.FixedLenFeature([], tf.string, "a"),
}
WEIGHTS = [[0.5, -0.5], [0.25, 1.0]]


def save(out: Path, make: Callable[[], Signatures], *, has_init_op: bool = True) -> None:
    """Save the signatures that are made; without an init op no table is initialized."""
    with v1.Graph().as_default(), v1.Session() as session:
        signatures = make()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(out))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map=signatures,
            main_op=v1.tables_initializer() if has_init_op else None,
        )
        builder.save()


def examples() -> Any:
    """Return the tensor of serialized examples."""
    return v1.placeholder(tf.string, [None], name="input_example_tensor")


def logits_of(parsed: Mapping[str, Any], weights: Any) -> Any:
    """Return what a linear layer makes of the features; a function has the operations in its body."""
    variable = v1.get_variable("weights", initializer=weights)
    words = tf.cast(tf.strings.length(parsed["word"]), tf.float32)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def squashed(x: Any) -> Any:
        return tf.math.softplus(x)

    sums = parsed["x"] @ variable + tf.cast(parsed["n"], tf.float32)[:, None]
    return squashed(sums + words[:, None])


def labels_of(scores: Any) -> Any:
    """Return the names of the classes, out of a table."""
    names = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), tf.constant(["no", "yes"]))
    table = v1.lookup.StaticHashTable(names, "?")
    return table.lookup(tf.tile(tf.constant([[0, 1]], tf.int64), [tf.shape(scores)[0], 1]))


def classifying(features: Mapping[str, Any], weights: Any = None, factor: float = 1.0) -> Signatures:
    """Return the signature of a classifier, whose scores are multiplied by a factor."""
    serialized = examples()
    scores = tf.nn.softmax(logits_of(tf.io.parse_example(serialized, features), weights or WEIGHTS)) * factor
    return {DEFAULT: v1.saved_model.classification_signature_def(serialized, labels_of(scores), scores)}


def regressing(features: Mapping[str, Any], factor: float = 1.0) -> Signatures:
    """Return the signature of a regressor, whose values are multiplied by a factor."""
    serialized = examples()
    values = logits_of(tf.io.parse_example(serialized, features), WEIGHTS)[:, :1] * factor
    return {DEFAULT: v1.saved_model.regression_signature_def(serialized, values)}


def classify(out: Path) -> None:
    """Every feature is required."""
    save(out, lambda: classifying(REQUIRED))


def classify_with_defaults(out: Path) -> None:
    """An example may be empty."""
    save(out, lambda: classifying(DEFAULTS))


def regress(out: Path) -> None:
    """Every feature is required."""
    save(out, lambda: regressing(REQUIRED))


def regress_with_defaults(out: Path) -> None:
    """An example may be empty."""
    save(out, lambda: regressing(DEFAULTS))


def scores_only(out: Path) -> None:
    """Classes without labels."""

    def make() -> Signatures:
        serialized = examples()
        scores = logits_of(tf.io.parse_example(serialized, REQUIRED), WEIGHTS)
        return {DEFAULT: v1.saved_model.classification_signature_def(serialized, None, scores)}

    save(out, make)


def labels_only(out: Path) -> None:
    """Classes without scores."""

    def make() -> Signatures:
        serialized = examples()
        scores = logits_of(tf.io.parse_example(serialized, REQUIRED), WEIGHTS)
        return {DEFAULT: v1.saved_model.classification_signature_def(serialized, labels_of(scores), None)}

    save(out, make)


def estimator(out: Path) -> None:
    """The three signatures of an estimator, over one graph."""

    def make() -> Signatures:
        found = dict(classifying(REQUIRED))
        graph = v1.get_default_graph()
        serialized = graph.get_tensor_by_name("input_example_tensor:0")
        scores = graph.get_tensor_by_name(found[DEFAULT].outputs["scores"].name)
        found["regression"] = v1.saved_model.regression_signature_def(serialized, scores[:, 1])
        found["predict"] = v1.saved_model.predict_signature_def(
            {"examples": serialized}, {"probabilities": scores}
        )
        return found

    save(out, make)


def many_features(out: Path) -> None:
    """Of variable length, of shapes with several dimensions, and lists of rows of any number."""

    def make() -> Signatures:
        features = {
            "sparse": tf.io.VarLenFeature(tf.int64),
            "ragged": tf.io.RaggedFeature(tf.float32),
            "square": tf.io.FixedLenFeature([2, 3], tf.float32),
            "rows": tf.io.FixedLenSequenceFeature([2], tf.float32, allow_missing=True),
            "tags": tf.io.FixedLenFeature([2], tf.string),
        }
        serialized = examples()
        parsed = tf.io.parse_example(serialized, features)
        counts = tf.cast(tf.sparse.reduce_sum(parsed["sparse"], 1), tf.float32)
        sums = tf.reduce_sum(parsed["square"], [1, 2]) + tf.reduce_sum(parsed["rows"], [1, 2])
        values = counts + sums + tf.reduce_sum(parsed["ragged"], 1)
        return {DEFAULT: v1.saved_model.regression_signature_def(serialized, values)}

    save(out, make)


def old_parser(out: Path) -> None:
    """The operation that exports had before TensorFlow 2.1."""

    def make() -> Signatures:
        serialized = examples()
        parsed = tf.raw_ops.ParseExample(
            serialized=serialized,
            names=tf.constant([], tf.string),
            sparse_keys=["sparse"],
            dense_keys=["x", "n"],
            dense_defaults=[tf.constant([], tf.float32), tf.constant([], tf.int64)],
            sparse_types=[tf.int64],
            dense_shapes=[[2], []],
        )
        values = tf.reduce_sum(parsed.dense_values[0], 1) + tf.cast(parsed.dense_values[1], tf.float32)
        return {DEFAULT: v1.saved_model.regression_signature_def(serialized, values)}

    save(out, make)


def hidden_parser(features: Mapping[str, Any], factor: float = 1.0) -> Signatures:
    """Return a signature of whose examples the graph does not tell the features: their keys are computed."""
    serialized = examples()
    parsed = tf.raw_ops.ParseExampleV2(
        serialized=serialized,
        names=tf.constant([], tf.string),
        sparse_keys=tf.constant([], tf.string),
        dense_keys=tf.strings.lower(tf.constant(["X"])),
        ragged_keys=tf.constant([], tf.string),
        dense_defaults=[tf.constant(features.get("x", []), tf.float32)],
        num_sparse=0,
        sparse_types=[],
        ragged_value_types=[],
        ragged_split_types=[],
        dense_shapes=[[1]],
    )
    values = parsed.dense_values[0] * factor
    return {DEFAULT: v1.saved_model.regression_signature_def(serialized, values)}


def hidden_features(out: Path) -> None:
    """Required features that a reader of the graph cannot know."""
    save(out, lambda: hidden_parser({}))


def classify_of_numbers(out: Path) -> None:
    """A classifier by its name only: its input are numbers, so that clients ask by `:predict`."""

    def make() -> Signatures:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        inputs = {"inputs": v1.saved_model.build_tensor_info(x)}
        outputs = {"scores": v1.saved_model.build_tensor_info(tf.nn.softmax(x))}
        method = "tensorflow/serving/classify"
        return {DEFAULT: v1.saved_model.build_signature_def(inputs, outputs, method)}

    save(out, make)


def strict(out: Path) -> None:
    """Asserts that its features are positive: the request that is made of them is refused."""

    def make() -> Signatures:
        serialized = examples()
        parsed = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([2], tf.float32)})
        with tf.control_dependencies([v1.assert_greater(parsed["x"], 5.0)]):
            values = tf.math.log(tf.reduce_sum(parsed["x"], 1))
        return {DEFAULT: v1.saved_model.regression_signature_def(serialized, values)}

    save(out, make)


def with_golden(out: Path) -> None:
    """A classifier with golden requests, whose inputs are serialized examples."""
    with v1.Graph().as_default(), v1.Session() as session:
        signatures = classifying(REQUIRED)
        signature = signatures[DEFAULT]
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        feature, listed = tf.train.Feature, tf.train.Features
        example = tf.train.Example(
            features=listed(
                feature={
                    "x": feature(float_list=tf.train.FloatList(value=[1.0, -2.0])),
                    "n": feature(int64_list=tf.train.Int64List(value=[3])),
                    "word": feature(bytes_list=tf.train.BytesList(value=[b"\xff"])),
                }
            )
        ).SerializeToString()
        classes, scores = session.run(
            [signature.outputs[name].name for name in ("classes", "scores")],
            {signature.inputs["inputs"].name: [example]},
        )
        builder = v1.saved_model.Builder(str(out))
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map=signatures, main_op=v1.tables_initializer()
        )
        builder.save()
    write_golden(out, example, classes.astype(str).tolist(), scores.tolist())


def write_golden(out: Path, example: bytes, classes: list[Any], scores: list[Any]) -> None:
    """Write one golden request."""
    encoded = {"b64": base64.b64encode(example).decode()}
    request = {"inputs": {"inputs": [encoded]}, "outputs": {"classes": classes, "scores": scores}}
    (out / "assets.extra").mkdir()
    golden = {"schema": "servesync.golden/1", "requests": [request]}
    (out / "assets.extra/servesync_golden.json").write_text(json.dumps(golden))


SOUND = [
    classify,
    classify_with_defaults,
    regress,
    regress_with_defaults,
    scores_only,
    labels_only,
    estimator,
    many_features,
    old_parser,
    hidden_features,
    classify_of_numbers,
    strict,
    with_golden,
]


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in SOUND:
        kind(out / kind.__name__)
