"""A device that has no room or is lost: how to tell, and what its callers are told.

torch and Triton have errors of many kinds for it, with paths, pids and advice in their texts; those
are for the log.
"""

from __future__ import annotations

from mnist37.examples import Device
from mnist37_server.domain.examples import Batch
from mnist37_server.errors import Exhausted, Reason, ShuttingDown


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is for want of memory on a device.

    torch's allocator has a class for it; CUDA, by torch or by Triton, has RuntimeErrors and words.
    """
    return isinstance(error, RuntimeError) and "out of memory" in str(error)


def out_of_memory_error(device: Device, batch: Batch | None) -> Exhausted:
    """Why a request could not be carried out that came with this batch, or with none."""
    if batch is None:
        return Exhausted(
            f"{device} has no room left in its memory; what is committed is kept; try again when"
            " less runs on the device",
            Reason.DEVICE_OUT_OF_MEMORY,
            device=device,
        )
    count = len(batch.images)
    return Exhausted(
        f"batch: {device} has no room for {count:,} images; nothing is applied; send fewer, or try"
        " again when less runs on the device",
        Reason.DEVICE_OUT_OF_MEMORY,
        device=device,
        images=count,
    )


def device_lost_error() -> ShuttingDown:
    """Why nothing is written any more."""
    return ShuttingDown(
        "the device is lost and the model cannot be trained until the server is started again;"
        " what was committed is kept, and predicted from",
        Reason.DEVICE_LOST,
    )
