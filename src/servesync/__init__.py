"""Brings models from an S3 store into TensorFlow Serving safely."""

__version__ = "0.1.0"
