"""Tests of AsyncClient's merging: fewer messages, and no other difference for a caller."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mnist37_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidInput,
    Prediction,
    Unavailable,
    validation_images,
)
from mnist37_client._rpc.transport.batching import (
    BATCHED_IMAGES_MAX,
    IMAGES_PER_MESSAGE,
    MESSAGES_IN_FLIGHT,
    RequestBatcher,
)
from mnist37_client._rpc.transport.event_loops import LoopConnection
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import NDArray

IMAGES, _ = validation_images()


@pytest.fixture(scope="module")
def freezable() -> Iterator[LocalServer]:
    """Return a server that a test may freeze; to its clients the network seems to hang."""
    with LocalServer("--device", "cpu") as server:
        yield server


@contextmanager
def frozen(server: LocalServer) -> Iterator[None]:
    """Stop the server's process within the context, and let it continue at the end."""
    server.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


class CountingClient(AsyncClient):
    """An AsyncClient that counts the messages of Predict, and the images in the largest."""

    messages = most_images = 0

    @property
    def batcher(self) -> RequestBatcher:
        batcher = self._connections.current().batcher
        assert batcher is not None
        return batcher

    def _connect(self) -> LoopConnection:
        connection = super()._connect()
        assert connection.batcher is not None
        predict = connection.batcher._predict
        assert predict is not None

        def count(request: pb.PredictRequest, **kwargs: Any) -> Any:
            self.messages += 1
            self.most_images = max(self.most_images, len(request.pixels) // 784)
            return predict(request, **kwargs)

        connection.batcher._predict = count
        return connection

    def assert_idle(self) -> None:
        """Assert that no caller waits, no message is in flight, and all slots are free."""
        assert self.batcher._free_slots == MESSAGES_IN_FLIGHT
        assert not self.batcher._pending
        assert not self.batcher._in_flight


@asynccontextmanager
async def connected(address: str, **kwargs: Any) -> AsyncIterator[CountingClient]:
    """Yield a client after its first answer; assert at the end that it is idle."""
    async with CountingClient(address, **kwargs) as client:
        await client.predict(IMAGES[0])
        client.messages = 0
        yield client
        await asyncio.sleep(0.01)
        client.assert_idle()


def unmerged(address: str, images: NDArray[Any] = IMAGES) -> NDArray[np.float32]:
    with Client(address) as client:
        return client.predict(images).probabilities


def begin(*calls: Coroutine[Any, Any, Prediction]) -> list[asyncio.Task[Prediction]]:
    return [asyncio.create_task(call) for call in calls]


async def outcomes(tasks: list[asyncio.Task[Prediction]]) -> list[Prediction | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_many_callers_get_their_own_answers_in_few_messages(address: str) -> None:
    async def main() -> None:
        async with connected(address) as client:
            for _ in range(3):
                found = await asyncio.gather(*(client.predict(image) for image in IMAGES[:256]))
                assert [len(one.probabilities) for one in found] == [1] * 256
                np.testing.assert_array_equal(
                    np.concatenate([one.probabilities for one in found]), expected
                )
            assert client.messages <= 3 * 10

    expected = unmerged(address, IMAGES[:256])
    asyncio.run(main())


def test_callers_that_ask_again_and_again_are_merged_again_and_again(address: str) -> None:
    async def main() -> None:
        async with connected(address) as client:

            async def ask(index: int) -> None:
                for turn in range(10):
                    place = (index + 7 * turn) % len(IMAGES)
                    found = await client.predict(IMAGES[place])
                    assert found.probabilities[0] == expected[place]

            await asyncio.gather(*map(ask, range(200)))
            assert client.messages <= 100

    expected = unmerged(address)
    asyncio.run(main())


def test_merging_can_be_turned_off(address: str) -> None:
    async def main() -> None:
        async with AsyncClient(address, merge=False) as client:
            found = await asyncio.gather(*(client.predict(image) for image in IMAGES[:50]))
            assert client._connections.current().batcher is None
        np.testing.assert_array_equal([one.probabilities[0] for one in found], expected)

    expected = unmerged(address, IMAGES[:50])
    asyncio.run(main())


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, BATCHED_IMAGES_MAX + 2), min_size=1, max_size=60), st.booleans())
def test_merged_calls_of_any_sizes_are_answered_as_if_alone(
    address: str, sizes: list[int], flat: bool
) -> None:
    async def main() -> None:
        async with connected(address) as client:
            given = IMAGES.reshape(-1, 784) if flat else IMAGES
            starts = np.concatenate([[0], np.cumsum(sizes)])
            batches = [given[a:b] for a, b in itertools.pairwise(starts)]
            found = await asyncio.gather(*map(client.predict, batches))
            assert [len(one.probabilities) for one in found] == sizes
            together = np.concatenate([one.probabilities for one in found])
            np.testing.assert_array_equal(together, expected[: len(together)])

    expected = unmerged(address)
    asyncio.run(main())


