"""Asks TensorFlow Serving over gRPC, without TensorFlow. Needs grpcio and protobuf, and `tfs_messages.py`.

    python grpc_client.py --model answer_bot --version 2 --input x predict '[[1.0], [2.0]]'
    python grpc_client.py --model answer_bot --label stable --input x predict '[[1.0], [2.0]]'
    python grpc_client.py --model answer_bot status

Against REST: no detour over decimal text, and the answer says which version gave it.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc

from tfs_messages import (
    STATES,
    DType,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
    Tensor,
)

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"
UNKNOWN_LABEL: Final = "Unrecognized servable version label"
MAX_MESSAGE_BYTES: Final = 64 << 20
RETRY_POLICY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""Asked again is what no server answered: gRPC does it, within the deadline of the call."""


class NotServed(Exception):
    """The server does not have this version, or does not know this label: now, or not yet, or no longer."""


@dataclass(frozen=True)
class Target:
    """Which version of a model is meant: a number, a label, or (neither) the highest that is loaded."""

    model: str
    version: int | None = None
    label: str | None = None

    def fill(self, spec: Any) -> None:  # noqa: ANN401 (made at run time)
        """Write this into a ModelSpec."""
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label


@dataclass(frozen=True)
class Prediction:
    """The outputs by name, and the version that they are from."""

    version: int
    outputs: Mapping[str, Tensor]


class GrpcClient:
    """One model server. Keeps its connection: make one for the process, and use it from any thread.

    `timeout_seconds` is the deadline of a call, retries included; the server sees it, too.
    """

    def __init__(self, address: str, *, timeout_seconds: float = 5.0) -> None:
        self._timeout_seconds = timeout_seconds
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.service_config", json.dumps(RETRY_POLICY)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        self._predict = self._channel.unary_unary(
            PREDICT, PredictRequest.SerializeToString, PredictResponse.FromString
        )
        self._status = self._channel.unary_unary(
            STATUS, GetModelStatusRequest.SerializeToString, GetModelStatusResponse.FromString
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connection."""
        self._channel.close()

    def predict(
        self, target: Target, inputs: Mapping[str, Tensor], *, signature: str = "serving_default"
    ) -> Prediction:
        """Return what a version makes of `inputs`, which are named as the signature names them.

        Raises:
            NotServed: this version is not there, or the label is unknown.
            grpc.RpcError: anything else, in its `code()` and `details()`.
        """
        request = PredictRequest()
        target.fill(request.model_spec)
        request.model_spec.signature_name = signature
        for name, tensor in inputs.items():
            tensor.fill(request.inputs.add(key=name).value)
        answer = self._call(self._predict, request)
        outputs = {item.key: Tensor.read(item.value) for item in answer.outputs}
        return Prediction(answer.model_spec.version.value, outputs)

    def states(self, model: str) -> dict[int, str]:
        """Return the state of every version that the server has seen since it started, highest first.

        Raises:
            NotServed: it has never seen one.
            grpc.RpcError: anything else.
        """
        request = GetModelStatusRequest()
        Target(model).fill(request.model_spec)
        answer = self._call(self._status, request)
        return {item.version: STATES.get(item.state, "UNKNOWN") for item in answer.model_version_status}

    def _call(self, method: Any, request: object) -> Any:  # noqa: ANN401 (made at run time)
        try:
            return method(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            text = error.details() or ""
            if error.code() is grpc.StatusCode.NOT_FOUND or text.startswith(UNKNOWN_LABEL):
                raise NotServed(text) from error
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one request and print the answer as JSON; 1 if there was none."""
    parser = argparse.ArgumentParser(description="Ask TensorFlow Serving over gRPC.")
    parser.add_argument("--address", default="127.0.0.1:8500")
    parser.add_argument("--model", required=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int)
    which.add_argument("--label")
    parser.add_argument("--input", default="x", help="the input's name in the signature")
    parser.add_argument("--dtype", default="FLOAT", choices=[kind.name for kind in DType])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("predict").add_argument("values", type=json.loads, help="nested JSON lists")
    commands.add_parser("status")
    given = parser.parse_args(arguments)
    try:
        with GrpcClient(given.address) as client:
            found = _predicted(client, given) if given.command == "predict" else client.states(given.model)
    except NotServed as error:
        print(f"NotServed: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1, default=lambda text: text.decode(errors="backslashreplace")))
    return 0


def _predicted(client: GrpcClient, given: argparse.Namespace) -> dict[Any, Any]:
    dtype = DType[given.dtype]
    values = _as_bytes(given.values) if dtype is DType.STRING else given.values
    target = Target(given.model, given.version, given.label)
    answer = client.predict(target, {given.input: Tensor.of(values, dtype)})
    outputs = {name: tensor.nested() for name, tensor in answer.outputs.items()}
    return {"version": answer.version, "outputs": outputs}


def _as_bytes(value: Any) -> Any:  # noqa: ANN401 (nested as the argument is)
    return [_as_bytes(item) for item in value] if isinstance(value, list) else str(value).encode()


if __name__ == "__main__":
    sys.exit(main())
