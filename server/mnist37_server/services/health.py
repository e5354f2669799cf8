"""grpc.health.v1: whether the server and its services are serving.

It is open to all, so what anybody can hold open is bounded, and none of it is in the way of
predictions, nor they in its way: it has threads of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mnist37_server.errors import NotFound
from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.status import cancellable_unary_handler, stream_handler
from mnist37_server.rpc.thread_pools import assign_pool

NAME = health.SERVICE_NAME
MAX_WATCHES = 256  # of the health, open at a time
DEVICE = "mnist37-device"  # the metadata in which Check names the device


class Health(health.HealthServicer):
    """Whether the server and each of its services are serving; they all are, until `leave`.

    Args:
        services: their names. The server as a whole has the empty name.
        threads: for the calls.
        device: the device of the model, as torch prints it.
    """

    def __init__(self, services: Iterable[str], threads: ThreadPoolExecutor, device: str) -> None:
        # A Watch holds a thread. Without one, a single watcher who reads nothing would block them
        # all: grpcio then sends while it holds the lock that each Check takes.
        super().__init__(experimental_non_blocking=False, experimental_thread_pool=threads)
        assign_pool(threads, self, ["Check"])
        self.serving = True
        self._about = ((DEVICE, device),)
        self._names = {health.OVERALL_HEALTH, *services}
        self._limit = StreamLimit(MAX_WATCHES, "watches of the health")
        for name in self._names:
            self.set(name, health_pb2.HealthCheckResponse.SERVING)

    @cancellable_unary_handler
    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """How a service is; the trailing metadata say on which device the model is."""
        if request.service not in self._names:
            known = ", ".join(filter(None, sorted(self._names)))
            raise NotFound(
                f"service: there is no {request.service[:64]!r} here; leave it empty or name one of"
                f" {known}",
                service=request.service[:64],
            )
        context.set_trailing_metadata(self._about)
        return super().Check(request, context)

    @stream_handler
    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """How a service is, and each change."""
        if request.service not in self._names:
            # grpcio remembers every name that was ever watched. None comes up later, so one does.
            request = health_pb2.HealthCheckRequest(service="unknown")
        with self._limit:
            yield from super().Watch(request, context)

    def begin_shutdown(self) -> None:
        """Says from now on that nothing is serving; watchers hear it at once."""
        self.serving = False
        self.enter_graceful_shutdown()


def add_to(
    server: grpc.Server, services: Iterable[str], threads: ThreadPoolExecutor, device: str
) -> Health:
    """Put it on a server that has these other services.

    Args:
        server: not started yet.
        services: their names.
        threads: for the calls. As many as there can be calls: grpcio gives a call its thread before
            its message is there, so whoever never sends one holds a thread and is in no room.
        device: the device of the model, as torch prints it.
    """
    health_service = Health(services, threads, device)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    return health_service
