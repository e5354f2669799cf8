"""The server reflection service, which lists the services with their messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.registration import register
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import stream_handler
from mnist37_server.rpc.threads.thread_pools import assign_pool

DESCRIPTOR = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
REFLECTIONS_MAX = 16  # streams that are open at a time

# The stable name of grpc.reflection.v1alpha. Both have the same messages.
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Symbols:
    """The descriptor pool of the process, which finds the file of a method by its name too."""

    def __getattr__(self, name: str) -> object:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Return the file that defines a symbol; raise KeyError if no file does."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # protobuf's lookup does not find methods, and grpcurl can ask for them.
            return pool.FindMethodByName(symbol).containing_service.file


class Reflection(reflection.ReflectionServicer):
    """The reflection service.

    Args:
        services: the names of all services, this one included.
        threads: the pool for the calls.
    """

    def __init__(self, services: Iterable[str], threads: ThreadPoolExecutor) -> None:
        super().__init__(services, pool=Symbols())
        assign_pool(threads, self, ["ServerReflectionInfo"])
        self._limit = StreamLimit(REFLECTIONS_MAX, "streams of the reflection", is_open=True)

    @stream_handler
    def ServerReflectionInfo(
        self,
        requests: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Yield the answer to each request, in order."""
        with self._limit.admit(context):
            yield from super().ServerReflectionInfo(requests, context)


def add_to(
    server: grpc.Server,
    services: Iterable[str],
    threads: ThreadPoolExecutor,
    slow_callers: SlowCallers | None = None,
) -> None:
    """Add the reflection service to a server, under its v1 and its v1alpha name.

    Args:
        server: the server, not started yet.
        services: the names of all other services.
        threads: the pool for the calls, with as many threads as there can be calls.
        slow_callers: the limits for callers that are slow to send or to read.
    """
    servicer = Reflection([*services, reflection.SERVICE_NAME], threads)
    slow_callers = slow_callers or SlowCallers()
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        register(server, DESCRIPTOR, servicer, slow_callers, name=name, prompt_streams=True)