def test_a_message_has_at_most_images_per_message(address: str) -> None:
    async def main() -> None:
        async with connected(address) as client:
            count = 6 * IMAGES_PER_MESSAGE // BATCHED_IMAGES_MAX
            batches = [IMAGES[index : index + BATCHED_IMAGES_MAX] for index in range(count)]
            found = await asyncio.gather(*map(client.predict, batches))
            for index, one in enumerate(found):
                np.testing.assert_array_equal(
                    one.probabilities, expected[index : index + BATCHED_IMAGES_MAX]
                )
            assert client.most_images <= IMAGES_PER_MESSAGE

    expected = unmerged(address)
    asyncio.run(main())


def test_a_bad_image_fails_its_own_caller_alone(address: str) -> None:
    async def main() -> None:
        async with connected(address) as client:
            images: list[Any] = list(IMAGES[:40])
            images[3], images[30] = np.zeros(783), np.full(784, 1.5)
            found = await outcomes(begin(*map(client.predict, images)))
        for index, one in enumerate(found):
            if index in (3, 30):
                assert isinstance(one, InvalidInput)
                assert str(one).startswith("images: got ")
            else:
                assert isinstance(one, Prediction)
                assert one.probabilities[0] == expected[index]

    expected = unmerged(address, IMAGES[:40])
    asyncio.run(main())


def test_a_refusal_by_the_server_fails_its_own_caller_alone(address: str) -> None:
    # One call has 783 bytes, which the client's own check would refuse; the test bypasses it.

    async def main() -> None:
        async with connected(address) as client:
            pixels = [image.tobytes() for image in IMAGES[:20]]
            pixels[10] = pixels[10][1:]

            async def ask(pixels: bytes) -> Prediction:
                return await client.batcher.predict(pixels)

            found = await outcomes(begin(*map(ask, pixels)))
        for index, one in enumerate(found):
            if index == 10:
                assert isinstance(one, InvalidInput)
                assert "783" in str(one)
            else:
                assert isinstance(one, Prediction)
                np.testing.assert_array_equal(one.probabilities, expected[index : index + 1])

    expected = unmerged(address, IMAGES[:20])
    asyncio.run(main())


def test_every_answer_is_from_one_version_whole(address: str) -> None:
    async def main() -> dict[int, NDArray[np.float32]]:
        seen: dict[int, NDArray[np.float32]] = {}
        async with connected(address) as client:
            await client.initialize()
            is_over = False

            async def predict_repeatedly() -> None:
                while not is_over:
                    found = await client.predict(IMAGES[:5])
                    same = seen.setdefault(found.version, found.probabilities)
                    np.testing.assert_array_equal(found.probabilities, same)

            tasks = [asyncio.create_task(predict_repeatedly()) for _ in range(32)]
            async for _ in client.train(epochs=40):
                pass
            is_over = True
            await asyncio.gather(*tasks)
            for version, probabilities in seen.items():
                found = await client.predict(IMAGES[:5], version=version)
                assert found.version == version
                np.testing.assert_array_equal(found.probabilities, probabilities)
        return seen

    assert len(asyncio.run(main())) > 3


def test_a_caller_that_leaves_does_not_affect_the_others(freezable: LocalServer) -> None:
    async def main() -> None:
        async with connected(freezable.address) as client:
            with frozen(freezable):
                tasks = begin(*map(client.predict, IMAGES[:30]))
                await asyncio.sleep(0.05)
                for index in leaving:
                    tasks[index].cancel()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.predict(IMAGES[0]), 0.05)
                assert len(client.batcher._pending) == 30 - MESSAGES_IN_FLIGHT - len(leaving), (
                    "a caller that left is still pending"
                )
            found = await outcomes(tasks)
        for index, one in enumerate(found):
            if index in leaving:
                assert isinstance(one, asyncio.CancelledError)
            else:
                assert isinstance(one, Prediction)
                assert one.probabilities[0] == expected[index]

    leaving = range(MESSAGES_IN_FLIGHT, 30, 3)
    expected = unmerged(freezable.address, IMAGES[:30])
    asyncio.run(main())


