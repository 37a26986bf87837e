"""The gRPC interface of TensorFlow Serving: status of models, and a configuration that counts at once.

Source: get_model_status.proto, model_management.proto, model_service.proto and model.proto in
tensorflow_serving/apis, model_server_config.proto in tensorflow_serving/config, status.proto in
tensorflow_serving/util, file_system_storage_path_source.proto in tensorflow_serving/sources/storage_path.
"""

import importlib.util
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import reduce
from types import ModuleType
from typing import Any, Final

from servesync.domain.versions import Model, Version
from servesync.errors import NoRequests, Reason, ServerDown, ServerError, SettingsError
from servesync.planning.facts import Served, ServerState
from servesync.serving.models_config import Entry, ModelsConfig
from servesync.wire import Field, Malformed, encoded, fields

STATUS_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.2
SHOWN_CHARACTERS: Final = 2000
_SERVICE: Final = "/tensorflow.serving.ModelService"
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))
_STATES: Final = {
    0: ServerState.UNKNOWN,
    10: ServerState.START,
    20: ServerState.LOADING,
    30: ServerState.AVAILABLE,
    40: ServerState.UNLOADING,
    50: ServerState.END,
}
_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class _Spec(IntEnum):
    """ModelSpec, and GetModelStatusRequest, whose only field is one."""

    MODEL_SPEC = 1
    NAME = 1


class _Status(IntEnum):
    """GetModelStatusResponse, ModelVersionStatus and StatusProto."""

    VERSIONS = 1
    VERSION = 1
    STATE = 2
    STATUS = 3
    ERROR_CODE = 1
    ERROR_MESSAGE = 2


class _Config(IntEnum):
    """ReloadConfigRequest, ModelServerConfig, ModelConfigList, ModelConfig, ServableVersionPolicy."""

    CONFIG = 1
    NAME = 1
    BASE_PATH = 2
    PLATFORM = 4
    POLICY = 7
    LABELS = 8
    LATEST = 100
    ALL = 101
    NUM_VERSIONS = 1
    KEY = 1
    VALUE = 2


def require_grpc() -> None:
    """Make sure that `serving.grpc_target` can be used.

    Raises:
        SettingsError: `SETTINGS_INVALID`: grpcio is not installed.
    """
    if importlib.util.find_spec("grpc") is None:
        what = "serving.grpc_target needs grpcio, which is not installed"
        raise SettingsError(Reason.SETTINGS_INVALID, what, "install servesync[grpc], or set it to null")


