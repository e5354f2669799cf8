"""The application in Envoy: predictions and health by gRPC, the page and the HTTP API by HTTP."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from mnist37_server.app import CONTRACTS, create_auth_interceptor
from mnist37_server.assembly.follower import Follower
from mnist37_server.errors import CannotStart
from mnist37_server.observability import logs
from mnist37_server.rpc.registration import register
from mnist37_server.rpc.threads.elastic_pool import never_wait
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service, open_inference

from mnist37_front.asgi.context import AsgiContext
from mnist37_front.asgi.frames import Receive, Send, trailers
from mnist37_front.asgi.server import AsgiServer, CallDetails, Scope, outcome
from mnist37_front.envoy.routes import AUTHORIZE
from mnist37_front.http import HttpApplications
from mnist37_front.settings import LOGGED, FrontSettings

# The types of gRPC, as Envoy knows them. It comes by HTTP/2 alone: by HTTP/1.1, a page in a browser
# could send such calls, past what keeps foreign pages out.
GRPC, GRPC_KINDS = b"application/grpc", (b"application/grpc+", b"application/grpc;")


class Front:
    """A follower and its services, in one event loop.

    Args:
        settings: of the front.

    Raises:
        CannotStart: a file of the settings cannot be used.
    """

    def __init__(self, settings: FrontSettings) -> None:
        logs.configure(settings.log_format, settings.log_level, LOGGED)
        config = settings.server_config()
        auth = self._auth = create_auth_interceptor(config)
        self._metrics: Any = None
        if config.parsed_metrics_address is not None:
            from mnist37_server.observability.prometheus import MetricsEndpoint

            self._metrics = MetricsEndpoint(
                config.parsed_metrics_address, CONTRACTS, auth.authorize if auth else None
            )
        interceptor = self._metrics.rpcs if self._metrics else auth
        self.grpc = AsgiServer(
            interceptor.intercept_service if interceptor else None,
            config.max_message_mib * 2**20,
            config.message_timeout,
        )
        self.http = HttpApplications(settings)
        self._end_pipe = settings.end_pipe
        assert config.following is not None
        self.follower = Follower(config.following, config.parsed_address)
        if self._metrics:
            self._metrics.observe(self.follower.collector())
        self.health = self._add_services()

    def begin(self) -> None:
        """Follow the owner."""
        self.follower.begin(self.health)
        threading.Thread(target=self._await_end, name="end", daemon=True).start()

    def _await_end(self) -> None:
        """Say that the front is no longer serving as soon as the launcher ends it."""
        with self._end_pipe.open("rb") as pipe:
            pipe.read()
        self._stop()

    async def authorize(self, scope: Scope, send: Send) -> None:
        """Answer Envoy whether a call may be passed on, by its path and its token."""
        metadata = tuple(
            (name.decode(), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name == b"authorization"
        )
        details: Any = CallDetails(scope["path"].removeprefix(AUTHORIZE), metadata)
        refusal: Any = self._auth.authorize(details) if self._auth else None
        status, headers, text = 200, [], b""
        if refusal is not None:
            context = AsgiContext(metadata, None)
            outcome(refusal.stream_stream, iter(()), context)
            code = context.code() or grpc.StatusCode.UNAUTHENTICATED
            status = 403 if code is grpc.StatusCode.PERMISSION_DENIED else 401
            name = b"grpc-status-details-bin"
            headers = [(name, dict(trailers(context, code))[name])]
            text = context.details().encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def close(self) -> None:
        """End what the front has begun."""
        self._stop()
        if self._metrics:
            self._metrics.close()

    def _stop(self) -> None:
        """Say that the front is no longer serving, and end its connection to the owner."""
        self.health.begin_shutdown()
        self.follower.stop()

    def _add_services(self) -> health_service.Health:
        server: Any = self.grpc
        model = self.follower.model
        patient: Any = Patient()
        # No thread of it ever starts: AsgiServer has its own, and asks for no method's pool.
        threads: Any = ThreadPoolExecutor(1)
        service = mnist37_service.Mnist37Servicer(model, model, threads)
        register(server, mnist37_service.DESCRIPTOR, service, patient, mnist37_service.CODECS)
        services = [mnist37_service.SERVICE, open_inference.SERVICE]
        health = health_service.add_to(
            server, services, threads, str(model.device), patient, serving=False
        )
        open_inference.add_to(server, model, service, health, threads, patient)
        return health


class Patient:
    """The limits for slow callers where there are none: Envoy and AsgiServer have their own."""

    def receive(self, requests: Any, context: Any) -> bytes:  # noqa: ANN401, ARG002
        """Return the one message of a call.

        Raises:
            MalformedMessage: there is none.
        """
        from mnist37_server.errors import MalformedMessage

        for message in requests:
            return bytes(message)
        raise MalformedMessage("the call has no message; send exactly one")

    def receive_all(self, requests: Any, context: Any) -> Any:  # noqa: ANN401, ARG002
        """Return the messages of a call."""
        return requests

    def watch_answer(self, context: Any) -> None:  # noqa: ANN401
        """Do nothing."""


class Application:
    """The application of ASGI that Envoy calls.

    Envoy begins it once for each listener, in an event loop of its own. They share one front.
    """

    def __init__(self) -> None:
        # guarded by _lock: changes of _front and _lives
        self._lock = threading.Lock()
        self._front: Front | None = None
        self._lives = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as a listener does."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._front is not None
        # As it was sent: behind percent signs, the path could be a caller's, past Envoy's routes.
        if scope["raw_path"].startswith(AUTHORIZE.encode()):
            await self._front.authorize(scope, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-type":
                is_grpc = value == GRPC or value.startswith(GRPC_KINDS)
                if is_grpc and scope["http_version"] == "2":
                    await self._front.grpc(scope, receive, send)
                    return
                break
        await self._front.http(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        never_wait()  # this thread, which runs the event loop
        try:
            front = self._begin()
        except CannotStart as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        async with front.http.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        self._end()
        await send({"type": "lifespan.shutdown.complete"})

    def _begin(self) -> Front:
        with self._lock:
            if self._front is None:
                self._front = Front(FrontSettings.from_environment())
                self._front.begin()
                # The objects that exist now are never freed. Without freeze, a full garbage
                # collection would scan all of them: 0.2 s in which no call is answered.
                gc.freeze()
            self._lives += 1
            return self._front

    def _end(self) -> None:
        with self._lock:
            self._lives -= 1
            if self._front is not None and not self._lives:
                self._front.close()


app = Application()
