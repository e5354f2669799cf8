"""Where the model is trained: finds the device, and puts the images there.

torch is loaded where there is a CUDA device to be used, and nowhere else: it takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import re
import shutil
import warnings
from contextlib import suppress

import numpy as np

from mnist37.data import Data
from mnist37.examples import PARAMETERS, Device
from mnist37.host import Host
from mnist37.optimizer import Sgd
from mnist37.training import Datasets, evaluate
from mnist37_server.errors import CannotStart
from mnist37_server.training.device_errors import is_out_of_memory

DRIVER = "libcuda.so.1"  # comes with NVIDIA's driver
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
INSTALL_TORCH = "pip install 'mnist37[server]'"

log = logging.getLogger(__name__)


class DeviceUnusable(Exception):
    """A device that cannot be used.

    Args:
        why: a sentence on the device, without a full stop.
        advice: what would help, besides another device.
    """

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.advice = advice


def check_name(name: str) -> None:
    """Raise CannotStart unless a device can have this name; whether it is there is not asked."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise CannotStart(f"--device: there is no {name!r}; use auto, cpu, cuda or cuda:N")


def place_images(name: str, images: Data) -> tuple[Datasets, Device]:
    """Put the images on the device of this name, and have it show that it works.

    Of `auto` that is the first CUDA device. Where it cannot be used, a warning says why, and the
    CPU is taken.

    Args:
        name: auto, cpu, cuda or cuda:N, as `check_name` lets pass.
        images: the training and the validation images.

    Returns:
        The images on the device, and the device.

    Raises:
        CannotStart: a device was named, and it is not there or cannot be used.
    """
    if name == "auto":
        try:
            if driver_finds_device() and torch_finds_device():
                return place_images_on(find_device("cuda"), images)
        except DeviceUnusable as error:
            log.warning("no CUDA device is used: %s; the model is on the CPU", error)
            with suppress(Exception):  # a device that fails may fail at this too
                import torch

                torch.cuda.empty_cache()
        return place_images_on(Host(), images)
    try:
        return place_images_on(find_device(name), images)
    except DeviceUnusable as error:
        advice = f"{error.advice}, or use" if error.advice else "use"
        raise CannotStart(f"--device: {error}; {advice} auto, cpu or another device") from error


def driver_finds_device() -> bool:
    """Return whether NVIDIA's driver is there and finds a device; asked without torch."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    # Any other error is for torch to explain.
    return bool(driver.cuInit(0) != NO_DEVICE)


def torch_finds_device() -> bool:
    """Return whether torch finds a CUDA device.

    Raises:
        DeviceUnusable: torch says why it finds none, has no CUDA, cannot be loaded or is not there.
    """
    if importlib.util.find_spec("torch") is None:
        raise DeviceUnusable(
            "CUDA needs torch, which is not installed", f"install it: {INSTALL_TORCH}"
        )
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of its own is missing, say
        raise DeviceUnusable(f"torch cannot be loaded: {first_line(error)}") from error

    if torch.version.cuda is None:
        raise DeviceUnusable("this torch is a build without CUDA", "install another")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    why = [first_line(warning.message) for warning in said if "CUDA" in str(warning.message)]
    if not found and why:  # a driver that is too old, say
        raise DeviceUnusable(why[0])
    return found


def find_device(name: str) -> Device:
    """Return the device of this name: cpu, cuda or cuda:N.

    Raises:
        DeviceUnusable: the device is not there, or lacks torch, Triton or a C compiler.
    """
    if name == "cpu":
        return Host()
    index = int(name.partition(":")[2] or 0)
    found = torch_finds_device()
    import torch

    count = torch.cuda.device_count() if found else 0
    if index >= count:
        raise DeviceUnusable(f"{name} is not there; torch sees {count} CUDA devices")
    # Triton would ask these, and say at the first Train what it misses.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise DeviceUnusable(
            "on CUDA the kernels are built with a C compiler, and there is none", "install gcc"
        )
    try:
        from mnist37.cuda import Cuda
    except ImportError as error:
        raise DeviceUnusable(f"Triton cannot be loaded: {first_line(error)}") from error

    return Cuda(torch.device("cuda", index))


def place_images_on(device: Device, images: Data) -> tuple[Datasets, Device]:
    """Put the images on a device, and run each kernel there once.

    Raises:
        DeviceUnusable: the device fails at it.
    """
    try:
        datasets = Datasets(images, device)
        run_kernels_once(datasets, device)
    except Exception as error:
        if isinstance(device, Host):
            raise
        log.debug("%s cannot be used", device, exc_info=error)
        if is_out_of_memory(error):
            raise DeviceUnusable(
                f"{device} has no room in its memory", "end what else is on it"
            ) from error
        raise DeviceUnusable(f"{device} cannot be used: {first_line(error)}") from error
    return datasets, device


def run_kernels_once(datasets: Datasets, device: Device) -> None:
    """Run each kernel once, so that what a device refuses is refused at the start."""
    parameters = device.put(np.zeros(PARAMETERS, np.float32))
    datasets.valid.sgd(parameters, np.zeros(1, np.int64), 1, Sgd())
    for examples in (datasets.train, datasets.valid):
        evaluate(parameters, examples)


def first_line(message: object) -> str:
    """Return the first line of what torch or Triton say, without its full stop."""
    return str(message).strip().partition("\n")[0].rstrip(".")
