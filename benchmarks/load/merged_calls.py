"""The gain of AsyncClient's merging for many callers, and its cost for a lone one.

The harness starts the server and pins server and client to one core each. Every response is
compared, to the bit, with that of an unmerged call.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np
from mnist37_client import AsyncClient, validation_images
from numpy.typing import NDArray

IMAGES, _ = validation_images()
WARM_UP_SECONDS = 0.3


def rate(address: str, callers: int, seconds: float, *, merge: bool = True) -> float:
    """Return the responses a second to so many callers in one process, each for one image.

    Args:
        address: HOST:PORT of the server.
        callers: the number of callers.
        seconds: the duration of the measurement, after a warm-up.
        merge: whether the client merges the callers' images.
    """

    async def measure() -> float:
        async with AsyncClient(address, merge=merge) as client:
            expected = await predict_unmerged(address)
            responses, is_over = 0, False

            async def predict_repeatedly(index: int) -> None:
                nonlocal responses
                image = IMAGES[index % len(IMAGES)]
                probability = expected[index % len(IMAGES)]
                while not is_over:
                    prediction = await client.predict(image)
                    if (
                        prediction.probabilities[0] != probability
                        or len(prediction.probabilities) != 1
                    ):
                        raise AssertionError(f"caller {index} got {prediction}, not {probability}")
                    responses += 1

            tasks = [asyncio.create_task(predict_repeatedly(index)) for index in range(callers)]
            await asyncio.sleep(WARM_UP_SECONDS)
            before, start = responses, time.perf_counter()
            await asyncio.sleep(seconds)
            responses_a_second = (responses - before) / (time.perf_counter() - start)
            is_over = True
            await asyncio.gather(*tasks)
            return responses_a_second

    return asyncio.run(measure())


def lone_p50_ratio(address: str, pairs: int = 15, calls: int = 100) -> float:
    """Return a lone caller's p50 with merging over its p50 without.

    Args:
        address: HOST:PORT of the server.
        pairs: the number of pairs, which are measured in turn; the median of their ratios counts.
        calls: the number of calls on each side of a pair.
    """

    async def measure() -> float:
        image, probability = IMAGES[0], (await predict_unmerged(address))[0]

        async def p50(client: AsyncClient) -> float:
            latencies = []
            for _ in range(calls):
                start = time.perf_counter()
                prediction = await client.predict(image)
                latencies.append(time.perf_counter() - start)
                assert prediction.probabilities[0] == probability
            return statistics.median(latencies)

        async with AsyncClient(address) as merging, AsyncClient(address, merge=False) as plain:
            ratios = []
            for pair in range(-1, pairs):
                if pair % 2:  # the first of a pair alternates too
                    a = await p50(merging)
                    ratio = a / await p50(plain)
                else:
                    b = await p50(plain)
                    ratio = await p50(merging) / b
                if pair >= 0:  # the first pair is the warm-up
                    ratios.append(ratio)
            return statistics.median(ratios)

    return asyncio.run(measure())


async def predict_unmerged(address: str) -> NDArray[np.float32]:
    """Return the probability of each validation image, by a client that does not merge."""
    async with AsyncClient(address, merge=False) as client:
        return (await client.predict(IMAGES)).probabilities
