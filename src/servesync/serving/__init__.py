"""What the model server says, what it takes of the memory, and its `models.config`."""

from typing import TYPE_CHECKING

from servesync.serving.footprint import Limit, ServerFootprint, find_budget
from servesync.serving.rpc import RpcServer, require_grpc

if TYPE_CHECKING:
    from servesync.serving.rest import ModelServer

__all__ = ["Limit", "RpcServer", "ServerFootprint", "connect", "find_budget", "require_grpc"]


def connect(
    rest_url: str | None, grpc_target: str | None, wall_seconds: float = 10.0
) -> "ModelServer | RpcServer | None":
    """Return the server's REST interface, or its gRPC interface where there is no REST; None without both."""
    if rest_url:
        from servesync.serving.rest import ModelServer  # noqa: PLC0415 (the HTTP client takes a while)

        return ModelServer(rest_url, wall_seconds)
    return RpcServer(grpc_target, wall_seconds) if grpc_target else None
