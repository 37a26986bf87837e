"""Answers classify and regress requests, whose examples reach the model as serialized `tf.Example` messages.

Source: TensorFlow Serving's json_tensor.cc, classifier.cc, regressor.cc and util.cc, for rules and texts.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.loader import Loaded, tensorflow
from servesync.domain.methods import Method

Json: TypeAlias = Any
CLASSIFY: Final = "tensorflow/serving/classify"
REGRESS: Final = "tensorflow/serving/regress"
INPUT: Final = "inputs"
_TYPES: Final = {
    type(None): "Null",
    bool: "False",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}
_MOST_FLOAT: Final = 3.4028234663852886e38
_INT64: Final = range(-(1 << 63), 1 << 63)


def examples_of(request: Mapping[str, Json]) -> list[bytes]:
    """Return the examples of a request, serialized; a context that they share stands at their beginning.

    Raises:
        RequestFailed: the request has no examples, or something that an example cannot hold.
    """
    context = b""
    if "context" in request:
        context = _example(request["context"])
    if "examples" not in request:
        raise _bad_form(request, "When method is classify, key 'examples' is expected and was not found")
    examples = request["examples"]
    if not isinstance(examples, list):
        raise _bad_form(request, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _bad_form(request, "'examples' value is an empty array")
    return [context + _example(example) for example in examples]


def answer(
    method: Method, loaded: Loaded, name: str, examples: list[bytes], timeout_ms: int, *, checks_method: bool
) -> Json:
    """Answer a classify or regress request for the signature `name`.

    `timeout_ms`: after which the request is given up. `checks_method`: refuse signatures of other methods.

    Raises:
        RequestFailed: the signature or its outputs are not what the method needs, or the model failed.
    """
    if name not in loaded.signatures:
        raise _invalid(f"No signature was found with the name: {name}")
    signature = loaded.signatures[name]
    check, results = _METHODS[method]
    check(signature, checks_method)
    kind = tensorflow().as_dtype(signature.inputs[INPUT].dtype).name
    if kind != "string":
        raise _invalid(f"Expects arg[0] to be {kind} but string is provided")
    import numpy as np  # noqa: PLC0415 (comes with TensorFlow)

    found = loaded.run(signature, {INPUT: np.array(examples, dtype=object)}, timeout_ms)
    return {"results": results(found, len(examples))}


# -- examples -------------------------------------------------------------------------------------------


def _example(given: Json) -> bytes:
    from tensorflow.core.example import example_pb2  # noqa: PLC0415 (only where a model is loaded)

    if not isinstance(given, dict):
        raise _invalid(f"Example must be JSON object but got JSON {_type(given)}")
    example = example_pb2.Example()
    for name, content in given.items():
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add(feature, name, value)
    return bytes(example.SerializeToString())


def _add(feature: Any, name: str, value: Json) -> None:  # noqa: ANN401 (a Feature)
    """Add a value to a feature; all values of one are of one kind."""
    added: bytes | float | int
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        kind, added = "bytes_list", _bytes(value["b64"])
    elif isinstance(value, str):
        kind, added = "bytes_list", value.encode(errors="surrogatepass")
    elif isinstance(value, float):
        kind, added = "float_list", value
        if _MOST_FLOAT < abs(value) < float("inf"):
            raise _invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
    elif isinstance(value, int):  # also a truth value
        kind, added = "int64_list", int(value)
        if int(value) not in _INT64:
            raise _invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    else:
        raise _invalid(f"Feature: {name} has element with unexpected JSON type: {_type(value)}")
    before = feature.WhichOneof("kind")
    if before not in (None, kind):
        expected = before.removesuffix("_list")
        raise _invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(added)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _type(value: Json) -> str:
    return "True" if value is True else _TYPES[type(value)]


# -- signatures and outputs -----------------------------------------------------------------------------


def _check_classify(signature: Any, checks_method: bool) -> None:  # noqa: ANN401, FBT001 (a SignatureDef)
    if checks_method and signature.method_name != CLASSIFY:
        text = f"method_name to be {CLASSIFY}. Was: {signature.method_name}"
        raise _invalid(f"Expected classification signature {text}")
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise _invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUT not in signature.inputs:
        raise _invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise _invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )


def _check_regress(signature: Any, checks_method: bool) -> None:  # noqa: ANN401, FBT001 (a SignatureDef)
    if checks_method and signature.method_name != REGRESS:
        text = f"method_name to be {REGRESS}. Was: {signature.method_name}"
        raise _invalid(f"Expected regression signature {text}")
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise _invalid("Expected one output Tensor.")
    if INPUT not in signature.inputs:
        raise _invalid(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise _invalid(f"No regression outputs found in SignatureDef: {signature}")


def _classes(found: Mapping[str, Any], examples: int) -> Json:
    """Return a list of label and score for each class of each example; what there is not is empty or 0."""
    for name, dtype in (("classes", "DT_STRING"), ("scores", "DT_FLOAT")):
        if name in found:
            _check_matrix(name, found[name], dtype, examples)
    given = [found[name] for name in ("classes", "scores") if name in found]
    widths = [array.shape[1] for array in given]
    if len(set(widths)) > 1:
        text = f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}"
        raise _invalid(text)
    none = [[None] * widths[0]] * examples
    labels = found["classes"].tolist() if "classes" in found else none
    scores = found["scores"].tolist() if "scores" in found else none
    return [
        [
            [label.decode(errors="surrogateescape") if label else "", score or 0.0]
            for label, score in zip(*row, strict=True)
        ]
        for row in zip(labels, scores, strict=True)
    ]


def _check_matrix(name: str, array: Any, dtype: str, examples: int) -> None:  # noqa: ANN401 (an array)
    shape = _shape(array)
    if len(shape) != 2:  # noqa: PLR2004 (a matrix)
        raise _invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shown(shape)}")
    if _dtype(array) != dtype:
        raise _invalid(f"Expected {name} Tensor of {dtype}. Got: {_dtype(array)}")
    if shape[0] != examples:
        raise _invalid(f"Expected {name} output batch size of {examples}. Got: {shape[0]}")


def _values(found: Mapping[str, Any], examples: int) -> Json:
    """Return the value of each example."""
    array = found["outputs"]
    shape = _shape(array)
    if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):  # noqa: PLR2004 (a matrix)
        raise _invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shown(shape)}"
        )
    if shape[0] != examples:
        raise _invalid(f"Input batch size did not match output batch size: {examples} vs. {shape[0]}")
    if _dtype(array) != "DT_FLOAT":
        raise _invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(array)}")
    return array.reshape(-1).tolist()


def _shape(array: Any) -> tuple[int, ...]:  # noqa: ANN401 (an array; bytes for a scalar of strings)
    return tuple(getattr(array, "shape", ()))


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _dtype(array: Any) -> str:  # noqa: ANN401 (an array; bytes for a scalar of strings)
    from tensorflow.core.framework import types_pb2  # noqa: PLC0415 (comes with TensorFlow)

    if isinstance(array, bytes):
        return "DT_STRING"
    return str(types_pb2.DataType.Name(tensorflow().as_dtype(array.dtype).as_datatype_enum))


_METHODS: Final[
    Mapping[Method, tuple[Callable[[Any, bool], None], Callable[[Mapping[str, Any], int], Json]]]
] = {
    Method.CLASSIFY: (_check_classify, _classes),
    Method.REGRESS: (_check_regress, _values),
}


def _bad_form(request: Mapping[str, Json], text: str) -> RequestFailed:
    return _invalid(f"JSON Value: {json.dumps(request, indent=4)} {text}")


def _invalid(message: str) -> RequestFailed:
    return RequestFailed(Code.INVALID_ARGUMENT, message)
