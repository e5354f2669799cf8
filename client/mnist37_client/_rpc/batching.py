"""Predictions that many coroutines await at once, in few messages.

Who asks while few messages are under way goes out at once, alone. Who asks while there are enough
of them waits for the end of one, and goes out with others who have come by then: there is no
timer, and the more callers there are, the less each of them costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from itertools import islice

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.calls import parse_prediction
from mnist37_client.errors import Cancelled, InvalidInput, deadline_exceeded
from mnist37_client.images import PIXELS
from mnist37_client.results import Prediction

MESSAGES_IN_FLIGHT = (
    2  # messages at a time: the client makes one while the server answers the other
)
IMAGES_PER_MESSAGE = (
    128  # images in a message: below the 128 kB from which malloc gives each its own pages
)
BATCHED_IMAGES_MAX = (
    32  # images of a call that is merged; of a larger one the message is the lesser cost
)

Predict = Callable[..., Awaitable[pb.PredictResponse]]
Call = Callable[[Predict, pb.PredictRequest], Awaitable[pb.PredictResponse]]
Answer = asyncio.Future[Prediction]


class RequestBatcher:
    """Asks for the callers of one client, who share an event loop.

    Args:
        predict: the RPC.
        call: makes a call of it, as often as the client's patience has it; raises Mnist37Error.
        address: the server's.
    """

    def __init__(self, predict: Predict, call: Call, address: str) -> None:
        self._predict = predict
        self._call = call
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None  # to ask for it is a system call
        self._turns = MESSAGES_IN_FLIGHT
        # Who waits for a turn: their pixels, and when they came by the loop's clock.
        self._pending: dict[Answer, tuple[bytes, float]] = {}
        self._sent: set[_CallerBatch] = set()

    def predict(self, pixels: bytes) -> Awaitable[Prediction]:
        """What the model says of up to BATCHED_IMAGES_MAX images, 784 bytes each.

        It is a future for who is merged, and not a coroutine around one: that would cost a
        twentieth of all that there is to do for a caller.
        """
        if self._turns > 0:
            self._turns -= 1
            return self._send(pixels)  # in the caller's own task, as if nothing were merged
        loop = self._loop = self._loop or asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._pending[answer] = pixels, loop.time()
        return answer

    def cancel(self, asked: Awaitable[Prediction]) -> None:
        """Whoever asked has been cancelled."""
        if isinstance(asked, asyncio.Future) and not self._pending.pop(asked, None):
            for message in self._sent:
                message.cancel_if_abandoned()

    def close(self) -> None:
        """Ends everybody's waiting, with Cancelled."""
        for message in [_CallerBatch(list(self._pending.items())), *self._sent]:
            message.fail(Cancelled(f"{self._address}: the client was closed"))
            message.cancel_if_abandoned()
        self._pending.clear()

    async def _send(self, pixels: bytes, message: _CallerBatch | None = None) -> Prediction:
        """One call, whose turn lasts for its first attempt.

        So nobody waits for the further attempts of others: when the server has gone away, each
        message is tried again by itself.
        """
        has_turn = True

        def end_turn() -> None:
            nonlocal has_turn
            if not has_turn:
                return
            has_turn = False
            if message is not None:
                message.stop_timer()
            if message is None and not self._pending:
                self._turns += 1
            else:
                # Who has an answer now may ask again at once: the next message waits for that.
                asyncio.get_running_loop().call_soon(self._next)

        async def attempt(
            request: pb.PredictRequest, *, timeout: float | None
        ) -> pb.PredictResponse:
            if has_turn and message is not None and timeout is not None:
                message.start_timer(timeout, self._address)
            try:
                return await self._predict(request, timeout=timeout)
            finally:
                end_turn()

        try:
            return parse_prediction(await self._call(attempt, pb.PredictRequest(pixels=pixels)))
        finally:
            end_turn()

    def _next(self) -> None:
        """Gives a turn that has ended to those who have gathered."""
        self._turns += 1
        if self._pending and self._turns > 0:
            self._start(None)

    def _start(self, message: _CallerBatch | None) -> None:
        self._turns -= 1
        asyncio.get_running_loop().create_task(self._deliver(message))

    def _share(self) -> _CallerBatch:
        """Of all who wait, as many as each message has when all have as many."""
        waiting = len(self._pending) + sum(len(message.callers) for message in self._sent)
        callers, images = [], 0
        for caller in islice(self._pending.items(), -(-waiting // MESSAGES_IN_FLIGHT)):
            images += len(caller[1][0]) // PIXELS
            if images > IMAGES_PER_MESSAGE:
                break
            callers.append(caller)
        for answer, _ in callers:
            del self._pending[answer]
        return _CallerBatch(callers)

    async def _deliver(self, message: _CallerBatch | None) -> None:
        """Sends a message, or the next share, and gives each caller what is theirs."""
        message = message or self._share()
        if not message.callers:  # they have left since, or another message has them
            self._next()
            return
        message.task = asyncio.current_task()
        self._sent.add(message)
        try:
            message.resolve(await self._send(message.content(), message))
        except InvalidInput as error:
            # One caller's images may be at fault: then no other shall hear of it.
            if len(message.callers) == 1:
                message.fail(error)
            for alone in message.split():
                self._start(alone)
        except asyncio.CancelledError:
            message.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised where the callers are
            message.fail(error)
        finally:
            self._sent.discard(message)


class _CallerBatch:
    """Callers whose images go out together."""

    def __init__(self, callers: list[tuple[Answer, tuple[bytes, float]]]) -> None:
        self.callers = callers
        self.task: asyncio.Task[None] | None = None  # that sends it
        self._timer: asyncio.TimerHandle | None = None

    def content(self) -> bytes:
        """The images of all, in the callers' order."""
        return b"".join([pixels for _, (pixels, _) in self.callers])

    def resolve(self, found: Prediction) -> None:
        """Gives each caller the part that is theirs."""
        probabilities, version = found.probabilities, found.version
        start = 0
        for answer, (pixels, _) in self.callers:
            end = start + len(pixels) // PIXELS
            if not answer.done():
                answer.set_result(Prediction(probabilities[start:end], version))
            start = end

    def fail(self, error: Exception) -> None:
        """Gives each caller an error of their own: a traceback grows wherever one is raised."""
        for answer, _ in self.callers:
            if not answer.done():
                own = copy(error)
                own.__cause__ = error.__cause__
                answer.set_exception(own)

    def cancel(self) -> None:
        """Cancels all who wait still."""
        for answer, _ in self.callers:
            answer.cancel()

    def cancel_if_abandoned(self) -> None:
        """Ends a call that nobody waits for any more."""
        if self.task is not None and all(answer.done() for answer, _ in self.callers):
            self.task.cancel()

    def split(self) -> list[_CallerBatch]:
        """Those who wait still, each in a message of their own."""
        return [_CallerBatch([caller]) for caller in self.callers if not caller[0].done()]

    def start_timer(self, timeout: float, address: str) -> None:
        """Lets nobody wait for longer than `timeout` seconds: the first who came is the next."""
        loop = asyncio.get_running_loop()
        for answer, (_, came) in self.callers:
            if answer.done():
                continue
            if loop.time() < came + timeout:
                self._timer = loop.call_at(came + timeout, self.start_timer, timeout, address)
                return
            answer.set_exception(deadline_exceeded(address))
        self.cancel_if_abandoned()

    def stop_timer(self) -> None:
        """Ends the timer."""
        if self._timer is not None:
            self._timer.cancel()
