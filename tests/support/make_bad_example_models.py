"""Writes models that are asked by `:classify` or `:regress`, and that load, but are not sound."""

import shutil
from pathlib import Path

import tensorflow as tf

from make_example_models import (
    DEFAULT,
    REQUIRED,
    Signatures,
    classify,
    classifying,
    hidden_parser,
    regressing,
    save,
    with_golden,
)

v1 = tf.compat.v1
OTHER_WEIGHTS = [[-1.5, 2.5], [0.75, 0.125]]


def unfit_scores(out: Path) -> None:
    """Scores of double precision, which a classify request cannot give."""

    def make() -> Signatures:
        (signature,) = classifying(REQUIRED).values()
        scores = v1.get_default_graph().get_tensor_by_name(signature.outputs["scores"].name)
        double = v1.saved_model.build_tensor_info(tf.cast(scores, tf.float64))
        signature.outputs["scores"].CopyFrom(double)
        return {DEFAULT: signature}

    save(out, make)


def unknown_operation(out: Path) -> None:
    """An operation that no server knows, in the body of a function."""
    classify(out)
    graph = out / "saved_model.pb"
    assert b"Softplus" in graph.read_bytes()
    graph.write_bytes(graph.read_bytes().replace(b"Softplus", b"Softplvs"))


def other_weights(out: Path) -> None:
    """Weights of another training: no request that is made from a signature can tell."""
    save(out, lambda: classifying(REQUIRED, OTHER_WEIGHTS))


def swapped_weights(out: Path) -> None:
    """The same beside golden requests, which can."""
    with_golden(out)
    other_weights(out.parent / "other")
    shutil.rmtree(out / "variables")
    (out.parent / "other/variables").rename(out / "variables")
    shutil.rmtree(out.parent / "other")


def classify_nan(out: Path) -> None:
    """Every score is NaN."""
    save(out, lambda: classifying(REQUIRED, factor=float("nan")))


def regress_nan(out: Path) -> None:
    """Every value is NaN."""
    save(out, lambda: regressing(REQUIRED, factor=float("nan")))


def hidden_nan(out: Path) -> None:
    """Every value is NaN, and the graph does not tell what an example needs."""
    save(out, lambda: hidden_parser({}, factor=float("nan")))


def no_table(out: Path) -> None:
    """Nothing initializes the table of labels."""
    save(out, lambda: classifying(REQUIRED), has_init_op=False)


BAD = [
    unfit_scores,
    unknown_operation,
    other_weights,
    swapped_weights,
    classify_nan,
    regress_nan,
    hidden_nan,
    no_table,
]


def main(out: Path) -> None:
    """Write every kind below a folder."""
    for kind in BAD:
        kind(out / kind.__name__)
