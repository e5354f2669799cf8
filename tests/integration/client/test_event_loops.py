"""Tests of AsyncClient and event loops: one client in any of them, and nothing left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mnist37_client import AsyncClient, Cancelled, Client
from support.both_clients import ENDLESS_EPOCHS, IMAGES, assert_no_run

HEAD = """
import asyncio, gc, sys, threading
import numpy as np
from mnist37_client import AsyncClient, Mnist37Error

image = np.zeros((28, 28), np.uint8)
client = AsyncClient(sys.argv[1], merge=sys.argv[2] == "merged")

async def ask(client=client):
    found = await asyncio.gather(*(client.predict(image) for _ in range(20)))
    return found[0].version
"""

PROGRAMS = {
    "made at module level": "asyncio.run(ask())",
    "made after a loop": """
asyncio.run(asyncio.sleep(0))
asyncio.run(ask(AsyncClient(sys.argv[1])))
""",
    "made in a thread": """
made = []
thread = threading.Thread(target=lambda: made.append(AsyncClient(sys.argv[1])))
thread.start(); thread.join()
asyncio.run(ask(made[0]))
""",
    "three loops, one after the other": "for _ in range(3): asyncio.run(ask())",
    "three loops and a run": """
async def train():
    async for progress in client.train(1_000_000):
        break
    return await client.step()
for _ in range(3): asyncio.run(train())
""",
    "a run that outlives its loop": """
async def begin():
    run = client.train(1_000_000)
    await anext(run)
    return run
kept = asyncio.run(begin())
asyncio.run(ask())
try:
    asyncio.run(kept.wait())
except Mnist37Error as error:
    assert "began in another event loop" in str(error), error
else:
    raise AssertionError
del kept; gc.collect()
""",
    "a stream that outlives its loop": """
async def begin():
    answers = client.watch_run()
    async for answer in client.predict_stream([image] * 3):
        return answers
asyncio.run(begin()); gc.collect()
asyncio.run(ask())
""",
    "closed in another loop": "asyncio.run(ask()); asyncio.run(client.close()); gc.collect()",
    "closed without a call": "asyncio.run(client.close())",
    "with, twice": """
async def use():
    async with client: await ask()
asyncio.run(use())
try: asyncio.run(use())
except Mnist37Error as error: assert "is closed" in str(error)
""",
    "loops of two threads": """
failed = []
def use():
    try:
        for _ in range(3): asyncio.run(ask())
    except BaseException as error: failed.append(error)
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
""",
    "no loop": """
for call in (client.predict(image), client.step(), anext(client.watch_run())):
    try: call.send(None)
    except Mnist37Error as error: assert "no event loop" in str(error), error
    else: raise AssertionError
try: client.train(1)
except Mnist37Error as error: assert "no event loop" in str(error), error
else: raise AssertionError
del call; gc.collect()
""",
    "interrupted": """
async def fail():
    async for progress in client.train(1_000_000):
        raise KeyboardInterrupt
try: asyncio.run(fail())
except KeyboardInterrupt as error: sys.last_exc = error
asyncio.run(client.step())
""",
}


@pytest.mark.parametrize(
    ("name", "merge"),
    [
        *((name, "merged") for name in PROGRAMS),
        ("three loops and a run", "single"),
        ("interrupted", "single"),
    ],
)
def test_a_client_works_in_any_loop(client: Client, name: str, merge: str) -> None:
    program = HEAD + PROGRAMS[name]
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program, client.address, merge],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert_no_run(client)


def test_the_connections_of_closed_loops_are_closed(address: str) -> None:
    client = AsyncClient(address)

    async def ask() -> None:
        await client.predict(IMAGES[0])

    counts = []  # of open files and sockets
    for _ in range(20):
        asyncio.run(ask())
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert max(counts[10:]) < max(counts[:10]) + 5  # each open one more would be 10
    assert len(client._connections._by_loop) == 1


def test_a_closed_client_connects_no_more(address: str) -> None:
    async def main() -> None:
        client = AsyncClient(address)
        await client.close()
        for call in (client.predict(IMAGES[0]), client.step()):
            with pytest.raises(Cancelled, match="the client is closed"):
                await call
        assert not client._connections._by_loop

    asyncio.run(main())


def test_close_ends_the_calls_of_other_loops(address: str, client: Client) -> None:
    shared = AsyncClient(address)
    began = threading.Event()
    ended: list[BaseException] = []

    async def follow() -> None:
        async for _ in shared.train(ENDLESS_EPOCHS):
            began.set()

    def use() -> None:
        try:
            asyncio.run(follow())
        except BaseException as error:  # noqa: BLE001 - the test checks it below
            ended.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    assert began.wait(10)
    asyncio.run(shared.close())
    thread.join(10)
    assert [type(error) for error in ended] == [Cancelled]
    assert_no_run(client)


def call_until_closed(client: Client, ended: list[BaseException]) -> None:
    try:
        while True:
            client.predict(IMAGES[0])
            list(client.predict_stream([IMAGES[0]]))
            client.train(1).wait()
    except BaseException as error:  # noqa: BLE001 - the test checks it below
        ended.append(error)


def test_a_call_on_a_closing_client_is_cancelled(address: str) -> None:
    for _ in range(5):
        shared = Client(address)
        ended: list[BaseException] = []
        threads = [
            threading.Thread(target=call_until_closed, args=(shared, ended)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        shared.close()
        for thread in threads:
            thread.join(10)
        assert {type(error) for error in ended} == {Cancelled}, ended


def test_a_call_on_a_closing_asyncclient_is_cancelled(address: str) -> None:
    async def call(client: AsyncClient) -> None:
        while True:
            await client.get_model()
            async for _ in client.predict_stream([IMAGES[0]]):
                pass
            async for _ in client.train(1):
                pass

    async def main() -> list[BaseException | None]:
        client = AsyncClient(address)
        tasks = [asyncio.create_task(call(client)) for _ in range(8)]
        await asyncio.sleep(0.05)
        await client.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for _ in range(5):
        assert {type(error) for error in asyncio.run(main())} == {Cancelled}


def test_a_call_after_the_end_of_the_loops_generators_is_cancelled(address: str) -> None:
    # `asyncio.run` ends them last; a program may do so earlier.
    async def main() -> None:
        client = AsyncClient(address)
        await client.get_model()
        await asyncio.get_running_loop().shutdown_asyncgens()
        for call in (client.predict(IMAGES[0]), client.step(), client.predict(IMAGES)):
            with pytest.raises(Cancelled, match="the client was closed"):
                await call
        with pytest.raises(Cancelled, match="the client was closed"):
            client.train(1)

    asyncio.run(main())
