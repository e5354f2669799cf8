"""What AsyncClient's merging gains many callers, and what it costs a lone one.

For a harness that starts the server and holds both to a core each. Every answer is compared, to
the bit, with that of an unmerged call.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np
from mnist37_client import AsyncClient, validation_images
from numpy.typing import NDArray

IMAGES, _ = validation_images()
WARM_UP = 0.3  # seconds


def rate(address: str, callers: int, seconds: float, *, merge: bool = True) -> float:
    """Answers a second that so many callers in one process get, each asking for one image."""

    async def measure() -> float:
        async with AsyncClient(address, merge=merge) as client:
            expected = await unmerged(address)
            answered, over = 0, False

            async def ask(index: int) -> None:
                nonlocal answered
                image = IMAGES[index % len(IMAGES)]
                right = expected[index % len(IMAGES)]
                while not over:
                    found = await client.predict(image)
                    if found.probabilities[0] != right or len(found.probabilities) != 1:
                        raise AssertionError(f"caller {index} got {found}, not {right}")
                    answered += 1

            tasks = [asyncio.create_task(ask(index)) for index in range(callers)]
            await asyncio.sleep(WARM_UP)
            before, began = answered, time.perf_counter()
            await asyncio.sleep(seconds)
            found = (answered - before) / (time.perf_counter() - began)
            over = True
            await asyncio.gather(*tasks)
            return found

    return asyncio.run(measure())


def lone_p50_ratio(address: str, pairs: int = 15, calls: int = 100) -> float:
    """A lone caller's p50 with merging over that without: the median over pairs, taken in turn."""

    async def measure() -> float:
        image, right = IMAGES[0], (await unmerged(address))[0]

        async def p50(client: AsyncClient) -> float:
            taken = []
            for _ in range(calls):
                began = time.perf_counter()
                found = await client.predict(image)
                taken.append(time.perf_counter() - began)
                assert found.probabilities[0] == right
            return statistics.median(taken)

        async with AsyncClient(address) as merging, AsyncClient(address, merge=False) as plain:
            ratios = []
            for pair in range(-1, pairs):
                if pair % 2:  # who comes first alternates too
                    a = await p50(merging)
                    ratio = a / await p50(plain)
                else:
                    b = await p50(plain)
                    ratio = await p50(merging) / b
                if pair >= 0:  # the first one warms up
                    ratios.append(ratio)
            return statistics.median(ratios)

    return asyncio.run(measure())


async def unmerged(address: str) -> NDArray[np.float32]:
    """The probability of each image, asked for by a client that merges nothing."""
    async with AsyncClient(address, merge=False) as client:
        return (await client.predict(IMAGES)).probabilities
