"""Tests of interrupted programs: whatever leaves a call ends it, though its traceback is kept.

A prompt and a notebook keep the last traceback, whose frames hold the run: no garbage is collected.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from mnist37_client import AsyncClient, Client
from mnist37_client.local_server import LocalServer
from support.both_clients import ENDLESS_EPOCHS, IMAGES, assert_no_run

kept: list[BaseException] = []  # as a prompt keeps the last traceback


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer("--device", "cpu", "--max-streams", "2") as server:
        yield server


@pytest.fixture
def watcher(server: LocalServer) -> Iterator[Client]:
    with Client(server.address, timeout=5) as client:
        yield client
    kept.clear()


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Take SIGINT as a prompt does; a shell's background job ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def endless_images() -> Iterator[Any]:
    while True:
        time.sleep(0.01)
        yield IMAGES[0]


def follow(client: Client) -> None:
    for _ in client.train(ENDLESS_EPOCHS):
        pass


BLOCKING: dict[str, Callable[[Client], object]] = {
    "wait": lambda client: client.train(ENDLESS_EPOCHS).wait(),
    "the loop over a run": follow,
    "a list of a run": lambda client: list(client.train(ENDLESS_EPOCHS)),
    "predict_stream": lambda client: sum(1 for _ in client.predict_stream(endless_images())),
    "watch_run": lambda client: sum(1 for _ in client.watch_run(follow=True)),
    "step": lambda client: client.step(),
}


def interrupt_soon() -> None:
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
def test_ctrl_c_ends_a_call(watcher: Client, call: Callable[[Client], object]) -> None:
    client = Client(watcher.address)
    with watcher.train(ENDLESS_EPOCHS) as other:
        if call in (BLOCKING["step"], BLOCKING["watch_run"]):
            next(other)  # a step waits behind it, and it is watched
        else:
            other.cancel()
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt) as caught:
            call(client)
        kept.append(caught.value)
    version = assert_no_run(watcher)
    assert watcher.versions(1)[0].version == version
    for _ in range(3):  # streams: the server has room for two
        assert len(list(watcher.predict_stream([IMAGES[0]]))) == 1


def test_ctrl_c_at_the_prompt_stops_the_run(watcher: Client) -> None:
    prompt = subprocess.Popen(
        [sys.executable, "-i", "-q", "-c", "from mnist37_client import Client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert prompt.stdin is not None
    with prompt:
        before = len(watcher.runs())
        lines = f"client = Client({watcher.address!r}); client.train(1_000_000).wait()\n"
        prompt.stdin.write(lines)
        prompt.stdin.flush()
        while len(watcher.runs()) == before:
            time.sleep(0.02)
        prompt.send_signal(signal.SIGINT)
        assert_no_run(watcher)
        assert prompt.poll() is None, "the prompt is still there, and has the traceback"
        prompt.stdin.close()
        assert prompt.stderr is not None
        assert "KeyboardInterrupt" in prompt.stderr.read()


def test_an_exception_in_the_loop_stops_a_run_in_a_with(watcher: Client) -> None:
    def fail() -> None:
        with watcher.train(ENDLESS_EPOCHS) as run:
            for _ in run:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    kept.append(caught.value)
    assert_no_run(watcher)


async def wait(client: AsyncClient) -> None:
    await client.train(ENDLESS_EPOCHS).wait()


async def follow_async(client: AsyncClient) -> None:
    async for _ in client.train(ENDLESS_EPOCHS):
        pass


async def stream(client: AsyncClient) -> None:
    async for _ in client.predict_stream(endless_images()):
        pass


async def watch(client: AsyncClient) -> None:
    async for _ in client.watch_run(follow=True):
        pass


AWAITED: list[Callable[[AsyncClient], Awaitable[None]]] = [wait, follow_async, stream, watch]


@pytest.mark.parametrize("call", AWAITED)
def test_a_cancelled_task_ends_its_call(
    watcher: Client, call: Callable[[AsyncClient], Awaitable[None]]
) -> None:
    async def main() -> None:
        client = AsyncClient(watcher.address, timeout=5)
        with watcher.train(ENDLESS_EPOCHS) as other:
            next(other)
            if call is not watch:
                other.cancel()
            try:
                async with asyncio.timeout(0.4):
                    await call(client)
            except TimeoutError as error:
                kept.append(error)
        await client.step()  # in the same loop, which goes on as in a notebook
        for _ in range(3):
            async for _ in client.predict_stream([IMAGES[0]]):
                pass

    asyncio.run(main())
    assert len(kept) == 1
    assert_no_run(watcher)
