"""The few messages of TensorFlow Serving's gRPC interface that asking takes, without TensorFlow.

Protobuf's wire format knows field numbers and types, no names of packages, so these messages are made here
from a table and have the bytes of the originals. The numbers are those of tensorflow/serving
(`tensorflow_serving/apis/model.proto`, `predict.proto`, `get_model_status.proto`, `status.proto`) and
tensorflow/tensorflow (`tensorflow/core/framework/tensor.proto`, `tensor_shape.proto`, `types.proto`). They
have a descriptor pool of their own: it does not matter whether TensorFlow is imported, too.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field: TypeAlias = descriptor_pb2.FieldDescriptorProto
_MANY: Final = "*"
_SCHEMA: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "Int64Value": {"value": (1, "int64")},  # google/protobuf/wrappers.proto
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "Dim": {"size": (1, "int64")},
    "TensorShapeProto": {"dim": (2, "Dim*")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float*"),
        "double_val": (6, "double*"),
        "int_val": (7, "int32*"),
        "string_val": (8, "bytes*"),
        "int64_val": (10, "int64*"),
        "bool_val": (11, "bool*"),
    },
    "NamedTensor": {
        "key": (1, "string"),
        "value": (2, "TensorProto"),
    },  # an entry of map<string, TensorProto>
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "NamedTensor*"),
        "output_filter": (3, "string*"),
    },
    "PredictResponse": {"outputs": (1, "NamedTensor*"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {
        "version": (1, "int64"),
        "state": (2, "int32"),
        "status": (3, "StatusProto"),
    },
    "GetModelStatusResponse": {"model_version_status": (1, "ModelVersionStatus*")},
}
"""Message, field, number and type; a star if repeated. Enums travel as int32, maps as lists of pairs."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tfs_messages.proto", package="tfs", syntax="proto3")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = _Field.LABEL_REPEATED if kind.endswith(_MANY) else _Field.LABEL_OPTIONAL
            bare = kind.removesuffix(_MANY)
            if bare in _SCHEMA:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".tfs.{bare}"
            else:
                added.type = _Field.Type.Value(f"TYPE_{bare.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfs.{name}")) for name in _SCHEMA
    }


_MESSAGES: Final = _messages()
PredictRequest: Final = _MESSAGES["PredictRequest"]
PredictResponse: Final = _MESSAGES["PredictResponse"]
GetModelStatusRequest: Final = _MESSAGES["GetModelStatusRequest"]
GetModelStatusResponse: Final = _MESSAGES["GetModelStatusResponse"]

STATES: Final = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
"""`ModelVersionStatus.State`."""


class DType(IntEnum):
    """The element types that are supported here, with their numbers in `types.proto`."""

    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    INT64 = 9
    BOOL = 10


_VALUES: Final = {
    DType.FLOAT: "float_val",
    DType.DOUBLE: "double_val",
    DType.INT32: "int_val",
    DType.UINT8: "int_val",
    DType.INT16: "int_val",
    DType.INT8: "int_val",
    DType.STRING: "string_val",
    DType.INT64: "int64_val",
    DType.BOOL: "bool_val",
}
_PACKED: Final = {
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
    DType.INT32: "i",
    DType.UINT8: "B",
    DType.INT16: "h",
    DType.INT8: "b",
    DType.INT64: "q",
    DType.BOOL: "?",
}
"""How `tensor_content` holds an element, for `struct`."""


class NotATensor(ValueError):
    """Nested lists of unequal lengths, or a tensor of a kind that is not supported here."""


@dataclass(frozen=True)
class Tensor:
    """Elements in row-major order. Strings are bytes."""

    dtype: DType
    shape: tuple[int, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, nested: object, dtype: DType = DType.FLOAT) -> "Tensor":
        """Return the tensor that nested lists stand for; a bare value is a scalar.

        Raises:
            NotATensor: they are no rectangle.
        """
        shape, inner = [], nested
        while isinstance(inner, list):
            shape.append(len(inner))
            inner = inner[0] if inner else None
        return cls(dtype, tuple(shape), tuple(_flat(nested, shape)))

    def nested(self) -> Any:  # noqa: ANN401 (as deep as the shape is long)
        """Return nested lists, or the bare value of a scalar."""
        return _nested(self.values, self.shape)

    def fill(self, proto: Any) -> None:  # noqa: ANN401 (made at run time)
        """Write this into an empty TensorProto."""
        proto.dtype = self.dtype
        for size in self.shape:
            proto.tensor_shape.dim.add(size=size)
        getattr(proto, _VALUES[self.dtype]).extend(self.values)

    @classmethod
    def read(cls, proto: Any) -> "Tensor":  # noqa: ANN401 (made at run time)
        """Return what a TensorProto says; in either of its two forms, with repeated last values left out.

        Raises:
            NotATensor: of a type that is not supported here, or with more or fewer values than its shape.
        """
        if proto.dtype not in _VALUES:
            raise NotATensor(f"DataType {proto.dtype} is not supported here")
        dtype = DType(proto.dtype)
        shape = tuple(dim.size for dim in proto.tensor_shape.dim)
        count = math.prod(shape)
        values = (
            _unpacked(proto.tensor_content, dtype) if proto.tensor_content else _listed(proto, dtype, count)
        )
        if len(values) != count:
            raise NotATensor(f"{len(values)} values for the shape {shape}")
        return cls(dtype, shape, values)


def _flat(nested: object, shape: list[int]) -> Iterator[object]:
    if not shape:
        if isinstance(nested, list):
            raise NotATensor("lists of unequal depth")
        yield nested
        return
    if not isinstance(nested, list) or len(nested) != shape[0]:
        raise NotATensor("lists of unequal length")
    for item in nested:
        yield from _flat(item, shape[1:])


def _nested(values: tuple[Any, ...], shape: tuple[int, ...]) -> Any:  # noqa: ANN401 (as deep as the shape)
    if not shape:
        return values[0]
    step = math.prod(shape[1:])
    return [_nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _unpacked(content: bytes, dtype: DType) -> tuple[Any, ...]:
    code = _PACKED.get(dtype)
    if code is None or len(content) % struct.calcsize(f"<{code}"):
        raise NotATensor(f"{len(content)} bytes are no {dtype.name} values")
    return struct.unpack(f"<{len(content) // struct.calcsize(f'<{code}')}{code}", content)


def _listed(proto: Any, dtype: DType, count: int) -> tuple[Any, ...]:  # noqa: ANN401 (made at run time)
    values = tuple(getattr(proto, _VALUES[dtype]))
    return values + values[-1:] * (count - len(values))
