"""What the page shows of the server, fetched once for all browsers that look.

The server sends each new version to web, at most four a second, and the newest run's progress. Web
sends both on to the browsers as server-sent events. Without a browser, web asks for nothing.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from mnist37_client import Run, errors
from mnist37_client._rpc.messages.checks import decode
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_web.errors import HttpError, for_callers
from mnist37_web.live.curve import Curve
from mnist37_web.live.events import Event, format_event
from mnist37_web.live.views import view_loss, view_run
from mnist37_web.upstream.callers import Caller

SERVICE = "/mnist37.v1.Mnist37Service/"
INTERVAL = 0.25  # seconds between two events of a kind
SILENCE_MAX = 5.0  # seconds; the server sends a sign of life every second
RETRY = 1.0  # seconds until what has failed is tried again
LINGER = 5.0  # seconds after the last browser left: a reload of the page is not a new start
KEEPALIVE = 15.0  # seconds without an event after which a browser gets a comment
BROWSERS_MAX = 256
EVENTS_KEPT = 64
# With these, the server does not let web follow, but may let it read.
CANNOT_FOLLOW = (errors.PermissionDenied, errors.Exhausted, errors.NotOwner)

log = logging.getLogger(__name__)


class Live:
    """The state of the server, as the page shows it.

    Args:
        caller: with web's own token.
        owns: returns whether a request_id is of a run that web itself began.
    """

    def __init__(self, caller: Caller, owns: Callable[[str | None], bool]) -> None:
        self._caller = caller
        self._owns = owns
        self._state: dict[str, bytes] = {}  # the last event of each kind
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._number = 0
        self._changed = asyncio.Event()
        self._browsers = 0
        self._has_browsers = asyncio.Event()
        self._left_at = 0.0  # when the last browser left, on time.monotonic's clock
        self._is_closing = False
        self._position: tuple[int, int] | None = None  # start and version of the newest model
        self._measured: tuple[int, int] | None = None  # the position of the last loss
        self._curve = Curve()

    async def run(self) -> None:
        """Fetch the server's state as long as there are browsers; runs until it is cancelled."""
        while True:
            await self._has_browsers.wait()
            tasks = [
                asyncio.create_task(self._repeat(self._follow, self._report)),
                asyncio.create_task(self._repeat(self._watch_runs)),
                asyncio.create_task(self._repeat(self._measure)),
                asyncio.create_task(self._repeat(self._send_curve)),
            ]
            try:
                while self._browsers or (rest := self._left_at + LINGER - time.monotonic()) > 0:
                    await asyncio.sleep(LINGER if self._browsers else rest)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._state.clear()
            self._position = self._measured = None

    @property
    def version(self) -> int | None:
        """Return the newest version; None if web does not know it, without browsers for example."""
        return None if self._position is None else self._position[1]

    def report(self, problem: str) -> None:
        """Show a text to all browsers that look now."""
        self._publish("problem", problem, is_state=False)

    def close(self) -> None:
        """End the streams of all browsers."""
        self._is_closing = True
        self._wake()

    def events(self) -> AsyncIterator[bytes]:
        """Return the state, and then its changes as they come, for one browser.

        A browser that reads slowly gets the whole state again, not all changes.

        Raises:
            HttpError: there are too many browsers.
        """
        if self._browsers >= BROWSERS_MAX:
            raise HttpError(
                503,
                f"{BROWSERS_MAX} browsers are watching; try again later",
                "TOO_MANY_BROWSERS",
                10,
            )
        return self._events_for_one()

    async def _events_for_one(self) -> AsyncIterator[bytes]:
        self._browsers += 1
        self._has_browsers.set()
        try:
            number = self._number
            yield b"".join(self._state.values()) or b": welcome\n\n"
            while not self._is_closing:
                if number == self._number:
                    if not await self._change():
                        yield b": no news\n\n"
                    continue
                news = [event for event in self._events if event.number > number]
                is_whole = news and news[0].number == number + 1
                number = self._number
                yield (
                    b"".join(event.content for event in news)
                    if is_whole
                    else b"".join(self._state.values())
                )
        finally:
            self._browsers -= 1
            if not self._browsers:
                self._left_at = time.monotonic()
                self._has_browsers.clear()

    def _publish(self, kind: str, value: object, is_state: bool = True) -> None:
        """Send an event to all browsers.

        Args:
            kind: of the event.
            value: its content.
            is_state: whether a browser that comes later needs the event too.
        """
        content = format_event(kind, value)
        if is_state:
            self._state[kind] = content
        self._number += 1
        self._events.append(Event(self._number, content))
        self._wake()

    async def _change(self) -> bool:
        """Wait for a change and return True, or False after a time without one."""
        changed = self._changed
        try:
            async with asyncio.timeout(KEEPALIVE):
                return await changed.wait()
        except TimeoutError:
            return False

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _repeat(
        self,
        fetch: Callable[[], Awaitable[None]],
        report: Callable[[errors.Mnist37Error], None] = lambda _: None,
    ) -> None:
        """Call a function again and again; what fails is tried again in a second."""
        while True:
            try:
                await fetch()
            except errors.Mnist37Error as error:
                report(error)
                await asyncio.sleep(RETRY)
            except Exception:  # nobody waits for the task: a fault would freeze the page in silence
                log.exception("what the page shows could not be fetched")
                await asyncio.sleep(RETRY)

    def _report(self, error: errors.Mnist37Error) -> None:
        """Tell the browsers why the server does not answer, unless they know."""
        content = {"reachable": False, "problem": for_callers(error), "may_write": False}
        if format_event("server", content) != self._state.get("server"):
            self._publish("server", content)

    async def _follow(self) -> None:
        """Publish new versions: as the server sends them, or else as web asks for them."""
        self._publish_server(await self._may_write())
        request = pb.FollowRequest()
        request.min_interval.FromMilliseconds(int(INTERVAL * 1000))
        messages = self._caller.stream(f"{SERVICE}Follow", request.SerializeToString())
        try:
            while True:
                async with asyncio.timeout(SILENCE_MAX):
                    content = await anext(messages)
                message = decode(pb.FollowResponse, content)
                if message.parameters:
                    position = message.position
                    self._publish_model(position.start, position.version, message.parameters)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise errors.Unavailable("the server is silent") from None
        except CANNOT_FOLLOW:
            await self._poll()
        finally:
            await messages.aclose()

    async def _poll(self) -> None:
        """Ask for the model, as a server that lets web read, but not follow, allows."""
        request = pb.GetModelRequest()
        while True:
            content = await self._caller.call(f"{SERVICE}GetModel", request.SerializeToString())
            model = decode(pb.GetModelResponse, content)
            parameters = model.weights + struct.pack("<f", model.bias)
            self._publish_model(model.start, model.version, parameters)
            await asyncio.sleep(INTERVAL)

    async def _may_write(self) -> bool:
        """Return whether web's token lets it write.

        The request is one that no server accepts: a server verifies the role first.
        """
        try:
            await self._caller.call(f"{SERVICE}Import", b"")
        except (errors.PermissionDenied, errors.NotOwner):
            return False
        except errors.InvalidInput:
            return True
        return False

    def _publish_server(self, may_write: bool) -> None:
        self._publish("server", {"reachable": True, "problem": "", "may_write": may_write})

    def _publish_model(self, start: int, version: int, parameters: bytes) -> None:
        """Publish a version: its number, and its 785 little-endian float32 in base64."""
        if (start, version) != self._position:
            self._position = start, version
            encoded = base64.b64encode(parameters).decode()
            self._publish("model", {"version": version, "parameters": encoded})

    async def _watch_runs(self) -> None:
        """Publish the newest run and its progress until it ends, and then wait for news.

        A run that the server's end has interrupted goes on when its caller is back.
        """
        seen: tuple[int | None, str] | None = None
        with suppress(errors.NotFound):  # no run has begun yet
            async for item in self._caller.client.watch_run(follow=True):
                if isinstance(item, Run):
                    if seen is None or item.run != seen[0]:
                        self._curve.begin()
                    seen = item.run, item.state
                    self._publish("run", view_run(item, self._owns(item.request_id)))
                else:
                    self._curve.add(item)
        position = None
        while True:
            await asyncio.sleep(2 * INTERVAL)
            if position != self._position:
                position = self._position
                if await self._newest_run() != seen:
                    return

    async def _newest_run(self) -> tuple[int | None, str] | None:
        """Return the number and the state of the newest run that has begun, or None."""
        with suppress(errors.NotFound):
            async for item in self._caller.client.watch_run():
                if isinstance(item, Run):
                    return item.run, item.state
        return None

    async def _send_curve(self) -> None:
        """Publish the new points of the curve."""
        await asyncio.sleep(INTERVAL)
        if points := self._curve.take_new():
            self._publish("points", points, is_state=False)
            whole = {"begins": True, "points": self._curve.points}
            self._state["points"] = format_event("points", whole)

    async def _measure(self) -> None:
        """Publish the loss of a new version, once a second at most."""
        await asyncio.sleep(1)
        if self._position not in (None, self._measured):
            position = self._position
            loss = await self._caller.client.get_loss("valid")
            self._measured = position
            self._publish("loss", view_loss(loss))
