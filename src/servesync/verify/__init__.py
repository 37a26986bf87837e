"""Proves that a directory is a SavedModel that the server will load; never imports TensorFlow."""

from servesync.verify.structure import ModelFacts, bundle_extents, verify_structure
from servesync.verify.tensors import TensorProof, verify_tensors

__all__ = ["ModelFacts", "TensorProof", "bundle_extents", "verify_structure", "verify_tensors"]
