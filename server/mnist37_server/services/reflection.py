"""Server reflection: what services there are, with all their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mnist37_server.rpc.admission import Room
from mnist37_server.rpc.status import stream
from mnist37_server.rpc.thread_pools import run_on

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
        run_on(threads, self, ["ServerReflectionInfo"])
        self._room = Room(MAX_REFLECTIONS, "streams of the reflection")

    @stream
    def ServerReflectionInfo(
        self,
        requests: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answers one question after the other."""
        with self._room:
            yield from super().ServerReflectionInfo(requests, context)
