"""AsyncClient's merging: fewer messages, and nothing else that a caller would notice."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
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
from mnist37_client._rpc.batching import BATCHED_IMAGES_MAX, IMAGES_PER_MESSAGE, MESSAGES_IN_FLIGHT
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import NDArray

IMAGES, _ = validation_images()


@pytest.fixture(scope="module")
def freezable() -> Iterator[LocalServer]:
    """A server that a test may stop in its tracks, as a network that hangs would."""
    with LocalServer("--device", "cpu") as server:
        yield server


@contextmanager
def frozen(server: LocalServer) -> Iterator[None]:
    """Nothing is answered within; afterwards all is, as if nothing had been."""
    server.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


class Counted(AsyncClient):
    """Counts the messages of Predict, and the images in the largest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.messages = self.most_images = 0
        assert self._batcher is not None
        predict = self._batcher._predict

        def counted(request: pb.PredictRequest, **kwargs: Any) -> Any:
            self.messages += 1
            self.most_images = max(self.most_images, len(request.pixels) // 784)
            return predict(request, **kwargs)

        self._batcher._predict = counted

    def assert_at_rest(self) -> None:
        """Nobody waits, nothing is under way, and every turn has been given back."""
        assert self._batcher is not None
        assert self._batcher._free_slots == MESSAGES_IN_FLIGHT
        assert not self._batcher._pending
        assert not self._batcher._in_flight


@asynccontextmanager
async def connected(address: str, **kwargs: Any) -> AsyncIterator[Counted]:
    """A client that has been answered once, at rest in the beginning and in the end."""
    async with Counted(address, **kwargs) as client:
        await client.predict(IMAGES[0])
        client.messages = 0
        yield client
        await asyncio.sleep(0.01)
        client.assert_at_rest()


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
            assert client._batcher is None
        np.testing.assert_array_equal([one.probabilities[0] for one in found], expected)

    expected = unmerged(address, IMAGES[:50])
    asyncio.run(main())


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, BATCHED_IMAGES_MAX + 2), min_size=1, max_size=60), st.booleans())
def test_any_sizes_together_are_answered_as_if_alone(
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


def test_a_message_has_so_many_images_at_the_most(address: str) -> None:
    """Beyond what one message holds they go in several."""

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


def test_what_only_the_server_refuses_fails_its_own_caller_alone(address: str) -> None:
    """783 bytes that the client's own check would not have let through."""

    async def main() -> None:
        async with connected(address) as client:
            pixels = [image.tobytes() for image in IMAGES[:20]]
            pixels[10] = pixels[10][1:]

            async def ask(pixels: bytes) -> Prediction:
                assert client._batcher is not None
                return await client._batcher.predict(pixels)

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
            over = False

            async def ask() -> None:
                while not over:
                    found = await client.predict(IMAGES[:5])
                    same = seen.setdefault(found.version, found.probabilities)
                    np.testing.assert_array_equal(found.probabilities, same)

            asking = [asyncio.create_task(ask()) for _ in range(32)]
            async for _ in client.train(epochs=40):
                pass
            over = True
            await asyncio.gather(*asking)
            for version, probabilities in seen.items():
                found = await client.predict(IMAGES[:5], version=version)
                assert found.version == version
                np.testing.assert_array_equal(found.probabilities, probabilities)
        return seen

    assert len(asyncio.run(main())) > 3


def test_whoever_leaves_leaves_alone(freezable: LocalServer) -> None:
    async def main() -> None:
        async with connected(freezable.address) as client:
            with frozen(freezable):
                tasks = begin(*map(client.predict, IMAGES[:30]))
                await asyncio.sleep(0.05)
                for index in leaving:
                    tasks[index].cancel()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.predict(IMAGES[0]), 0.05)
                assert client._batcher is not None
                assert len(client._batcher._pending) == 30 - MESSAGES_IN_FLIGHT - len(leaving), (
                    "none of those who left is kept"
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


def test_when_all_have_left_so_has_their_message(freezable: LocalServer) -> None:
    async def main() -> None:
        async with connected(freezable.address) as client:
            with frozen(freezable):
                alone = begin(*map(client.predict, IMAGES[:MESSAGES_IN_FLIGHT]))
                together = begin(*map(client.predict, IMAGES[:20]))
                late = begin(*map(client.predict, IMAGES[:5]))
                await asyncio.sleep(0.02)
                for task in late:  # before they are sent
                    task.cancel()
                alone[0].cancel()  # ends its turn: the others go
                await asyncio.sleep(0.02)
                assert client.messages == MESSAGES_IN_FLIGHT + 1
                for task in together + alone:
                    task.cancel()
                await outcomes(together + alone)
                await asyncio.sleep(0.02)
                client.assert_at_rest()
            assert (await client.predict(IMAGES[0])).probabilities[0] == expected

    expected = unmerged(freezable.address)[0]
    asyncio.run(main())


def test_whenever_they_leave_the_next_get_their_turn(freezable: LocalServer) -> None:
    """So many turns of the event loop after the one before them has made way."""

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
                client.assert_at_rest()

    asyncio.run(main())


def test_each_caller_has_a_timeout_of_its_own(freezable: LocalServer) -> None:
    """Of those in one message too: they came at different times."""

    async def main() -> None:
        async with connected(freezable.address, timeout=1) as client:

            async def waited() -> float:
                began = time.monotonic()
                with pytest.raises(DeadlineExceeded, match="did not answer within the timeout"):
                    await client.predict(IMAGES[0])
                return time.monotonic() - began

            with frozen(freezable):
                alone = [asyncio.create_task(waited()) for _ in range(MESSAGES_IN_FLIGHT)]
                early = asyncio.create_task(waited())
                await asyncio.sleep(0.6)
                late = [asyncio.create_task(waited()) for _ in range(3)]
                await asyncio.sleep(0)
                alone[0].cancel()  # who waits has its turn: the early one and half the late
                times = await asyncio.gather(*alone[1:], early, *late)
                assert client.messages == MESSAGES_IN_FLIGHT + 2
            assert all(0.98 < seconds < 1.4 for seconds in times), times

    asyncio.run(main())


def test_closing_the_client_ends_everybodys_waiting(freezable: LocalServer) -> None:
    async def main() -> None:
        client = Counted(freezable.address)
        await client.predict(IMAGES[0])
        with frozen(freezable):
            tasks = begin(*map(client.predict, IMAGES[:200]))
            await asyncio.sleep(0.02)
            tasks[0].cancel()
            await asyncio.sleep(0.02)  # now some are under way together, and others gathered
            began = time.monotonic()
            await client.close()
            _, *found = await outcomes(tasks)
            assert time.monotonic() - began < 1
        assert {type(one) for one in found} == {Cancelled}
        assert len(set(map(id, found))) == len(found)
        with pytest.raises(Cancelled, match="the client is closed"):
            await client.predict(IMAGES[0])

    asyncio.run(main())


def test_nobody_listens_to_any_of_them() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            found = await outcomes(begin(*map(client.predict, IMAGES[:20])))
        assert {type(one) for one in found} == {Unavailable}
        assert len(set(map(id, found))) == len(found), "each raises an exception of its own"
        assert all("no server listens at 127.0.0.1:1" in str(one) for one in found)

    asyncio.run(main())


def test_callers_live_through_a_restart_of_the_server() -> None:
    async def main() -> None:
        server = await asyncio.to_thread(LocalServer)
        address = server.address
        answered: list[int] = []
        try:
            async with connected(address) as client:
                right = (await client.predict(IMAGES[:50])).probabilities
                over = False

                async def ask(index: int) -> None:
                    while not over:
                        found = await client.predict(IMAGES[index])
                        assert found.probabilities[0] == right[index]
                        answered.append(index)

                asking = [asyncio.create_task(ask(index)) for index in range(50)]
                await asyncio.sleep(0.1)
                server.kill()
                assert client._batcher is not None
                async with asyncio.timeout(5):  # nobody waits for others' further attempts
                    while client._batcher._pending or client._batcher._free_slots < MESSAGES_IN_FLIGHT:
                        await asyncio.sleep(0.01)
                answered.clear()
                server = await asyncio.to_thread(LocalServer, "--address", address)
                until = time.monotonic() + 10
                while set(answered) != set(range(50)) and time.monotonic() < until:
                    await asyncio.sleep(0.01)
                over = True
                await asyncio.gather(*asking)
            assert set(answered) == set(range(50))
        finally:
            server.stop()

    asyncio.run(main())
