"""Proves that a directory is a SavedModel that the server will load; never imports TensorFlow."""

from servesync.verify.dangers import Danger
from servesync.verify.operations import OperationsReport, Policy, check_operations, find_operations
from servesync.verify.structure import ModelFacts, bundle_extents, verify_structure
from servesync.verify.tensors import TensorProof, verify_tensors
from servesync.verify.walk import Finding, in_words

__all__ = [
    "Danger",
    "Finding",
    "ModelFacts",
    "OperationsReport",
    "Policy",
    "TensorProof",
    "bundle_extents",
    "check_operations",
    "find_operations",
    "in_words",
    "verify_structure",
    "verify_tensors",
]
