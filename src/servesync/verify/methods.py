"""How clients ask for the signatures of a version that are not asked by `:predict`.

A signature names the method that its exporter meant. Classify and regress requests hold `tf.Example`
messages, which the server passes, serialized, to the one input of the signature.

Source: signature_constants.h of TensorFlow; `PreProcessClassification` and `PreProcessRegression` in
classifier.cc and regressor.cc of TensorFlow Serving.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servesync.domain.methods import Method
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Signature, TensorSpec
from servesync.verify.example_features import Features, read_features
from servesync.verify.proto import SignatureDef, TensorInfo
from servesync.verify.signatures import Signatures, map_entry
from servesync.verify.structure import AGAIN, serving_graph
from servesync.wire import Malformed, fields

INPUT: Final = "inputs"
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"
"""The names that the server wants a signature's tensors to have."""
_METHODS: Final = {
    "tensorflow/serving/classify": Method.CLASSIFY,
    "tensorflow/serving/regress": Method.REGRESS,
}


@dataclass(frozen=True, slots=True)
class Asking:
    """How one signature is asked. `features`: what an example holds, as far as the graph tells."""

    method: Method = Method.PREDICT
    features: Features = field(default_factory=dict)


def read_askings(root: Path, signatures: Signatures) -> Mapping[str, Asking]:
    """Return how clients ask for the signatures of the version in `root` that they do not ask by `:predict`.

    The server takes a predict request for every signature. So one whose tensors are not what its method
    needs is left out, too.

    Raises:
        ReleaseRefused: there is no graph to serve, or it is damaged.
        OSError: the file cannot be read.
    """
    found: dict[str, tuple[Method, bytes]] = {}
    try:
        for item in serving_graph(root).signature_entries:
            name, definition = map_entry(memoryview(item))
            method = _method(definition)
            if name in signatures and _fits(method, signatures[name]):
                found[name] = method, _input_tensor(definition)
    except Malformed as error:
        text = f"saved_model.pb is damaged: in a signature: {error}; {AGAIN}"
        raise ReleaseRefused(Reason.SAVED_MODEL_CORRUPT, text) from error
    features = read_features(root, {tensor for _, tensor in found.values()}) if found else {}
    return {name: Asking(method, features.get(tensor, {})) for name, (method, tensor) in found.items()}


def _method(definition: memoryview) -> Method:
    name = ""
    for part in fields(definition):
        if part.number == SignatureDef.METHOD_NAME:
            name = part.text()
    return _METHODS.get(name, Method.PREDICT)


def _fits(method: Method, signature: Signature) -> bool:
    """Whether the server takes classify or regress requests for a signature, whatever they hold."""
    if signature.inputs.keys() != {INPUT} or not _is_dense(signature.inputs[INPUT], "string"):
        return False
    outputs = signature.outputs
    if method is Method.CLASSIFY:
        return len(outputs) > 0 and outputs.keys() <= {CLASSES, SCORES}
    return method is Method.REGRESS and outputs.keys() == {VALUES}


def _is_dense(spec: TensorSpec, dtype: str) -> bool:
    return spec.encoding == "dense" and spec.dtype == dtype


def _input_tensor(definition: memoryview) -> bytes:
    """Return the name of the tensor that takes the input of a signature with one."""
    name = b""
    for part in fields(definition):
        if part.number == SignatureDef.INPUTS:
            for item in fields(map_entry(part.message())[1]):
                name = bytes(item.message()) if item.number == TensorInfo.NAME else name
    return name
