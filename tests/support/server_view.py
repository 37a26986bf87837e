"""What the server's own loader makes of SavedModels. Run as a script: `server_view.py`; JSON in, JSON out.

The input is a list of `[directory, feed, input, output]`. Each directory is loaded with the tag `serve`, by
the loader in C++ that TensorFlow Serving uses, and Python's TensorFlow does not; then `feed`, a list of
numbers or of short strings, is given to the tensor `input`, and `output` is asked for. The answer is for each
directory a list of numbers, which is empty if `feed` is; or an object that holds the error, under `loading`
or `asking`.
"""

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

FLOAT, STRING, INT64 = 1, 7, 9
ELEMENTS = {FLOAT: ctypes.c_float, INT64: ctypes.c_int64}
TWO_CPUS = b"\x0a\x07\x0a\x03CPU\x10\x02"
"""A ConfigProto whose `device_count` is that of `make_models.py`."""
TEXT_BYTES = 24
"""What a string takes in a tensor, if it is so short that it lies within."""


class Output(ctypes.Structure):
    """One output of an operation: `TF_Output`."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def library() -> Any:
    """Return TensorFlow's C interface; everything in it gives pointers unless it says otherwise."""
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    tf = ctypes.CDLL(str(Path(spec.origin).with_name("libtensorflow_cc.so.2")))
    pointers = ["NewStatus", "NewSessionOptions", "NewGraph", "LoadSessionFromSavedModel", "AllocateTensor"]
    for name in [*pointers, "TensorData", "GraphOperationByName"]:
        getattr(tf, f"TF_{name}").restype = ctypes.c_void_p
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_TensorElementCount.restype = ctypes.c_int64
    return tf


class Failed(Exception):
    """TensorFlow says no."""


class Model:
    """One SavedModel, loaded."""

    def __init__(self, tf: Any, root: str) -> None:
        self.tf = tf
        self.status = pointer(tf.TF_NewStatus())
        self.graph = pointer(tf.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = pointer(tf.TF_NewSessionOptions())
        tf.TF_SetConfig(options, TWO_CPUS, ctypes.c_size_t(len(TWO_CPUS)), self.status)
        self.session = pointer(
            tf.TF_LoadSessionFromSavedModel(
                options, None, root.encode(), tags, 1, self.graph, None, self.status
            )
        )
        self._check()

    def ask(self, feed: list[Any], given: str, wanted: str) -> list[Any]:
        """Return what comes out."""
        values = (ctypes.c_void_p * 1)(self._tensor(feed))
        answers = (ctypes.c_void_p * 1)()
        inputs, outputs = (Output * 1)(self._output(given)), (Output * 1)(self._output(wanted))
        self.tf.TF_SessionRun(
            self.session, None, inputs, values, 1, outputs, answers, 1, None, 0, None, self.status
        )
        self._check()
        answer = pointer(answers[0])
        kind = ELEMENTS[self.tf.TF_TensorType(answer)]
        data = (kind * self.tf.TF_TensorElementCount(answer)).from_address(self.tf.TF_TensorData(answer))
        return list(data)

    def _tensor(self, feed: list[Any]) -> int:
        is_text = isinstance(feed[0], str)
        texts = [bytes([len(item) << 2]) + item.encode() for item in feed] if is_text else []
        data = b"".join(text.ljust(TEXT_BYTES, b"\0") for text in texts)
        data = data or bytes((ctypes.c_float * len(feed))(*feed))
        sizes = (ctypes.c_int64 * 1)(len(feed))
        tensor = self.tf.TF_AllocateTensor(STRING if is_text else FLOAT, sizes, 1, ctypes.c_size_t(len(data)))
        ctypes.memmove(self.tf.TF_TensorData(pointer(tensor)), data, len(data))
        return int(tensor)

    def _output(self, tensor: str) -> Output:
        name, _, index = tensor.partition(":")
        return Output(self.tf.TF_GraphOperationByName(self.graph, name.encode()), int(index or 0))

    def _check(self) -> None:
        if self.tf.TF_GetCode(self.status):
            raise Failed(self.tf.TF_Message(self.status).decode())


def pointer(value: int | None) -> ctypes.c_void_p:
    """Return a pointer that is passed on in full."""
    return ctypes.c_void_p(value)


def view(tf: Any, root: str, feed: list[Any], given: str, wanted: str) -> Any:
    """Return what one SavedModel answers, or how it fails."""
    place = "loading"
    try:
        model = Model(tf, root)
        place = "asking"
        return model.ask(feed, given, wanted) if feed else []
    except Failed as error:
        return {place: str(error)}


def main() -> None:
    """Look at every SavedModel of the input."""
    tf = library()
    json.dump([view(tf, *item) for item in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
