"""What the agent and the server say to each other over gRPC, against Google's own implementation."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import tfs_messages as tfs
from servesync.demo.server import ModelServer
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerDown, ServerError
from servesync.planning.facts import Served, ServerState
from servesync.serving import RpcServer
from servesync.serving.models_config import Entry, ModelsConfig
from servesync.serving.rpc import reload_request

M = Model("m")
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_NUMBERS: Final = {"int64": _FIELD.TYPE_INT64, "uint32": _FIELD.TYPE_UINT32, "string": _FIELD.TYPE_STRING}
SCHEMA: Final = {
    "Latest": {"num_versions": (1, "uint32")},
    "All": {},
    "Policy": {"latest": (100, "Latest"), "all": (101, "All")},
    "Label": {"key": (1, "string"), "value": (2, "int64")},
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "model_version_policy": (7, "Policy"),
        "version_labels": (8, "Label*"),
    },
    "ModelConfigList": {"config": (1, "ModelConfig*")},
    "ModelServerConfig": {"model_config_list": (1, "ModelConfigList")},
    "ReloadConfigRequest": {"config": (1, "ModelServerConfig")},
}
"""The fields of tensorflow_serving's messages, by their .proto files."""


def request_class() -> Any:
    """Return the class of ReloadConfigRequest."""
    file = descriptor_pb2.FileDescriptorProto(name="reload.proto", package="reload", syntax="proto3")
    for name, members in SCHEMA.items():
        message = file.message_type.add(name=name)
        for member, (number, kind) in members.items():
            label = _FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL
            field = message.field.add(name=member, number=number, label=label)
            if kind in _NUMBERS:
                field.type = _NUMBERS[kind]
            else:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".reload.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("reload.ReloadConfigRequest"))


def test_the_configuration_says_what_the_file_says() -> None:
    """Names, base paths, policies and labels, read by protobuf."""
    config = ModelsConfig(
        {
            Model("b"): Entry("/models/b", 2),
            M: Entry("/models/m", None, {"stable": Version(1), "canary": Version(2**62)}),
        }
    )

    request = request_class().FromString(reload_request(config))

    first, second = request.config.model_config_list.config
    assert (first.name, first.base_path, first.model_platform) == ("b", "/models/b", "tensorflow")
    assert first.model_version_policy.latest.num_versions == 2
    assert second.model_version_policy.HasField("all")
    assert {label.key: label.value for label in second.version_labels} == {"stable": 1, "canary": 2**62}


def test_no_model_is_a_configuration_too() -> None:
    """The list is there, and empty: the server wants that."""
    request = request_class().FromString(reload_request(ModelsConfig()))

    assert request.config.HasField("model_config_list")


@contextmanager
def service(answer: Any) -> Iterator[RpcServer]:
    """Run a service that answers with `answer(method, data, context)`."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda data, context, name=name: answer(name, data, context)
        )
        for name in ("GetModelStatus", "HandleReloadConfigRequest")
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", methods),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = RpcServer(f"127.0.0.1:{port}", 5)
    try:
        yield client
    finally:
        client.close()
        server.stop(0).wait()


def test_states_codes_and_messages_are_understood() -> None:
    """Every state; negative numbers are no versions of ours."""
    states = {1: 0, 2: 10, 3: 20, 4: 30, 5: 40, 6: 50, -7: 30}
    found = tfs.GetModelStatusResponse()
    for version, state in states.items():
        item = found.model_version_status.add(version=version, state=state)
        if state == 50:
            item.status.error_code, item.status.error_message = 5, "gone"

    def answer(_: str, data: bytes, __: Any) -> bytes:
        assert tfs.GetModelStatusRequest.FromString(data).model_spec.name == "m"
        return bytes(found.SerializeToString())

    with service(answer) as server:
        said = server.status(M)

    assert [said[Version(number)].state for number in range(1, 6)] == list(ServerState)[:5]
    assert said[Version(6)] == Served(ServerState.END, "NOT_FOUND", "gone")
    assert len(said) == 6


def test_a_model_that_was_never_seen_has_no_version() -> None:
    """That is an answer."""
    with service(lambda _, __, context: context.abort(grpc.StatusCode.NOT_FOUND, "no versions")) as server:
        assert server.status(M) == {}


def test_a_refused_configuration_is_told_in_the_servers_words() -> None:
    """And so is what is no answer at all."""
    code = grpc.StatusCode.FAILED_PRECONDITION
    with (
        service(lambda _, __, context: context.abort(code, "label to a version that is not")) as server,
        pytest.raises(ServerError, match="label to a version that is not") as caught,
    ):
        server.reload(ModelsConfig(), 5, lambda: False)
    assert caught.value.facts["code"] == "FAILED_PRECONDITION"

    with service(lambda *_: b"\xff\xff") as server, pytest.raises(ServerError) as caught:
        server.status(M)
    assert caught.value.reason is Reason.SERVER_BAD_ANSWER


def test_where_nothing_listens_the_server_is_down() -> None:
    """As over REST, that is another thing than silence."""
    server = RpcServer(f"127.0.0.1:{ModelServer.free_port()}", 5)
    with pytest.raises(ServerDown):
        server.status(M)
    server.close()


def test_a_call_that_hangs_ends_with_its_time_or_when_nobody_wants_it() -> None:
    """The job can be cancelled."""
    import threading  # noqa: PLC0415 (only here)

    over = threading.Event()

    def hang(*_: Any) -> bytes:
        over.wait(60)
        return b""

    with service(hang) as server:
        with pytest.raises(ServerError) as caught:
            server.reload(ModelsConfig(), 0.5, lambda: False)
        assert caught.value.facts["code"] == "DEADLINE_EXCEEDED"
        with pytest.raises(ServerError, match="given up"):
            server.reload(ModelsConfig(), 60, lambda: True)
        over.set()
