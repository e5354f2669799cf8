"""What asyncio and grpc.aio raise in a call, as an exception of mnist37_client.errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from mnist37_client._rpc.status import from_rpc
from mnist37_client.errors import Cancelled


def task_is_cancelled() -> bool:
    """Whether a CancelledError means the task: grpc raises one for a closed channel too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """What grpc raises within, as a Mnist37Error."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error, address) from error
    except asyncio.CancelledError:
        if task_is_cancelled():
            raise
        raise Cancelled(f"{address}: the client was closed") from None
