"""Proves that a directory is a SavedModel that the server will load; never imports TensorFlow."""

from servesync.verify.dangerous_ops import Danger
from servesync.verify.load import LoadReport, load_model, require_tensorflow
from servesync.verify.operations import OperationsReport, Policy, check_operations, find_operations
from servesync.verify.reachability import Finding, in_words
from servesync.verify.signatures import Expectations, Signatures, check_signatures, read_signatures
from servesync.verify.structure import ModelFacts, bundle_extents, verify_structure
from servesync.verify.tensors import TensorProof, verify_tensors
from servesync.verify.warmup import check_warmup

__all__ = [
    "Danger",
    "Expectations",
    "Finding",
    "LoadReport",
    "ModelFacts",
    "OperationsReport",
    "Policy",
    "Signatures",
    "TensorProof",
    "bundle_extents",
    "check_operations",
    "check_signatures",
    "check_warmup",
    "find_operations",
    "in_words",
    "load_model",
    "read_signatures",
    "require_tensorflow",
    "verify_structure",
    "verify_tensors",
]
