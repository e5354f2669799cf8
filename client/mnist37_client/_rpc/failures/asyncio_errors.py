"""Translation of the exceptions that asyncio and grpc.aio raise in a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from mnist37_client._rpc.failures.status import ended_while_sending, from_rpc
from mnist37_client.errors import Cancelled


def task_is_cancelled() -> bool:
    """Return whether the current task is being cancelled.

    grpc raises CancelledError for a closed channel too, which must not look like a cancelled task.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def translate_errors(address: str, is_closed: Callable[[], bool]) -> Iterator[None]:
    """Raise a Mnist37Error in place of an exception of grpc in the block.

    Args:
        address: the server's, for the texts.
        is_closed: returns whether the client was closed, which ends its calls.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error, address) from error
    except grpc.aio.UsageError:  # the channel is closed
        raise Cancelled(f"{address}: the client was closed") from None
    except asyncio.CancelledError:
        if task_is_cancelled():
            raise
        if is_closed():
            raise Cancelled(f"{address}: the client was closed") from None
        # grpc.aio cancels a call itself if the server ends it while requests are being sent.
        raise ended_while_sending(address) from None