def test_a_message_is_cancelled_when_all_its_callers_have_left(freezable: LocalServer) -> None:
    async def main() -> None:
        async with connected(freezable.address) as client:
            with frozen(freezable):
                alone = begin(*map(client.predict, IMAGES[:MESSAGES_IN_FLIGHT]))
                together = begin(*map(client.predict, IMAGES[:20]))
                late = begin(*map(client.predict, IMAGES[:5]))
                await asyncio.sleep(0.02)
                for task in late:  # before they are sent
                    task.cancel()
                alone[0].cancel()  # frees its slot: the pending calls are sent
                await asyncio.sleep(0.02)
                assert client.messages == MESSAGES_IN_FLIGHT + 1
                for task in together + alone:
                    task.cancel()
                await outcomes(together + alone)
                await asyncio.sleep(0.02)
                client.assert_idle()
            assert (await client.predict(IMAGES[0])).probabilities[0] == expected

    expected = unmerged(freezable.address)[0]
    asyncio.run(main())


def test_slots_are_freed_whenever_callers_leave(freezable: LocalServer) -> None:
    # The callers leave some turns of the event loop after the slot for their message became free.

    async def main() -> None:
        async with connected(freezable.address) as client:
            for turns in range(6):
                with frozen(freezable):
                    alone = begin(*map(client.predict, IMAGES[:MESSAGES_IN_FLIGHT]))
                    together = begin(*map(client.predict, IMAGES[:3]))
                    await asyncio.sleep(0.01)
                    alone[0].cancel()
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    for task in together:
                        task.cancel()
                    await outcomes(together)
                await alone[1]
                await asyncio.sleep(0.01)
                client.assert_idle()

    asyncio.run(main())


def test_each_caller_has_its_own_timeout(freezable: LocalServer) -> None:
    # Callers of one message have started at different times, too.

    async def main() -> None:
        async with connected(freezable.address, timeout=1) as client:

            async def wait() -> float:
                began = time.monotonic()
                with pytest.raises(DeadlineExceeded, match="did not answer within the timeout"):
                    await client.predict(IMAGES[0])
                return time.monotonic() - began

            with frozen(freezable):
                alone = [asyncio.create_task(wait()) for _ in range(MESSAGES_IN_FLIGHT)]
                early = asyncio.create_task(wait())
                await asyncio.sleep(0.6)
                late = [asyncio.create_task(wait()) for _ in range(3)]
                await asyncio.sleep(0)
                alone[0].cancel()  # frees a slot: the early call and half of the late ones are sent
                times = await asyncio.gather(*alone[1:], early, *late)
                assert client.messages == MESSAGES_IN_FLIGHT + 2
            assert all(0.98 < seconds < 1.4 for seconds in times), times

    asyncio.run(main())


def test_closing_the_client_ends_all_waiting_calls(freezable: LocalServer) -> None:
    async def main() -> None:
        client = CountingClient(freezable.address)
        await client.predict(IMAGES[0])
        with frozen(freezable):
            tasks = begin(*map(client.predict, IMAGES[:200]))
            await asyncio.sleep(0.02)
            tasks[0].cancel()
            await asyncio.sleep(0.02)  # now some calls are in flight in one message, others pending
            began = time.monotonic()
            await client.close()
            _, *found = await outcomes(tasks)
            assert time.monotonic() - began < 1
        assert {type(one) for one in found} == {Cancelled}
        assert len(set(map(id, found))) == len(found)
        with pytest.raises(Cancelled, match="the client is closed"):
            await client.predict(IMAGES[0])

    asyncio.run(main())


def test_without_a_server_every_caller_gets_its_own_exception() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            found = await outcomes(begin(*map(client.predict, IMAGES[:20])))
        assert {type(one) for one in found} == {Unavailable}
        assert len(set(map(id, found))) == len(found), "each raises an exception of its own"
        assert all("no server listens at 127.0.0.1:1" in str(one) for one in found)

    asyncio.run(main())


def test_callers_live_through_a_restart_of_the_server(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))  # in memory it would be another model after the restart

    async def main() -> None:
        server = await asyncio.to_thread(LocalServer, *state)
        address = server.address
        answered: list[int] = []
        try:
            async with connected(address) as client:
                expected = (await client.predict(IMAGES[:50])).probabilities
                is_over = False

                async def predict_repeatedly(index: int) -> None:
                    while not is_over:
                        found = await client.predict(IMAGES[index])
                        assert found.probabilities[0] == expected[index]
                        answered.append(index)

                tasks = [asyncio.create_task(predict_repeatedly(index)) for index in range(50)]
                await asyncio.sleep(0.1)
                server.kill()
                async with asyncio.timeout(5):  # no caller waits for the retries of others
                    while (
                        client.batcher._pending or client.batcher._free_slots < MESSAGES_IN_FLIGHT
                    ):
                        await asyncio.sleep(0.01)
                answered.clear()
                server = await asyncio.to_thread(LocalServer, "--address", address, *state)
                deadline = time.monotonic() + 10
                while set(answered) != set(range(50)) and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                is_over = True
                await asyncio.gather(*tasks)
            assert set(answered) == set(range(50))
        finally:
            server.stop()

    asyncio.run(main())
