"""The service grpc.health.v1.Health, which reports whether the server and its services are serving.

Every caller may use it, without a token. So the number of open watches is bounded, and the service
has its own threads: health checks and predictions do not delay each other.

gRPC's clients can be told to watch the health of each server, and to call only one that serves. A
watch beyond the bound is refused with UNIMPLEMENTED, which such a client takes for "healthy, and
not watched" (gRFC A17). After any other code it would not call this server until the watch works.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2

from mnist37_server.errors import Exhausted, NotFound
from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.registration import register
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import abort, cancellable_unary_handler, details, stream_handler
from mnist37_server.rpc.threads.thread_pools import assign_pool

HealthCheckResponse = health_pb2.HealthCheckResponse
DESCRIPTOR = health_pb2.DESCRIPTOR.services_by_name["Health"]
NAME = health.SERVICE_NAME
WATCHES_MAX = 256  # that are open at a time
DEVICE = "mnist37-device"  # the key of the trailing metadata in which Check names the device


class Health(health.HealthServicer):
    """The health service. It reports SERVING for every service until `begin_shutdown`.

    Args:
        services: the names of the services. The empty name, for the server as a whole, is added.
        threads: the pool for the calls.
        device: the device of the model, as torch prints it.
        serving: whether the server serves already; otherwise it does from `begin_serving` on.
    """

    def __init__(
        self,
        services: Iterable[str],
        threads: ThreadPoolExecutor,
        device: str,
        serving: bool = True,
    ) -> None:
        # With these arguments a Watch holds a thread. Without a thread, one watcher that reads
        # nothing would block all calls: grpcio then sends while it holds the lock that each Check
        # takes.
        super().__init__(experimental_non_blocking=False, experimental_thread_pool=threads)
        assign_pool(threads, self, ["Check", "List"])
        self.serving = serving
        # guarded by _change_lock: changes of serving, and _is_shutting_down
        self._change_lock = threading.Lock()
        self._is_shutting_down = False
        self._device_metadata = ((DEVICE, device),)
        self._names = {health.OVERALL_HEALTH, *services}
        self._limit = StreamLimit(WATCHES_MAX, "watches of the health", is_open=True)
        for name in self._names:
            self.set(name, self._status())

    @cancellable_unary_handler
    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service; the trailing metadata name the model's device."""
        if request.service not in self._names:
            names = ", ".join(filter(None, sorted(self._names)))
            raise NotFound(
                f"service: there is no {request.service[:64]!r} here; leave it empty or name one of"
                f" {names}",
                service=request.service[:64],
            )
        context.set_trailing_metadata(self._device_metadata)
        return super().Check(request, context)

    @cancellable_unary_handler
    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """Return the status of each service."""
        return health_pb2.HealthListResponse(
            statuses={name: HealthCheckResponse(status=self._status()) for name in self._names}
        )

    def _status(self) -> health_pb2.HealthCheckResponse.ServingStatus:
        return HealthCheckResponse.SERVING if self.serving else HealthCheckResponse.NOT_SERVING

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Yield the status of a service, and each change of it."""
        try:
            with self._limit.admit(context):
                yield from self._watch(request, context)
        except Exhausted as error:
            abort(context, grpc.StatusCode.UNIMPLEMENTED, str(error), *details(error))

    @stream_handler
    def _watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        if request.service not in self._names:
            # grpcio keeps every name that was ever watched. No service is added later, so one name
            # can stand for all unknown ones, and the memory stays bounded.
            request = health_pb2.HealthCheckRequest(service="unknown")
        watcher = super().Watch(request, context)
        if not context.is_active():  # perhaps since before Watch asked to be told of the call's end
            watcher.close()
        yield from watcher

    def begin_serving(self) -> None:
        """Report SERVING for every service from now on, unless the shutdown has begun."""
        with self._change_lock:
            if self._is_shutting_down:
                return
            self.serving = True
            for name in self._names:
                self.set(name, self._status())

    def begin_shutdown(self) -> None:
        """Report NOT_SERVING for every service from now on, to open watches immediately."""
        with self._change_lock:
            self._is_shutting_down = True
            self.serving = False
        self.enter_graceful_shutdown()


def add_to(
    server: grpc.Server,
    services: Iterable[str],
    threads: ThreadPoolExecutor,
    device: str,
    slow_callers: SlowCallers | None = None,
    serving: bool = True,
) -> Health:
    """Add the health service to a server.

    Args:
        server: the server, not started yet.
        services: the names of its other services.
        threads: the pool for the calls, with as many threads as there can be calls. grpcio assigns
            a thread to a call before the request has arrived. So a client that never sends one
            holds a thread, and no stream limit counts it yet.
        device: the device of the model, as torch prints it.
        slow_callers: the limits for callers that are slow to send or to read.
        serving: whether the server serves already; otherwise it does from `begin_serving` on.

    Returns:
        The service.
    """
    health_service = Health(services, threads, device, serving)
    register(server, DESCRIPTOR, health_service, slow_callers or SlowCallers())
    return health_service
