"""A gRPC server that answers each method of the service with the bytes that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from mnist37_protos.v1 import mnist37_pb2 as pb

METHODS = pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods_by_name

# Of a call's request (or requests) and context. A method with one answer takes the first of these.
Answer = Callable[[Any, grpc.ServicerContext], Iterable[bytes]]


class Liar:
    """The server, on a port of its own; `answers` has what it says, by the names of methods."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            handlers=[_Handler(self)],
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def say(self, rpc: str, *messages: bytes) -> None:
        """Answer the calls of a method with these messages."""
        self.answers[rpc] = lambda _request, _context: messages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, liar: Liar) -> None:
        self._liar = liar

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = call.method.rpartition("/")[2]
        if name not in METHODS:  # a health check
            return None
        method = METHODS[name]

        def many(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            requests = list(request) if method.client_streaming else request
            yield from self._liar.answers[name](requests, context)

        def one(request: Any, context: grpc.ServicerContext) -> bytes:
            return next(many(request, context))

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(many)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(one)
