"""Names for the types of grpcio's handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], "Handler | None"]
# What answers a call that may not pass; None for one that may.
Authorize: TypeAlias = Callable[[grpc.HandlerCallDetails], "Handler | None"]
