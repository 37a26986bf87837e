"""The field numbers of the messages in a version's files, by the names in TensorFlow's .proto files.

Each class names its message; `MapEntry` stands for the entries of all maps. The numbers are plain integers,
since a graph has millions of fields, and an enumeration would be slow.
"""

from typing import Final


class MapEntry:
    """One entry of any map: protoc makes such a message for each."""

    KEY: Final = 1
    VALUE: Final = 2


class SavedModel:
    """tensorflow.SavedModel."""

    META_GRAPHS: Final = 2


class MetaGraphDef:
    """tensorflow.MetaGraphDef."""

    META_INFO_DEF: Final = 1
    GRAPH_DEF: Final = 2
    SAVER_DEF: Final = 3
    COLLECTION_DEF: Final = 4
    SIGNATURE_DEF: Final = 5
    ASSET_FILE_DEF: Final = 6


class MetaInfoDef:
    """tensorflow.MetaGraphDef.MetaInfoDef."""

    TAGS: Final = 4
    TENSORFLOW_VERSION: Final = 5


class SaverDef:
    """tensorflow.SaverDef."""

    FILENAME_TENSOR_NAME: Final = 1
    SAVE_TENSOR_NAME: Final = 2
    RESTORE_OP_NAME: Final = 3


class CollectionDef:
    """tensorflow.CollectionDef."""

    NODE_LIST: Final = 1
    ANY_LIST: Final = 5


class NodeList:
    """tensorflow.CollectionDef.NodeList."""

    VALUE: Final = 1


class AnyList:
    """tensorflow.CollectionDef.AnyList."""

    VALUE: Final = 1


class AnyMessage:
    """google.protobuf.Any."""

    VALUE: Final = 2


class AssetFileDef:
    """tensorflow.AssetFileDef."""

    TENSOR_INFO: Final = 1
    FILENAME: Final = 2


class SignatureDef:
    """tensorflow.SignatureDef."""

    INPUTS: Final = 1
    OUTPUTS: Final = 2
    METHOD_NAME: Final = 3
    DEFAULTS: Final = 4


class TensorInfo:
    """tensorflow.TensorInfo."""

    NAME: Final = 1
    DTYPE: Final = 2
    TENSOR_SHAPE: Final = 3
    COO_SPARSE: Final = 4
    COMPOSITE_TENSOR: Final = 5


class CooSparse:
    """tensorflow.TensorInfo.CooSparse."""

    VALUES_TENSOR_NAME: Final = 1
    INDICES_TENSOR_NAME: Final = 2
    DENSE_SHAPE_TENSOR_NAME: Final = 3


class CompositeTensor:
    """tensorflow.TensorInfo.CompositeTensor."""

    COMPONENTS: Final = 2


class GraphDef:
    """tensorflow.GraphDef."""

    NODE: Final = 1
    LIBRARY: Final = 2


class FunctionDefLibrary:
    """tensorflow.FunctionDefLibrary."""

    FUNCTION: Final = 1
    GRADIENT: Final = 2


class GradientDef:
    """tensorflow.GradientDef."""

    FUNCTION_NAME: Final = 1
    GRADIENT_FUNC: Final = 2


class FunctionDef:
    """tensorflow.FunctionDef."""

    SIGNATURE: Final = 1
    NODE_DEF: Final = 3
    RET: Final = 4
    ATTR: Final = 5
    CONTROL_RET: Final = 6


class OpDef:
    """tensorflow.OpDef."""

    NAME: Final = 1
    INPUT_ARG: Final = 2


class ArgDef:
    """tensorflow.OpDef.ArgDef."""

    NAME: Final = 1
    NUMBER_ATTR: Final = 5
    TYPE_LIST_ATTR: Final = 6


class NodeDef:
    """tensorflow.NodeDef."""

    NAME: Final = 1
    OP: Final = 2
    INPUT: Final = 3
    ATTR: Final = 5


class AttrValue:
    """tensorflow.AttrValue."""

    LIST: Final = 1
    S: Final = 2
    I: Final = 3  # noqa: E741 (its name)
    TENSOR: Final = 8
    PLACEHOLDER: Final = 9
    FUNC: Final = 10


class ListValue:
    """tensorflow.AttrValue.ListValue."""

    S: Final = 2
    TYPE: Final = 6
    SHAPE: Final = 7
    TENSOR: Final = 8
    FUNC: Final = 9


class NameAttrList:
    """tensorflow.NameAttrList."""

    NAME: Final = 1
    ATTR: Final = 2


class TensorProto:
    """tensorflow.TensorProto."""

    DTYPE: Final = 1
    TENSOR_SHAPE: Final = 2
    TENSOR_CONTENT: Final = 4
    STRING_VAL: Final = 8
    VARIANT_VAL: Final = 15


class VariantTensorDataProto:
    """tensorflow.VariantTensorDataProto."""

    METADATA: Final = 2
    TENSORS: Final = 3


class TensorShapeProto:
    """tensorflow.TensorShapeProto."""

    DIM: Final = 2
    UNKNOWN_RANK: Final = 3


class Dim:
    """tensorflow.TensorShapeProto.Dim."""

    SIZE: Final = 1


class TensorSliceProto:
    """tensorflow.TensorSliceProto."""

    EXTENT: Final = 1


class SliceExtent:
    """tensorflow.TensorSliceProto.Extent."""

    START: Final = 1
    LENGTH: Final = 2


class PredictionLog:
    """tensorflow.serving.PredictionLog; the `request` of each of its logs has the number REQUEST."""

    CLASSIFY_LOG: Final = 2
    REGRESS_LOG: Final = 3
    MULTI_INFERENCE_LOG: Final = 4
    SESSION_RUN_LOG: Final = 5
    PREDICT_LOG: Final = 6
    PREDICT_STREAMED_LOG: Final = 7
    REQUEST: Final = 1


class InferenceRequest:
    """tensorflow.serving.PredictRequest, ClassificationRequest, RegressionRequest and InferenceTask."""

    MODEL_SPEC: Final = 1
    PREDICT_INPUTS: Final = 2


class MultiInferenceRequest:
    """tensorflow.serving.MultiInferenceRequest."""

    TASKS: Final = 1


class ModelSpec:
    """tensorflow.serving.ModelSpec."""

    NAME: Final = 1
    SIGNATURE_NAME: Final = 3


class BundleHeaderProto:
    """tensorflow.BundleHeaderProto."""

    NUM_SHARDS: Final = 1
    ENDIANNESS: Final = 2


class BundleEntryProto:
    """tensorflow.BundleEntryProto."""

    DTYPE: Final = 1
    SHAPE: Final = 2
    SHARD_ID: Final = 3
    OFFSET: Final = 4
    SIZE: Final = 5
    CRC32C: Final = 6
    SLICES: Final = 7
