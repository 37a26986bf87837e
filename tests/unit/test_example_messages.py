"""The examples' messages have the bytes of TensorFlow Serving's own.

The bytes were written with tensorflow-serving-api 2.21.0, from the messages in the comments.
"""

import pytest

import tfs_messages as tfs
from grpc_client import Target
from tfs_messages import DType, NotATensor, Tensor

# model_spec {name: "m" version {value: 3} signature_name: "serving_default"}, inputs x: FLOAT [[1.0], [-2.5]]
BY_VERSION = (
    "0a180a016d120208031a0f73657276696e675f64656661756c74"
    "121b0a017812160801120812020802120208012a080000803f000020c0"
)
# model_spec {name: "m" version_label: "stable" signature_name: "words"}, inputs w: STRING ["yes", "\xff"]
BY_LABEL = "0a120a016d1a05776f7264732206737461626c6512150a01771210080712041202080242037965734201ff"
# outputs n: INT64 scalar -1; y: FLOAT [[3.0], [5.0]] as tensor_content; model_spec version 3
ANSWER = (
    "0a130a016e120e0809520affffffffffffffffff01"
    "0a1b0a017912160801120812020802120208012208000040400000a040"
    "12180a016d120208031a0f73657276696e675f64656661756c74"
)
# 4 AVAILABLE; 3 END with NOT_FOUND "gone"
STATUS = "0a040804101e0a0e080310321a0808051204676f6e65"


def request(target: Target, signature: str, name: str, tensor: Tensor) -> bytes:
    """Return the bytes of a PredictRequest with one input."""
    message = tfs.PredictRequest()
    target.fill(message.model_spec)
    message.model_spec.signature_name = signature
    tensor.fill(message.inputs.add(key=name).value)
    data: bytes = message.SerializeToString()
    return data


def test_requests_have_the_bytes_of_the_original() -> None:
    """By version and by label, numbers and strings."""
    by_version = request(Target("m", version=3), "serving_default", "x", Tensor.of([[1.0], [-2.5]]))
    by_label = request(Target("m", label="stable"), "words", "w", Tensor.of([b"yes", b"\xff"], DType.STRING))

    assert by_version.hex() == BY_VERSION
    assert by_label.hex() == BY_LABEL


def test_version_zero_is_a_version() -> None:
    """It is not the same as none."""
    message = tfs.PredictRequest()
    Target("m", version=0).fill(message.model_spec)

    assert message.model_spec.HasField("version")


def test_an_answer_of_the_original_is_read() -> None:
    """In the form with a list of values, and in the packed form."""
    answer = tfs.PredictResponse.FromString(bytes.fromhex(ANSWER))

    outputs = {item.key: Tensor.read(item.value) for item in answer.outputs}
    assert outputs["y"] == Tensor(DType.FLOAT, (2, 1), (3.0, 5.0))
    assert outputs["n"].nested() == -1
    assert answer.model_spec.version.value == 3


def test_a_status_of_the_original_is_read() -> None:
    """States by name, in the server's order."""
    answer = tfs.GetModelStatusResponse.FromString(bytes.fromhex(STATUS))

    assert [(item.version, tfs.STATES[item.state]) for item in answer.model_version_status] == [
        (4, "AVAILABLE"),
        (3, "END"),
    ]


@pytest.mark.parametrize(
    ("nested", "dtype", "shape"),
    [
        (1.5, DType.DOUBLE, ()),
        ([], DType.FLOAT, (0,)),
        ([[], []], DType.FLOAT, (2, 0)),
        ([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], DType.INT32, (2, 2, 2)),
        ([[2**62, -1]], DType.INT64, (1, 2)),
        ([True, False], DType.BOOL, (2,)),
        ([[b"a"], [b"\xff"]], DType.STRING, (2, 1)),
        ([0, 255], DType.UINT8, (2,)),
    ],
)
def test_there_and_back(nested: object, dtype: DType, shape: tuple[int, ...]) -> None:
    """Nested lists become the same nested lists."""
    message = tfs.PredictRequest()
    Tensor.of(nested, dtype).fill(message.inputs.add(key="x").value)

    [item] = tfs.PredictRequest.FromString(message.SerializeToString()).inputs
    found = Tensor.read(item.value)
    assert (found.shape, found.nested()) == (shape, nested)


@pytest.mark.parametrize(
    ("dtype", "content", "values"),
    [
        (DType.INT16, b"\xfb\xff\x05\x00", (-5, 5)),
        (DType.INT8, b"\x80\x7f", (-128, 127)),
        (DType.BOOL, b"\x01\x00", (True, False)),
        (DType.INT64, b"\x01" + bytes(15), (1, 0)),
    ],
)
def test_packed_values_are_little_endian(dtype: DType, content: bytes, values: tuple[int, ...]) -> None:
    """As TensorFlow writes `tensor_content`."""
    answer = tfs.PredictResponse()
    proto = answer.outputs.add(key="y").value
    proto.dtype, proto.tensor_content = dtype, content
    proto.tensor_shape.dim.add(size=2)

    assert Tensor.read(proto).values == values


def test_a_last_value_stands_for_those_left_out() -> None:
    """As TensorFlow's `make_tensor_proto` shortens constants."""
    proto = tfs.PredictResponse().outputs.add(key="y").value
    proto.dtype = DType.FLOAT
    proto.float_val.append(2.5)
    proto.tensor_shape.dim.add(size=3)

    assert Tensor.read(proto).values == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("nested", [[[1.0], 2.0], [1.0, [2.0]], [[1.0], [1.0, 2.0]], [[1.0], []]])
def test_lists_that_are_no_rectangle(nested: object) -> None:
    """Refused before they are sent."""
    with pytest.raises(NotATensor):
        Tensor.of(nested)


@pytest.mark.parametrize(
    ("dtype", "content"), [(14, b""), (1, b"\0\0\0"), (7, b"\0"), (1, b""), (1, bytes(12))]
)
def test_tensors_that_cannot_be_read(dtype: int, content: bytes) -> None:
    """A type that is unknown here, and values that are no multiple of an element, or do not fit the shape."""
    proto = tfs.PredictResponse().outputs.add(key="y").value
    proto.dtype, proto.tensor_content = dtype, content
    proto.tensor_shape.dim.add(size=2)

    with pytest.raises(NotATensor):
        Tensor.read(proto)
