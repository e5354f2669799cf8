"""A server of gRPC's calls over ASGI, for handlers and interceptors that are grpcio's.

So the services of mnist37_server answer in Envoy as they do in their own process: what they decode,
refuse, count and encode is written once. A handler runs in the event loop itself, which costs
least; one that would have to wait is begun again on a thread. The thread of the event loop must
have called `never_wait`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple, TypeAlias

import grpc
from mnist37_server.access.roles import OPEN
from mnist37_server.rpc.handlers import Continuation, Handler
from mnist37_server.rpc.slow_callers import CanceledCalls
from mnist37_server.rpc.threads.elastic_pool import MustWait
from mnist37_server.services.health import WATCHES_MAX

from mnist37_front.asgi.context import Aborted, AsgiContext, Pairs
from mnist37_front.asgi.exchanges import Exchange, begin
from mnist37_front.asgi.frames import (
    CONTENT_TYPE,
    OK_TRAILERS,
    START,
    Disconnected,
    InvalidFrame,
    Message,
    Receive,
    Send,
    frame,
    read_message,
    trailers,
)
from mnist37_front.asgi.held_messages import HeldMessages

Scope = Mapping[str, Any]
Intercept: TypeAlias = "Callable[[Continuation, grpc.HandlerCallDetails], Handler | None]"

THREADS = 160  # for calls that wait: 64 for a floor, 64 for the owner, and large messages
# For streams, each of which holds one to its end: all watches of the health, and more to refuse.
STREAM_THREADS = WATCHES_MAX + 16
OPEN_MESSAGE_BYTES_MAX = 64 << 10  # to a method that needs no token: the name of a service
DROPPED = "CANCELLED"  # the text of gRPC's core for a call that its server has dropped
LARGE_BYTES = 1 << 20  # of a message; a larger one would keep the event loop for a millisecond


log = logging.getLogger(__name__)


class CallDetails(NamedTuple):
    """The details of a call that an interceptor sees, as grpc.HandlerCallDetails has them."""

    method: str
    invocation_metadata: Pairs


class AsgiServer:
    """The handlers of the methods, called over ASGI.

    It takes the place of a grpc.Server where services are added.

    Args:
        intercept: of an interceptor; None if there is none.
        message_bytes_max: the most bytes of a message.
        message_seconds_max: how long a caller may take to send one.
    """

    def __init__(
        self, intercept: Intercept | None, message_bytes_max: int, message_seconds_max: float
    ) -> None:
        self._intercept = intercept
        self._bytes_max = message_bytes_max
        self._seconds_max = message_seconds_max
        self._handlers: dict[str, Handler] = {}
        self._threads = ThreadPoolExecutor(THREADS, "wait")
        self._stream_threads = ThreadPoolExecutor(STREAM_THREADS, "stream")
        self._canceled = CanceledCalls()
        self._held = HeldMessages(message_bytes_max)
        self._drops: set[asyncio.Future[None]] = set()  # that the loop does not forget

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Add the handlers of a service, as grpc.Server does."""
        for name, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{name}"] = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call. Of its metadata, the handlers see the authorization alone."""
        timeout = None
        metadata: Pairs = ()
        for name, value in scope["headers"]:
            if name == b"authorization":
                metadata = (*metadata, ("authorization", value.decode("latin-1")))
            elif name == b"grpc-timeout":
                timeout = value
        path = scope["path"]
        is_open = path.startswith(OPEN)
        context = AsgiContext(
            metadata, timeout, OPEN_MESSAGE_BYTES_MAX if is_open else self._bytes_max
        )
        if self._intercept is None:
            handler = self._handlers.get(path)
        else:
            details: Any = CallDetails(path, metadata)
            handler = self._intercept(self._find, details)
        try:
            if handler is None:
                context.set_details(f"Method not found: {path[:200]}")
                await end(send, context, grpc.StatusCode.UNIMPLEMENTED)
            elif handler.response_streaming:
                await self._stream(handler, context, receive, send)
            else:
                await self._call(handler, context, receive, send)
        except Disconnected:
            pass
        except OSError:  # of `send`, as ASGI has it: the caller has gone, and is told nothing
            with suppress(OSError):
                await end(send, context, grpc.StatusCode.INTERNAL)
        except Exception:
            # The handlers turn theirs into statuses. Without one the caller would take a call that
            # has failed for one that has succeeded.
            log.exception("a call has failed: %s", path)
            await end(send, context, grpc.StatusCode.INTERNAL)
        finally:
            context.end()

    def _find(self, details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handlers.get(details.method)

    async def _call(
        self, handler: Handler, context: AsgiContext, receive: Receive, send: Send
    ) -> None:
        """Answer a call whose answer is one message."""
        call: Any = handler.stream_unary
        message = await self._read(call, context, receive, send)
        if message is STOPPED:
            return
        requests = [] if message is None else [message]
        try:
            if message is not None and len(message) > LARGE_BYTES:
                raise MustWait
            answer = call(iter(requests), context)
        except MustWait:
            loop = asyncio.get_running_loop()
            run = copy_context().run
            answer = await loop.run_in_executor(
                self._threads, lambda: run(outcome, call, iter(requests), context)
            )
        except Aborted:
            answer = None
        if answer is None or context.code() is not None:
            await end(send, context, context.code() or grpc.StatusCode.UNKNOWN)
            return
        encode = handler.response_serializer
        await send(START)
        await send(frame(answer if encode is None else encode(answer)))
        if context.trailing_metadata():
            found = trailers(context, grpc.StatusCode.OK)
            await send({**OK_TRAILERS, "headers": found})
        else:
            await send(OK_TRAILERS)

    async def _stream(
        self, handler: Handler, context: AsgiContext, receive: Receive, send: Send
    ) -> None:
        """Answer a call whose answer is a stream, or a refusal; a thread waits for its messages."""
        call: Any = handler.stream_stream
        message = await self._read(call, context, receive, send)
        if message is STOPPED:
            return
        answers = outcome(call, iter([] if message is None else [message]), context)
        if answers is None:
            await end(send, context, context.code() or grpc.StatusCode.UNKNOWN)
            return
        encode: Any = handler.response_serializer or bytes
        loop = asyncio.get_running_loop()
        gone = asyncio.ensure_future(wait_until_gone(Exchange(receive, send, "POST").receive))
        gone.add_done_callback(lambda _: context.end())
        is_started = False
        try:
            run = copy_context().run
            while True:
                answer = await loop.run_in_executor(
                    self._stream_threads, lambda: run(outcome, next, answers, END)
                )
                if answer is END or answer is None:
                    break
                if not is_started:
                    is_started = True
                    await send(START)
                await send({**frame(encode(answer)), "more_body": True})
        finally:
            gone.cancel()
        code = context.code() or grpc.StatusCode.OK
        if not is_started:
            await end(send, context, code)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await send({**OK_TRAILERS, "headers": trailers(context, code)})

    async def _read(self, call: object, context: AsgiContext, receive: Receive, send: Send) -> Any:  # noqa: ANN401 - bytes, None or STOPPED
        """Return the message of a call, or STOPPED after a status that says what is wrong with it.

        A call that is refused needs no message.
        """
        if getattr(call, "__name__", "") == "refuse_call":
            return None
        # asyncio.timeout would cost a call 5 us, and pyvoy logs an error if `receive` is cancelled.
        timer = asyncio.get_running_loop().call_later(self._seconds_max, self._drop, context, send)
        try:
            message = await read_message(
                receive,
                context.message_bytes_max,
                lambda size: self._held.add(context, size, lambda: self._drop(context, send)),
            )
        except InvalidFrame as error:
            context.set_details(str(error))
            await end(send, context, error.code)
            return STOPPED
        finally:
            timer.cancel()
            self._held.complete(context)
        return STOPPED if context.has_ended else message

    def _drop(self, context: AsgiContext, send: Send) -> None:
        """End a call whose caller was too slow; Envoy then says that the caller is gone."""
        self._canceled.add()
        context.set_details(DROPPED)
        context.end()
        task = begin(end(send, context, grpc.StatusCode.CANCELLED))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)


END = object()  # of a stream
STOPPED = object()  # a call that has got its status


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return what a function returns, or None if it ends the call with a status."""
    try:
        return call(*arguments)
    except Aborted:
        return None


async def wait_until_gone(receive: Receive) -> None:
    """Wait until the caller has gone."""
    event: Message = {"type": ""}
    while event["type"] != "http.disconnect":
        event = await receive()


async def end(send: Send, context: AsgiContext, code: grpc.StatusCode) -> None:
    """Send a status without a message: the trailers are the headers."""
    headers = [CONTENT_TYPE, *trailers(context, code)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
