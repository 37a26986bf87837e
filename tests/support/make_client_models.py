"""Writes models of the kinds that clients ask.

Requests made of zeros and empty strings are refused by several of them, rightly.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

FLOATS = tf.float32
Work = Callable[..., Any]


def takes(**inputs: tuple[list[int | None] | None, Any]) -> Callable[[Work], Work]:
    """Trace a function for inputs of these shapes and types."""
    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]

    def traced(work: Work) -> Work:
        found: Work = tf.function(work, input_signature=specs)
        return found

    return traced


def save(out: Path, **signatures: Work) -> None:
    """Save a model of functions that have been traced."""
    tf.saved_model.save(tf.Module(), str(out), signatures=signatures)


def images(out: Path) -> None:
    """JPEG files as strings."""

    @takes(files=([None], tf.string))
    def serve(files: Any) -> Any:
        decoded = tf.map_fn(lambda data: tf.io.decode_jpeg(data, 3), files, fn_output_signature=tf.uint8)
        return {"mean": tf.reduce_mean(tf.cast(decoded, FLOATS), [1, 2, 3])}

    save(out, serving_default=serve)


def examples(out: Path) -> None:
    """Serialized tf.Example messages; one feature has no default value."""

    @takes(examples=([None], tf.string))
    def serve(examples: Any) -> Any:
        return {"y": tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([2], FLOATS)})["x"]}

    save(out, serving_default=serve)


def ragged(out: Path) -> None:
    """A ragged tensor as its values and row splits, which must fit each other."""

    @takes(values=([None], FLOATS), splits=([None], tf.int64))
    def serve(values: Any, splits: Any) -> Any:
        rows = tf.RaggedTensor.from_row_splits(values, splits, validate=True)
        return {"sums": tf.reduce_sum(rows, axis=1)}

    save(out, serving_default=serve)


def two_inputs(out: Path) -> None:
    """Two inputs of other types, whose first sizes must agree."""

    @takes(numbers=([None, 3], FLOATS), flags=([None], tf.bool))
    def serve(numbers: Any, flags: Any) -> Any:
        return {"y": tf.reduce_sum(numbers, 1), "picked": tf.boolean_mask(numbers, flags)}

    save(out, serving_default=serve)


def two_signatures(out: Path) -> None:
    """Another signature beside the default one."""

    @takes(x=([None], FLOATS))
    def serve(x: Any) -> Any:
        return {"y": x + 1}

    @takes(n=([], tf.int32))
    def count(n: Any) -> Any:
        return {"numbers": tf.range(n)}

    save(out, serving_default=serve, count=count)


def fixed_batch(out: Path) -> None:
    """Batches of eight only."""

    @takes(x=([8, 2], FLOATS))
    def serve(x: Any) -> Any:
        return {"y": tf.reduce_mean(x, 1)}

    save(out, serving_default=serve)


def any_rank(out: Path) -> None:
    """Tensors of any rank."""

    @takes(x=(None, FLOATS))
    def serve(x: Any) -> Any:
        return {"total": tf.reduce_sum(x)}

    save(out, serving_default=serve)


def unit_length(out: Path) -> None:
    """Scales rows to length 1: zeros give NaN."""

    @takes(x=([None, 4], FLOATS))
    def serve(x: Any) -> Any:
        return {"y": x / tf.norm(x, axis=1, keepdims=True)}

    save(out, serving_default=serve)


def convolution(out: Path) -> None:
    """Images of any size from five by five on."""
    kernel = tf.ones([5, 5, 1, 1])

    @takes(x=([None, None, None, 1], FLOATS))
    def serve(x: Any) -> Any:
        return {"y": tf.nn.conv2d(x, kernel, 1, "VALID")}

    save(out, serving_default=serve)


def checked(out: Path) -> None:
    """Asserts that its numbers are positive: neither zeros nor a rule of the signature say so."""

    @takes(x=([None, 2], FLOATS))
    def serve(x: Any) -> Any:
        tf.debugging.assert_positive(x)
        return {"y": tf.math.log(x)}

    save(out, serving_default=serve)


def strings(out: Path) -> None:
    """Gives back the strings that it gets, under two names."""

    @takes(x=([None], tf.string))
    def serve(x: Any) -> Any:
        return {"same": x, "same_bytes": x}

    save(out, serving_default=serve)


KINDS = [
    images,
    examples,
    ragged,
    two_inputs,
    two_signatures,
    fixed_batch,
    any_rank,
    unit_length,
    convolution,
    checked,
    strings,
]


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in KINDS:
        kind(out / kind.__name__)
