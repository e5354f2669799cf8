"""Merging of the predictions that many coroutines await at once into few messages.

While fewer than MESSAGES_IN_FLIGHT messages are in flight, the client sends a call at once, alone.
Otherwise the call waits for the end of a message and goes out together with the calls that arrived
in the meantime. So there is no timer, and more callers make each call cheaper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from itertools import islice

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.methods.calls import predict_bytes
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges
from mnist37_client.errors import Cancelled, InvalidInput, deadline_exceeded
from mnist37_client.images import PIXELS
from mnist37_client.results import Prediction

# With two messages in flight, the client builds one while the server answers the other.
MESSAGES_IN_FLIGHT = 2
# A message stays below 128 kB: from there on malloc maps new pages for each message.
IMAGES_PER_MESSAGE = 128
# The most images of a call that is merged. For a larger call the message is the smaller cost.
BATCHED_IMAGES_MAX = 32

Predict = Callable[..., Awaitable[bytes]]
CarryOut = Callable[[Exchange[Prediction], Callable[[Call], Predict]], Awaitable[Prediction]]
PredictionFuture = asyncio.Future[Prediction]


class RequestBatcher:
    """The merger of one client's Predict calls, which share an event loop.

    Args:
        predict: the RPC of the owner; None if the client knows none.
        predict_by_follower: the RPC of the followers.
        exchanges: of the client.
        carry_out: carries an exchange out, with the client's retries; raises Mnist37Error.
        address: the server's HOST:PORT.
    """

    def __init__(
        self,
        predict: Predict | None,
        predict_by_follower: Predict,
        exchanges: Exchanges,
        carry_out: CarryOut,
        address: str,
    ) -> None:
        self._predict = predict
        self._predict_by_follower = predict_by_follower
        self._exchanges = exchanges
        self._carry_out = carry_out
        self._address = address
        self._loop: asyncio.AbstractEventLoop | None = None  # cached: the lookup is a system call
        self._free_slots = MESSAGES_IN_FLIGHT  # negative while the parts of a split batch are sent
        # The calls that wait for a slot: their pixels, and the loop's time of their arrival.
        self._pending: dict[PredictionFuture, tuple[bytes, float]] = {}
        self._in_flight: set[_CallerBatch] = set()

    def predict(self, pixels: bytes) -> Awaitable[Prediction]:
        """Return an awaitable prediction for up to BATCHED_IMAGES_MAX images, 784 bytes each.

        A merged call gets a future, and not a coroutine around it: the coroutine would cost a
        twentieth of all the work for a caller.
        """
        if self._free_slots > 0:
            self._free_slots -= 1
            return self._send(pixels)  # in the caller's own task, as without merging
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: PredictionFuture = loop.create_future()
        self._pending[future] = pixels, loop.time()
        return future

    def cancel(self, prediction: Awaitable[Prediction]) -> None:
        """Withdraw the call of a cancelled task."""
        if isinstance(prediction, asyncio.Future) and not self._pending.pop(prediction, None):
            for batch in self._in_flight:
                batch.cancel_if_abandoned()

    def close(self) -> None:
        """Fail all calls that still wait, with Cancelled."""
        for batch in [_CallerBatch(list(self._pending.items())), *self._in_flight]:
            batch.fail(Cancelled(f"{self._address}: the client was closed"))
            batch.cancel_if_abandoned()
        self._pending.clear()

    async def _send(self, pixels: bytes, batch: _CallerBatch | None = None) -> Prediction:
        """Send one message and return its prediction; release its slot after the first attempt.

        So no caller waits for the retries of another message: when the server is away, the client
        retries each message by itself.
        """
        has_slot = True

        def release_slot() -> None:
            nonlocal has_slot
            if not has_slot:
                return
            has_slot = False
            if batch is not None:
                batch.stop_timer()
            if batch is None and not self._pending:
                self._free_slots += 1
            else:
                # A caller with an answer may call again at once: the next batch waits for that.
                asyncio.get_running_loop().call_soon(self._start_next)

        def method_of(call: Call) -> Predict:
            predict = self._predict_by_follower if call.to_followers else self._predict
            assert predict is not None

            async def attempt(request: pb.PredictRequest, *, timeout: float | None) -> bytes:
                if has_slot and batch is not None and timeout is not None:
                    batch.start_timer(timeout, self._address)
                try:
                    return await predict(request, timeout=timeout)
                finally:
                    release_slot()

            return attempt

        try:
            exchange = predict_bytes(self._exchanges, pixels)
            return await self._carry_out(exchange, method_of)
        finally:
            release_slot()

    def _start_next(self) -> None:
        """Free a slot and start the next batch if a call waits."""
        self._free_slots += 1
        if self._pending and self._free_slots > 0:
            self._start(None)

    def _start(self, batch: _CallerBatch | None) -> None:
        self._free_slots -= 1
        asyncio.get_running_loop().create_task(self._deliver(batch))

    def _take_batch(self) -> _CallerBatch:
        """Remove the next batch from the pending calls and return it.

        All messages in flight have an equal share of the callers, pending or in flight.
        """
        caller_count = len(self._pending) + sum(len(batch.callers) for batch in self._in_flight)
        callers, images = [], 0
        for caller in islice(self._pending.items(), -(-caller_count // MESSAGES_IN_FLIGHT)):
            images += len(caller[1][0]) // PIXELS
            if images > IMAGES_PER_MESSAGE:
                break
            callers.append(caller)
        for future, _ in callers:
            del self._pending[future]
        return _CallerBatch(callers)

    async def _deliver(self, batch: _CallerBatch | None) -> None:
        """Send a batch, by default the next one, and give each caller its part of the result."""
        batch = batch or self._take_batch()
        if not batch.callers:  # the callers were cancelled, or another batch took them
            self._start_next()
            return
        batch.task = asyncio.current_task()
        self._in_flight.add(batch)
        try:
            batch.resolve(await self._send(batch.content(), batch))
        except InvalidInput as error:
            # The images of one caller may be invalid. Send each caller's images again by
            # themselves, so that no other caller gets the error.
            if len(batch.callers) == 1:
                batch.fail(error)
            for single in batch.split():
                self._start(single)
        except asyncio.CancelledError:
            batch.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised again in the callers' tasks
            batch.fail(error)
        finally:
            self._in_flight.discard(batch)


class _CallerBatch:
    """The callers whose images go out in one message."""

    def __init__(self, callers: list[tuple[PredictionFuture, tuple[bytes, float]]]) -> None:
        self.callers = callers
        self.task: asyncio.Task[None] | None = None  # sends the message
        self._timer: asyncio.TimerHandle | None = None

    def content(self) -> bytes:
        """Return the pixels of all images, in the callers' order."""
        return b"".join([pixels for _, (pixels, _) in self.callers])

    def resolve(self, prediction: Prediction) -> None:
        """Give each caller its part of the prediction."""
        probabilities, version = prediction.probabilities, prediction.version
        start = 0
        for future, (pixels, _) in self.callers:
            end = start + len(pixels) // PIXELS
            if not future.done():
                future.set_result(Prediction(probabilities[start:end], version))
            start = end

    def fail(self, error: Exception) -> None:
        """Give each caller its own copy of an error.

        A shared exception would collect the tracebacks of all tasks that raise it.
        """
        for future, _ in self.callers:
            if not future.done():
                error_copy = copy(error)
                error_copy.__cause__ = error.__cause__
                future.set_exception(error_copy)

    def cancel(self) -> None:
        """Cancel the futures of all callers."""
        for future, _ in self.callers:
            future.cancel()

    def cancel_if_abandoned(self) -> None:
        """Cancel the call if no caller waits for it any more."""
        if self.task is not None and all(future.done() for future, _ in self.callers):
            self.task.cancel()

    def split(self) -> list[_CallerBatch]:
        """Return a batch for each caller that still waits."""
        return [_CallerBatch([caller]) for caller in self.callers if not caller[0].done()]

    def start_timer(self, timeout: float, address: str) -> None:
        """Fail each caller `timeout` seconds after its arrival.

        The callers are in order of arrival, so the timer is for the first one that still waits.
        """
        loop = asyncio.get_running_loop()
        for future, (_, arrival) in self.callers:
            if future.done():
                continue
            if loop.time() < arrival + timeout:
                self._timer = loop.call_at(arrival + timeout, self.start_timer, timeout, address)
                return
            future.set_exception(deadline_exceeded(address))
        self.cancel_if_abandoned()

    def stop_timer(self) -> None:
        """Cancel the timer, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
