"""The operations that reach out of the graph, by what they do, from the registry of TensorFlow 2.21."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Danger(StrEnum):
    """What an operation can do besides computing."""

    READS_FILES = "reads files"
    WRITES_FILES = "writes files"
    RUNS_CODE = "runs code"
    NETWORK = "network"
    OTHER = "other"


_NAMES: Final = {
    Danger.READS_FILES: """
        ReadFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset
        WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2
        FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader RecordInput
        TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2
        CSVDataset CSVDatasetV2 ExperimentalCSVDataset SqlDataset ExperimentalSqlDataset
        LMDBDataset ExperimentalLMDBDataset LoadDataset
        SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset ListSnapshotChunksDataset
        Restore RestoreSlice RestoreV2 DTensorRestoreV2 LoadAndRemapMatrix GenerateVocabRemapping
        InitializeTableFromTextFile InitializeTableFromTextFileV2 InitializeTRTResource
        ImmutableConst Skipgram FixedUnigramCandidateSampler DecodeProtoV2 EncodeProto
    """,
    Danger.WRITES_FILES: """
        WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints SaveDataset SaveDatasetV2
        DatasetToTFRecord ExperimentalDatasetToTFRecord SnapshotDataset SnapshotDatasetV2
        CacheDataset CacheDatasetV2 PrintV2 DumpTensor CalibrationStatisticsSaver
        CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent WriteSummary WriteRawProtoSummary
        WriteGraphSummary WriteScalarSummary WriteHistogramSummary WriteImageSummary WriteAudioSummary
        DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary
    """,
    Danger.RUNS_CODE: """
        PyFunc PyFuncStateless EagerPyFunc DatasetFromGraph DeserializeIterator
        MlirPassthroughOp XlaCustomCall XlaCustomCallV2 RemoteFusedGraphExecute
    """,
    Danger.NETWORK: """
        RpcClient RpcCall RpcServer RpcServerRegister RpcServerStart Rpc TryRpc RemoteCall
        DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4
        RegisterDataset RegisterDatasetV2 DistributedSave
        Send Recv _Send _Recv _HostSend _HostRecv BigQueryReader GenerateBigQueryReaderPartitions
        CollectiveAllToAllV2 CollectiveAllToAllV3 CollectiveAssignGroupV2 CollectiveBcastRecv
        CollectiveBcastRecvV2 CollectiveBcastSend CollectiveBcastSendV2 CollectiveGather CollectiveGatherV2
        CollectiveInitializeCommunicator CollectivePermute CollectiveReduce CollectiveReduceScatterV2
        CollectiveReduceV2 CollectiveReduceV3
    """,
    Danger.OTHER: """
        Abort FileSystemSetConfiguration WorkerHeartbeat ConfigureDistributedTPU _ConfigureDistributedTPU
        ShutdownDistributedTPU _ShutdownDistributedTPU ShutdownTPUSystem
    """,
}

DANGEROUS_OPS: Final[Mapping[bytes, Danger]] = MappingProxyType(
    {name.encode(): danger for danger, names in _NAMES.items() for name in names.split()}
)
"""The operations that are reported, by name. An operation that is not among them may still be unsafe."""

OF_OTHER_RELEASES: Final = frozenset(
    {
        b"BigQueryReader",
        b"GenerateBigQueryReaderPartitions",
        b"InitializeTRTResource",
        b"RemoteFusedGraphExecute",
        b"Rpc",
        b"TryRpc",
    }
)
"""Those of `DANGEROUS_OPS` that TensorFlow 2.21 for CPUs does not have."""

SAVER_OPERATIONS: Final = frozenset(
    {b"MergeV2Checkpoints", b"Restore", b"RestoreSlice", b"RestoreV2", b"Save", b"SaveSlices", b"SaveV2"}
)
"""The operations of a saver: they are not reported if only the saver reaches them."""

ASSET_OPERATIONS: Final = frozenset(
    {b"InitializeTableFromTextFile", b"InitializeTableFromTextFileV2", b"InitializeTRTResource"}
)
"""Operations whose second input is a path: they are not reported if it is an asset of the model."""

HARMLESS_IF: Final[Mapping[bytes, tuple[bytes, re.Pattern[bytes]]]] = MappingProxyType(
    {
        b"PrintV2": (b"output_stream", re.compile(rb"|stdout|stderr|log\((info|warning|error)\)")),
        b"DecodeProtoV2": (b"descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
        b"EncodeProto": (b"descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
        b"FixedUnigramCandidateSampler": (b"vocab_file", re.compile(rb"")),
    }
)
"""Operations that touch a file only if an attribute names one."""
