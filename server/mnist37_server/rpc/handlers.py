"""Type aliases for grpcio's handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], "Handler | None"]
# Returns the handler that refuses a call, or None if the call is allowed.
Authorize: TypeAlias = Callable[[grpc.HandlerCallDetails], "Handler | None"]
