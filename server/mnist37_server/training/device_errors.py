"""The detection of a device that is out of memory or lost, and the refusals for callers.

torch and Triton have many kinds of errors for these cases. Their texts have paths, process ids and
advice, which go to the log and not to callers.
"""

from __future__ import annotations

from mnist37.examples import Device
from mnist37_server.domain.examples import Batch
from mnist37_server.errors import Exhausted, Reason, ShuttingDown


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device is out of memory.

    torch's allocator raises a RuntimeError of its own class. For CUDA's other errors, torch and
    Triton raise a plain RuntimeError. All of them have "out of memory" in the text.
    """
    return isinstance(error, RuntimeError) and "out of memory" in str(error)


def out_of_memory_error(device: Device, batch: Batch | None) -> Exhausted:
    """Return the refusal of a request that failed since the device is out of memory.

    Args:
        device: the device.
        batch: the images that came with the request; None if it had none.
    """
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
    """Return the refusal of all writes after the device was lost."""
    return ShuttingDown(
        "the device is lost and the model cannot be trained until the server is started again;"
        " what was committed is kept, and predicted from",
        Reason.DEVICE_LOST,
    )
