"""Writes what all scripts here make, one folder a script, since TensorFlow takes seconds to start.

Run as a script: `make_everything.py OUT`. In OUT there is also `operations.txt`, the names of all operations
that this TensorFlow has.
"""

import sys
from pathlib import Path

from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.python.client import pywrap_tf_session

import make_bad_example_models
import make_client_models
import make_echo_model
import make_example_models
import make_models
import make_retrained
import make_tf1_models
import make_trial_models
import make_unsafe_models
from servesync.demo.models import export_demo_models

SCRIPTS = (
    make_models,
    make_unsafe_models,
    make_tf1_models,
    make_retrained,
    make_echo_model,
    make_client_models,
    make_example_models,
    make_bad_example_models,
    make_trial_models,
)


def main(out: Path) -> None:
    """Write everything below a folder."""
    out.mkdir()
    registry = OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    (out / "operations.txt").write_text("\n".join(operation.name for operation in registry.op))
    make_models.two_devices()
    for module in SCRIPTS:
        module.main(out / module.__name__.removeprefix("make_"))
    export_demo_models(out / "exported")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
