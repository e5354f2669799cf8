"""Where the model is trained: finds the device, and puts the images there."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from mnist37.data import Data
from mnist37.examples import PARAMETERS
from mnist37.optimizer import Sgd
from mnist37.training import Sets, evaluate
from mnist37_server.errors import CannotStart
from mnist37_server.training.device_errors import no_room

CPU = torch.device("cpu")
NVIDIA_DRIVER = Path("/dev/nvidiactl")  # there where NVIDIA's driver is loaded

log = logging.getLogger(__name__)


class Unusable(Exception):
    """A device that cannot be used.

    Args:
        why: a sentence on the device, without a full stop.
        advice: what would help, besides another device.
    """

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.advice = advice


def place(name: str, images: Data) -> tuple[Sets, torch.device]:
    """Put the images on the device of this name, and have it show that it works.

    Of `auto` that is the first CUDA device. Where it cannot be used, a warning says why, and the
    CPU is taken.

    Args:
        name: auto, cpu, cuda or cuda:N.
        images: the training and the validation images.

    Returns:
        The images on the device, and the device.

    Raises:
        CannotStart: a device was named, and there is no such device or it cannot be used.
    """
    if name == "auto":
        try:
            if cuda_is_there():
                return place_on(find_device("cuda"), images)
        except Unusable as error:
            log.warning("no CUDA device is used: %s; the model is on the CPU", error)
        with suppress(Exception):  # a device that fails may fail at this too
            torch.cuda.empty_cache()
        return place_on(CPU, images)
    try:
        return place_on(find_device(name), images)
    except Unusable as error:
        advice = f"{error.advice}, or use" if error.advice else "use"
        raise CannotStart(f"--device: {error}; {advice} auto, cpu or another device") from error


def cuda_is_there() -> bool:
    """Return whether torch finds a CUDA device.

    Raises:
        Unusable: there is a device, and torch says why it is not found.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if not found and said:  # a driver that is too old, say
        raise Unusable(first_line(said[0].message))
    if not found and torch.version.cuda is None and NVIDIA_DRIVER.exists():
        raise Unusable("this torch is a build without CUDA")
    return found


def find_device(name: str) -> torch.device:
    """Return the device of this name: cpu, cuda or cuda:N.

    Raises:
        CannotStart: a device cannot have this name.
        Unusable: the device is not there, or lacks a compiler.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not (device.type == "cuda" or str(device) == "cpu"):
        raise CannotStart(f"--device: there is no {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if cuda_is_there() else 0
    if (device.index or 0) >= count:
        raise Unusable(f"{name} is not there; torch sees {count} CUDA devices")
    # Triton would ask these, and say at the first Train what it misses.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise Unusable(
            "on CUDA the kernels are built with a C compiler, and there is none", "install gcc"
        )
    return torch.device("cuda", device.index or 0)


def place_on(device: torch.device, images: Data) -> tuple[Sets, torch.device]:
    """Put the images on a device, and run each kernel there once.

    Raises:
        Unusable: the device fails at it.
    """
    try:
        sets = Sets(images, device)
        try_out(sets, device)
    except Exception as error:
        if device.type == "cpu":
            raise
        log.debug("%s cannot be used", device, exc_info=error)
        if no_room(error):
            raise Unusable(
                f"{device} has no room in its memory", "end what else is on it"
            ) from error
        raise Unusable(f"{device} cannot be used: {first_line(error)}") from error
    return sets, device


def try_out(sets: Sets, device: torch.device) -> None:
    """Run each kernel once, so that what a device refuses is refused at the start."""
    parameters = torch.zeros(PARAMETERS, device=device)
    sets.valid.sgd(parameters, np.zeros(1, np.int64), 1, Sgd())
    for examples in (sets.train, sets.valid):
        evaluate(parameters, examples)


def first_line(message: object) -> str:
    """Return the first line of what torch or Triton say, without its full stop."""
    return str(message).strip().partition("\n")[0].rstrip(".")