class RpcServer:
    """The gRPC interface of the server beside this agent."""

    def __init__(self, target: str, status_seconds: float = STATUS_SECONDS) -> None:
        self._target = target
        self._status_seconds = status_seconds
        self._grpc: ModuleType | None = None
        self._channel: Any = None

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return what the server says of every version of `model` that it has seen; nothing if it saw none.

        `should_stop`: asked now and then; once it says so, the answer is not waited for.

        Raises:
            ServerDown: there was no connection.
            ServerError: no answer, or one that is not a status.
        """
        request = encoded(_Spec.MODEL_SPEC, encoded(_Spec.NAME, model.encode()))
        try:
            answer = self._call("GetModelStatus", request, self._status_seconds, should_stop or _never)
        except ServerError as error:
            if error.facts.get("code") == "NOT_FOUND":
                return {}
            raise
        try:
            found = [_version(item) for item in fields(memoryview(answer)) if item.number == _Status.VERSIONS]
        except Malformed as error:
            text = f"the answer of {self._target} to GetModelStatus is no status ({error})"
            raise ServerError(Reason.SERVER_BAD_ANSWER, text) from error
        return {version: served for version, served in found if version >= 0}

    def ask(self, *_: object) -> tuple[int, bytes]:
        """Tell that requests are sent to the REST interface only: their bodies are JSON.

        Raises:
            NoRequests: always.
        """
        raise NoRequests(Reason.SERVER_UNREACHABLE, "serving.rest_url is null, where trial requests are sent")

    def reload(self, config: ModelsConfig, seconds: float, should_stop: Callable[[], bool]) -> None:
        """Give the server a configuration that counts at once; returns when its new models are loaded.

        The server may never answer (it does not after a load that failed): nothing is known then.

        Raises:
            ServerDown: there was no connection.
            ServerError: the server refuses the configuration, or has not answered in time.
        """
        answer = self._call("HandleReloadConfigRequest", reload_request(config), seconds, should_stop)
        try:
            code, message = _status(answer)
        except Malformed as error:
            text = f"the answer of {self._target} to HandleReloadConfigRequest is none ({error})"
            raise ServerError(Reason.SERVER_BAD_ANSWER, text) from error
        if code != "OK":
            text = f"the model server refuses the configuration ({code}: {message})"
            raise ServerError(Reason.SERVER_BAD_ANSWER, text, code=code)

    def _call(self, method: str, request: bytes, seconds: float, should_stop: Callable[[], bool]) -> bytes:
        call = self._method(method).future(request, timeout=seconds)
        while not should_stop():
            try:
                answer: bytes = call.result(timeout=LOOK_SECONDS)
            except self._module().FutureTimeoutError:
                continue
            except self._module().RpcError as error:
                raise self._failure(method, error) from error
            return answer
        call.cancel()
        raise ServerError(Reason.SERVER_UNREACHABLE, f"{method} of {self._target} was given up")

    def _failure(self, method: str, error: Any) -> ServerError:  # noqa: ANN401 (an RpcError, which is a Call)
        code = error.code().name
        text = (
            f"the model server at {self._target} (serving.grpc_target) does not answer {method} "
            f"({code}: {str(error.details())[:SHOWN_CHARACTERS]})"
        )
        kind = ServerDown if code == "UNAVAILABLE" else ServerError
        return kind(Reason.SERVER_UNREACHABLE, text, code=code)

    def _method(self, name: str) -> Any:  # noqa: ANN401 (a callable of grpc's)
        if self._channel is None:
            self._channel = self._module().insecure_channel(self._target, _OPTIONS)
        return self._channel.unary_unary(f"{_SERVICE}/{name}")

    def _module(self) -> ModuleType:
        """Return grpc, imported when it is first used: an agent without `serving.grpc_target` has none."""
        if self._grpc is None:
            self._grpc = importlib.import_module("grpc")
        return self._grpc


def reload_request(config: ModelsConfig) -> bytes:
    """Return a ReloadConfigRequest with what a models.config says."""
    models = [_model(name, entry) for name, entry in sorted(config.models.items())]
    listed = b"".join(encoded(_Config.CONFIG, model) for model in models)
    return reduce(lambda inner, _: encoded(_Config.CONFIG, inner), range(2), listed)


def _model(name: Model, entry: Entry) -> bytes:
    if entry.latest is None:
        policy = encoded(_Config.ALL, b"")
    else:
        policy = encoded(_Config.LATEST, encoded(_Config.NUM_VERSIONS, entry.latest))
    labels = b"".join(
        encoded(_Config.LABELS, encoded(_Config.KEY, label.encode()) + encoded(_Config.VALUE, version))
        for label, version in sorted(entry.labels.items())
    )
    return (
        encoded(_Config.NAME, name.encode())
        + encoded(_Config.BASE_PATH, entry.base_path.encode())
        + encoded(_Config.PLATFORM, b"tensorflow")
        + encoded(_Config.POLICY, policy)
        + labels
    )


def _version(item: Field) -> tuple[Version, Served]:
    version, state, status = 0, ServerState.UNKNOWN, ("OK", "")
    for part in fields(item.message()):
        match part.number:
            case _Status.VERSION:
                version = part.signed
            case _Status.STATE:
                state = _STATES.get(part.value, ServerState.UNKNOWN)
            case _Status.STATUS:
                status = _read_status(part.message())
            case _:
                pass
    return Version(version), Served(state, *status)


def _status(answer: bytes) -> tuple[str, str]:
    """Return code and message of a response whose first field is a StatusProto."""
    first = next((part for part in fields(memoryview(answer)) if part.number == 1), None)
    return ("OK", "") if first is None else _read_status(first.message())


def _read_status(data: memoryview) -> tuple[str, str]:
    code, message = "OK", ""
    for part in fields(data):
        if part.number == _Status.ERROR_CODE:
            code = _CODES[part.value] if part.value < len(_CODES) else "UNKNOWN"
        elif part.number == _Status.ERROR_MESSAGE:
            message = bytes(part.data).decode(errors="backslashreplace")[:SHOWN_CHARACTERS]
    return code, message


def _never() -> bool:
    return False
