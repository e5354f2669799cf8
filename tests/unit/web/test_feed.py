"""Tests of when web asks the server for what the page shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mnist37_client.errors import Mnist37Error
from mnist37_web.live import feed
from mnist37_web.live.feed import Live

SECONDS = 20.0  # that a test waits at most


class CountedLive(Live):
    """A feed that asks no server, and counts what it would ask for at a time."""

    def __init__(self) -> None:
        nobody: Any = None
        super().__init__(nobody, lambda _: False)
        self.asking = 0

    async def _repeat(
        self,
        fetch: Callable[[], Awaitable[None]],  # noqa: ARG002
        report: Callable[[Mnist37Error], None] = lambda _: None,  # noqa: ARG002
    ) -> None:
        self.asking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.asking -= 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def lingers() -> float:
    """Return how long a feed goes on without a browser, after one that looked for a while."""
    live = CountedLive()
    task = asyncio.create_task(live.run())
    browser: Any = live.events()
    await anext(browser)
    await until(lambda: live.asking > 0)
    await asyncio.sleep(0.8 * feed.LINGER)
    await browser.aclose()
    left_at = time.monotonic()
    await until(lambda: live.asking == 0)
    task.cancel()
    return time.monotonic() - left_at


def test_web_goes_on_for_a_time_after_the_last_browser_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "LINGER", 0.5)
    assert asyncio.run(lingers()) >= 0.45


async def calls_after_a_fault() -> int:
    """Return how often a feed calls a function whose first call has a fault."""
    nobody: Any = None
    live, calls = Live(nobody, lambda _: False), 0

    async def fetch() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a fault of web")
        await asyncio.sleep(0.01)

    task = asyncio.create_task(live._repeat(fetch))
    await until(lambda: calls > 1 or task.done())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return calls


def test_a_fault_is_logged_and_the_page_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "RETRY", 0.01)
    assert asyncio.run(calls_after_a_fault()) > 1
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "a fault of web" in str(record.exc_info[1])
