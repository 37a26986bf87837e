"""Finds variables that requests read though nothing sets them: the server loads the graph, and requests fail.

Before it serves, the server runs the saver's restore op and the init op, and nothing else. A variable that
neither of them sets has no value. It may be a local variable of TensorFlow 1, which no checkpoint holds, or a
variable of a Keras 3 model that `tf.saved_model.save` wrote: its restore op sets copies under other names.
Python's TensorFlow restores by other means, and answers in both cases.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servesync.verify.graph_def import read_scope
from servesync.verify.meta_graph import read_entrances
from servesync.verify.parse_budget import Reader, TooMuch
from servesync.verify.reads import Reads, find_variables, reached
from servesync.verify.saved_model import opened

DEFAULT: Final = "serving_default"
"""The signature that answers a request which names none."""


@dataclass(frozen=True, slots=True)
class Unset:
    """Variables without a value that each request of a signature reads; empty if there are none."""

    signature: str = ""
    variables: list[str] = field(default_factory=list)


def uninitialized_variables(path: Path) -> Unset:
    """Return the variables whose lack of a value keeps the `serve` graph in a saved_model.pb from answering.

    The graph cannot answer if each request of its default signature fails or, without a default signature,
    each request of every signature. A variable counts as set if the init op or the restore op leads to it, or
    if the request itself may set it. The result is empty for a graph that is too large to follow.

    Raises:
        Malformed: the graph is damaged.
        OSError: the file cannot be read.
    """
    with opened(path) as data:
        reader = Reader()
        try:
            return _unset(reader, data)
        except TooMuch:
            return Unset()


def _unset(reader: Reader, data: memoryview) -> Unset:
    entrances = read_entrances(reader, data)
    if entrances is None:
        return Unset()
    scope = read_scope(reader, entrances.graphs)
    variables = find_variables(reader, scope)
    before = reached(reader, scope, [*entrances.init, *entrances.restore])
    is_set = {variable.name for node, variable in variables.items() if node in before}
    asked = [DEFAULT] if DEFAULT in entrances.signatures else sorted(entrances.signatures)
    found = Unset()
    for signature in asked:
        reads = Reads(reader, scope, variables)
        reads.run(entrances.signatures[signature])
        names = reads.needed - is_set
        if not names:
            return Unset()
        found = Unset(signature, sorted(name.decode(errors="backslashreplace") for name in names))
    return found
