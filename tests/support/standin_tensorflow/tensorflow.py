"""Stands in for TensorFlow in trial processes that are only watched: it is there at once, computes nothing.

To load a version is to run its `act.py`, if it has one; it has the signatures that `saved_model.pb` has.
"""

import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from servesync import settings
from servesync.verify import read_signatures

__version__ = "0.0.0"
string = "string"
config = SimpleNamespace(
    threading=SimpleNamespace(
        set_intra_op_parallelism_threads=lambda _: None, set_inter_op_parallelism_threads=lambda _: None
    )
)
errors = SimpleNamespace(ResourceExhaustedError=MemoryError)


class Tensor:
    """None are made."""


@dataclass
class TensorSpec:
    """An input or an output."""

    spec: settings.TensorSpec

    @property
    def dtype(self) -> SimpleNamespace:
        """Its type."""
        return SimpleNamespace(base_dtype=SimpleNamespace(name=self.spec.dtype))

    @property
    def shape(self) -> SimpleNamespace:
        """Its sizes."""
        return SimpleNamespace(rank=self.spec.shape and len(self.spec.shape), as_list=lambda: self.spec.shape)


def load(root: str, tags: list[str]) -> SimpleNamespace:
    """Return a loaded version."""
    if (act := Path(root, "act.py")).exists():
        runpy.run_path(str(act))
    named = {name: _function(signature) for name, signature in read_signatures(Path(root)).items()}
    return SimpleNamespace(signatures=named)


def _function(signature: settings.Signature) -> SimpleNamespace:
    return SimpleNamespace(
        structured_input_signature=((), _specs(signature.inputs)),
        structured_outputs=_specs(signature.outputs),
    )


def _specs(named: Mapping[str, settings.TensorSpec]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(spec) for name, spec in named.items()}


saved_model = SimpleNamespace(load=load)
