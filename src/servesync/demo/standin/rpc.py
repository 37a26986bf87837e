"""The gRPC interface: status of models, and a new configuration; it needs grpcio, as the demo does not.

Messages are those of `servesync.serving.rpc`, which names their sources.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Final

from servesync.demo.standin.codes import Code, RequestFailed
from servesync.demo.standin.config import BadConfig, ModelConfig, Policy
from servesync.demo.standin.monitor import State
from servesync.demo.standin.server import Serving
from servesync.wire import Malformed, encoded, fields

SERVICE: Final = "tensorflow.serving.ModelService"
WORKERS: Final = 8
_STATES: Final = {
    State.START: 10,
    State.LOADING: 20,
    State.AVAILABLE: 30,
    State.UNLOADING: 40,
    State.END: 50,
}
_CODES: Final = list(Code)
FOR_EVER: Final = 1 << 20

Method = Callable[[bytes, Any], bytes]


def listen(serving: Serving, port: int, *, blocks: bool) -> Any:  # noqa: ANN401 (a server of grpc's)
    """Open the port on loopback; `blocks`: no new configuration is ever answered, or taken.

    Raises:
        OSError: something else has it.
    """
    grpc = import_module("grpc")
    methods: dict[str, Method] = {
        "GetModelStatus": lambda data, _: _status(serving, data),
        "HandleReloadConfigRequest": lambda data, _: _reload(serving, data, blocks=blocks),
    }

    def guarded(method: Method) -> Method:
        def answer(data: bytes, context: Any) -> bytes:  # noqa: ANN401 (a ServicerContext)
            try:
                return method(data, context)
            except RequestFailed as error:
                context.abort(getattr(grpc.StatusCode, error.code), str(error))
                raise

        return answer

    server = grpc.server(ThreadPoolExecutor(WORKERS), options=(("grpc.so_reuseport", 0),))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(guarded(method)) for name, method in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise OSError(str(error)) from error
    server.start()
    return server


def _status(serving: Serving, data: bytes) -> bytes:
    name, version = "", None
    for spec in _messages(data, 1):
        for part in fields(spec):
            if part.number == 1:
                name = part.text()
            elif part.number == 2:  # noqa: PLR2004 (version)
                version = next((inner.signed for inner in fields(part.message())), 0)
    out = b""
    for number, status in serving.status(name, version).items():
        said = encoded(1, _CODES.index(Code(status.error_code))) + encoded(2, status.error_message.encode())
        listed = encoded(1, number) + encoded(2, _STATES[State(status.state)]) + encoded(3, said)
        out += encoded(1, listed)
    return out


def _reload(serving: Serving, data: bytes, *, blocks: bool) -> bytes:
    if blocks:
        time.sleep(FOR_EVER)
    try:
        models = [
            _model(config)
            for outer in _messages(data, 1)
            for listed in _messages(outer, 1)
            for config in _messages(listed, 1)
        ]
    except Malformed as error:
        raise RequestFailed(Code.INVALID_ARGUMENT, str(error)) from error
    try:
        failed = serving.reload(models)
    except BadConfig as error:
        raise RequestFailed(Code.FAILED_PRECONDITION, str(error)) from error
    if failed:
        text = f"{len(failed)} model(s) did not become available: {', '.join(failed)}"
        raise RequestFailed(Code.UNKNOWN, text)
    return encoded(1, b"")


def _messages(data: bytes | memoryview, number: int) -> list[memoryview]:
    return [part.message() for part in fields(memoryview(data)) if part.number == number]


def _model(config: memoryview) -> ModelConfig:
    texts = {part.number: part.text() for part in fields(config) if part.number in {1, 2, 4}}
    labels = {}
    for entry in _messages(config, 8):
        inner = {part.number: part for part in fields(entry)}
        labels[inner[1].text()] = inner[2].signed if 2 in inner else 0  # noqa: PLR2004 (the value)
    policy = Policy()
    for told in _messages(config, 7):
        for choice in fields(told):
            if choice.number == 101:  # noqa: PLR2004 (all)
                policy = Policy("all")
            elif choice.number == 100:  # noqa: PLR2004 (latest)
                policy = Policy("latest", next((part.value for part in fields(choice.message())), 1))
    return ModelConfig(texts.get(1, ""), texts.get(2, ""), policy, labels, texts.get(4, ""))
