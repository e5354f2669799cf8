"""The calls of mnist37.v1 as JSON: one object, or one a line where the method has a stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

import orjson
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from mnist37_client.errors import Mnist37Error
from starlette.datastructures import Headers

from mnist37_web.access.bodies import JSON_MAX, ClientLeft
from mnist37_web.access.boundary import TOKEN, Receive, Scope, Send
from mnist37_web.access.disconnects import race, wait_for_disconnect, while_connected
from mnist37_web.errors import HttpError, bad_request
from mnist37_web.replies.json_replies import JsonReply, describe_error
from mnist37_web.rpc_json.transcoding import convert, parse, write
from mnist37_web.services import Services
from mnist37_web.upstream.callers import SECONDS

TIMEOUT = "X-Timeout-Seconds"
TIMEOUT_MAX = 86_400.0
LINES = b"application/x-ndjson"
QUEUED_LINES = 2  # of a stream's requests, which web has read and the server has not


class JsonCall:
    """An application of ASGI that makes one method's calls.

    Args:
        method: of the service.
    """

    def __init__(self, method: MethodDescriptor) -> None:
        self._path = f"/{method.containing_service.full_name}/{method.name}"
        self._request = GetMessageClass(method.input_type)
        self._answer = GetMessageClass(method.output_type)
        self._takes_stream = method.client_streaming
        self._answers_stream = method.server_streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the call that a request asks for, and reply."""
        headers = Headers(scope=scope)
        seconds = parse_timeout(headers.get(TIMEOUT))
        web: Services = scope["app"].state.services
        with web.bodies.hold() as held:
            if self._takes_stream:
                lines = held.read_lines(receive, JSON_MAX)
                requests = Requests(lines, self._request)
                with web.callers.of(scope[TOKEN]) as caller:
                    messages = aiter(requests)
                    answers = until(web.stopping, caller.stream(self._path, messages, seconds))
                    sending = self._send_lines(answers, send, requests)
                    with suppress(ClientLeft):  # which has ended the stream
                        await race(requests.read(receive), sending)
                return
            body = await held.read(receive, headers.get("content-length"), JSON_MAX)
            message = await convert(parse, self._request, body)
            # Only now: a body that comes slowly holds no caller's place.
            with web.callers.of(scope[TOKEN]) as caller:
                if self._answers_stream:
                    answers = until(web.stopping, caller.stream(self._path, message, seconds))
                    with suppress(ClientLeft):
                        await while_connected(receive, self._send_lines(answers, send))
                    return
                call = caller.call(self._path, message, SECONDS if seconds is None else seconds)
                answer = await while_connected(receive, call)
            reply = JsonReply(await convert(write, self._answer, answer))
        await reply(scope, receive, send)

    async def _send_lines(
        self,
        answers: AsyncGenerator[bytes],
        send: Send,
        requests: Requests | None = None,
    ) -> None:
        """Send each answer as a line; after the first one, an error is the last line.

        Raises:
            HttpError, Mnist37Error: the call failed before its first answer.
        """
        has_begun = False
        try:
            async for content in answers:
                if requests is not None:
                    requests.allow_next()
                line = await convert(write, self._answer, content)
                if not has_begun:
                    has_begun = True
                    await begin(send)
                await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
            if requests is not None and requests.error is not None:
                raise requests.error
        except (HttpError, Mnist37Error) as error:
            if not has_begun:
                raise
            line = orjson.dumps(describe_error(error)[1]) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            await answers.aclose()
        if not has_begun:
            await begin(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Requests:
    """The messages of a body with one JSON object a line, for the server one after the other.

    The server gets a message when it has answered the one before. If it ended the call while
    grpc.aio sends, its status would be lost, and with it the text that says what was wrong.

    Attributes:
        error: why the rest of the body was not read, if it was not.

    Args:
        lines: of the body.
        kind: of the messages.
    """

    def __init__(self, lines: AsyncIterator[bytes], kind: type[Message]) -> None:
        self.error: HttpError | None = None
        self._lines = lines
        self._kind = kind
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_LINES)
        self._allowed = asyncio.Semaphore(1)

    async def read(self, receive: Receive) -> None:
        """Read the body, and then return when the client leaves.

        A wrong line ends the messages. The answers to those before it come all the same.
        """
        try:
            async for line in self._lines:
                await self._queue.put(await convert(parse, self._kind, line))
        except ClientLeft:
            return
        except HttpError as error:
            self.error = error
        await self._queue.put(None)
        await wait_for_disconnect(receive)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the messages."""
        while (message := await self._queue.get()) is not None:
            await self._allowed.acquire()
            yield message

    def allow_next(self) -> None:
        """Let the server have the next message."""
        self._allowed.release()


async def until(stop: asyncio.Event, answers: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the answers of a stream.

    Raises:
        HttpError: web shuts down.
    """
    stopped = asyncio.create_task(stop.wait())
    try:
        while True:
            answer = asyncio.ensure_future(anext(answers, None))
            await asyncio.wait((stopped, answer), return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise HttpError(503, "the HTTP API is shutting down", "SHUTTING_DOWN")
            content = answer.result()
            if content is None:
                return
            yield content
    finally:
        for task in (stopped, answer):
            task.cancel()
        await asyncio.gather(stopped, answer, return_exceptions=True)
        await answers.aclose()


async def begin(send: Send) -> None:
    """Send the status and the headers of a reply of lines."""
    headers = [(b"content-type", LINES), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def parse_timeout(text: str | None) -> float | None:
    """Return the seconds that a call may take; None if the caller does not say."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= TIMEOUT_MAX:
        raise bad_request(
            f"{TIMEOUT}: got {text[:64]!r}; must be above 0 and at most {TIMEOUT_MAX:,.0f}"
        )
    return seconds
