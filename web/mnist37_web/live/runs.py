"""The training runs that the page has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mnist37_client import AsyncClient, AsyncTrainingRun, errors

from mnist37_web.errors import HttpError, for_callers

RUNS_MAX = 4  # at a time: the server does one after the other


class OwnRuns:
    """The runs that web follows for the page, and so keeps going.

    The server stops a run that nobody follows. So a run of the page ends with web.

    Args:
        client: with web's own token.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runs: dict[str, AsyncTrainingRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def owns(self, request_id: str | None) -> bool:
        """Return whether web follows the run with a request_id."""
        return request_id in self._runs

    async def begin(
        self,
        report: Callable[[str], None],
        **settings: Any,  # noqa: ANN401 - the arguments of train
    ) -> None:
        """Begin a run, and return when the server has accepted it.

        Args:
            report: tells the browsers why the run has ended before its time.
            settings: of the run.

        Raises:
            HttpError: there are too many runs.
            Mnist37Error: the server refuses the run.
        """
        if len(self._runs) >= RUNS_MAX:
            raise HttpError(
                429, f"{RUNS_MAX} runs of this page wait or run; stop them first", "TOO_MANY_RUNS"
            )
        run = self._client.train(**settings)
        self._runs[run.request_id] = run
        first = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._follow(run, first, report))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A refusal comes at once; a run that waits for its turn is silent.
        await asyncio.wait([first], timeout=0.3)
        if not first.cancel():
            first.result()

    def stop(self) -> int:
        """Stop all runs of the page and return how many there were."""
        count = len(self._runs)
        for run in self._runs.values():
            run.cancel()
        return count

    async def _follow(
        self,
        run: AsyncTrainingRun,
        first: asyncio.Future[None],
        report: Callable[[str], None],
    ) -> None:
        """Follow a run to its end."""
        try:
            async with run:
                async for _ in run:
                    if not first.done():
                        first.set_result(None)
        except errors.Mnist37Error as error:
            if first.done():
                report(for_callers(error))
            else:
                first.set_exception(error)
        finally:
            del self._runs[run.request_id]
            if not first.done():
                first.set_result(None)
