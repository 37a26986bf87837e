"""A module like `tensorflow_text`: whoever imports it beside TensorFlow has one operation more.

The operation is real: it is registered by TensorFlow's C interface, as a compiled library registers its own.
`ServesyncEcho` gives back its input, a tensor of floats; if the first of them is negative, it dies of a check
inside of TensorFlow.
"""

import ctypes
from pathlib import Path
from typing import Any

import tensorflow as tf

NAME = b"ServesyncEcho"
_PACKAGE = Path(tf.__file__).parent
_lib = ctypes.CDLL(str(_PACKAGE / "libtensorflow_cc.so.2"))
for _name in ("NewStatus", "NewOpDefinitionBuilder", "NewKernelBuilder", "TensorData"):
    getattr(_lib, f"TF_{_name}").restype = ctypes.c_void_p
_lib.TF_Message.restype = ctypes.c_char_p
_status = ctypes.c_void_p(_lib.TF_NewStatus())


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _compute(_kernel: Any, context: int) -> None:
    tensor = ctypes.c_void_p()
    _lib.TF_GetInput(ctypes.c_void_p(context), 0, ctypes.byref(tensor), _status)
    first = ctypes.c_float.from_address(_lib.TF_TensorData(tensor)).value
    if first < 0:
        _lib.TF_ExpectedOutputDataType(
            ctypes.c_void_p(context), 99
        )  # an output that it has not: a failed check
    _lib.TF_SetOutput(ctypes.c_void_p(context), 0, tensor, _status)


def _register() -> None:
    """Tell TensorFlow of the operation, and of how a CPU carries it out."""
    definition = ctypes.c_void_p(_lib.TF_NewOpDefinitionBuilder(NAME))
    _lib.TF_OpDefinitionBuilderAddInput(definition, b"x: float")
    _lib.TF_OpDefinitionBuilderAddOutput(definition, b"y: float")
    _lib.TF_RegisterOpDefinition(definition, _status)
    if _lib.TF_GetCode(_status):
        raise ImportError(_lib.TF_Message(_status).decode())
    kernel = ctypes.c_void_p(_lib.TF_NewKernelBuilder(NAME, b"CPU", None, _compute, None))
    _lib.TF_RegisterKernelBuilder(NAME, kernel, _status)
    if _lib.TF_GetCode(_status):
        raise ImportError(_lib.TF_Message(_status).decode())


_register()
