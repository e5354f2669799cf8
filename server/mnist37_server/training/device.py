"""The selection of the device for training, and the loading of the images to it.

torch takes seconds to load. So it is loaded only if there is a CUDA device to use.
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

DRIVER = "libcuda.so.1"  # part of NVIDIA's driver
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE of the CUDA driver API
INSTALL_TORCH = "pip install 'mnist37[server]'"

log = logging.getLogger(__name__)


class DeviceUnusable(Exception):
    """The error for a device that cannot be used.

    Args:
        text: a sentence about the device, without a full stop.
        advice: what the operator can do, other than name another device.
    """

    def __init__(self, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


def check_name(name: str) -> None:
    """Raise CannotStart unless this is a valid name of a device, which need not exist."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise CannotStart(f"--device: there is no {name!r}; use auto, cpu, cuda or cuda:N")


def place_images(name: str, images: Data) -> tuple[Datasets, Device]:
    """Put the images on the device of this name, and check that the device works.

    `auto` is the first CUDA device. If it cannot be used, a warning gives the reason, and the CPU
    is used.

    Args:
        name: auto, cpu, cuda or cuda:N; `check_name` accepts it.
        images: the training and the validation images.

    Returns:
        The images on the device, and the device.

    Raises:
        CannotStart: the name is not `auto`, and the device does not exist or cannot be used.
    """
    if name == "auto":
        try:
            if driver_finds_device() and torch_finds_device():
                return place_images_on(find_device("cuda"), images)
        except DeviceUnusable as error:
            log.warning("no CUDA device is used: %s; the model is on the CPU", error)
            with suppress(Exception):  # a device that has failed may fail here again
                import torch

                torch.cuda.empty_cache()
        return place_images_on(Host(), images)
    try:
        return place_images_on(find_device(name), images)
    except DeviceUnusable as error:
        advice = f"{error.advice}, or use" if error.advice else "use"
        raise CannotStart(f"--device: {error}; {advice} auto, cpu or another device") from error


def driver_finds_device() -> bool:
    """Return whether NVIDIA's driver is installed and finds a device, without loading torch."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return False
    # torch explains any other error better, so it counts as a device here.
    return bool(driver.cuInit(0) != NO_DEVICE)


def torch_finds_device() -> bool:
    """Return whether torch finds a CUDA device.

    Raises:
        DeviceUnusable: torch is not installed, cannot be loaded, has no CUDA, or warns about CUDA.
    """
    if importlib.util.find_spec("torch") is None:
        raise DeviceUnusable(
            "CUDA needs torch, which is not installed", f"install it: {INSTALL_TORCH}"
        )
    try:
        import torch
    except (ImportError, OSError) as error:  # for example, one of its libraries is missing
        raise DeviceUnusable(f"torch cannot be loaded: {first_line(error)}") from error

    if torch.version.cuda is None:
        raise DeviceUnusable("this torch is a build without CUDA", "install another")
    with warnings.catch_warnings(record=True) as cuda_warnings:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    texts = [first_line(w.message) for w in cuda_warnings if "CUDA" in str(w.message)]
    if not is_available and texts:  # for example, the driver is too old
        raise DeviceUnusable(texts[0])
    return is_available


def find_device(name: str) -> Device:
    """Return the device of this name: cpu, cuda or cuda:N.

    Raises:
        DeviceUnusable: the device does not exist, or torch, Triton or a C compiler is missing.
    """
    if name == "cpu":
        return Host()
    index = int(name.partition(":")[2] or 0)
    is_available = torch_finds_device()
    import torch

    count = torch.cuda.device_count() if is_available else 0
    if index >= count:
        raise DeviceUnusable(f"{name} is not there; torch sees {count} CUDA devices")
    # Triton looks for a compiler in these places, but not before the first Train.
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

    Returns:
        The images on the device, and the device.

    Raises:
        DeviceUnusable: a device other than the CPU fails.
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
    """Run each kernel once, so that a device that cannot run it fails at the start."""
    parameters = device.put(np.zeros(PARAMETERS, np.float32))
    datasets.valid.sgd(parameters, np.zeros(1, np.int64), 1, Sgd())
    for examples in (datasets.train, datasets.valid):
        evaluate(parameters, examples)


def first_line(message: object) -> str:
    """Return the first line of a message from torch or Triton, without its full stop."""
    return str(message).strip().partition("\n")[0].rstrip(".")
