"""Server reflection: what services there are, with all their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.status import stream_handler
from mnist37_server.rpc.thread_pools import assign_pool

MAX_REFLECTIONS = 16  # streams, open at a time

# The stable name of grpc.reflection.v1alpha; the messages are the same.
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Symbols:
    """All descriptors of the process, a method found by its name like anything else."""

    def __getattr__(self, name: str) -> object:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Raises KeyError where there is no such symbol."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # protobuf's own look-up passes methods by, which grpcurl describes too.
            return pool.FindMethodByName(symbol).containing_service.file


class Reflection(reflection.ReflectionServicer):
    """What services there are, with all their messages."""

    def __init__(self, services: Iterable[str], threads: ThreadPoolExecutor) -> None:
        super().__init__(services, pool=Symbols())
        assign_pool(threads, self, ["ServerReflectionInfo"])
        self._limit = StreamLimit(MAX_REFLECTIONS, "streams of the reflection")

    @stream_handler
    def ServerReflectionInfo(
        self,
        requests: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answers one question after the other."""
        with self._limit:
            yield from super().ServerReflectionInfo(requests, context)


def add_to(server: grpc.Server, services: Iterable[str], threads: ThreadPoolExecutor) -> None:
    """Put it on a server, under both of its names.

    Args:
        server: not started yet.
        services: the names of all other services.
        threads: for the calls; as many as there can be calls.
    """
    servicer = Reflection([*services, reflection.SERVICE_NAME], threads)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    stable = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((stable,))
