"""Compile the kernels for devices of some compute capabilities.

    python compile_kernels.py FOLDER ARCH...

Triton compiles every kernel that mnist37.cuda launches by its ordinary path, for a driver whose
devices are simulated. The driver writes the binaries that the devices would load to FOLDER/ARCH, as
NAME-N.cubin. No kernel runs. The script prints Triton's version.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mnist37.cuda import Cuda
from mnist37.examples import PARAMETERS, TrainingSlice
from mnist37.optimizer import Sgd
from mnist37.training import MiniBatches


class Driver:
    """The part of Triton's driver that a launch uses.

    Args:
        folder: the folder for the binaries.
        archs: the compute capabilities of the devices, 90 for 9.0. Triton caches the compiled
            kernels by the device's index, so each device has its own.
    """

    def __init__(self, folder: Path, archs: list[int]) -> None:
        self.utils = self
        self.current = 0  # the index of the current device
        self._archs = archs
        self._folder = folder
        self._loaded: Counter[tuple[int, str]] = Counter()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._archs[self.current], 32)

    def get_current_device(self) -> int:
        return self.current

    def get_current_stream(self, device: int) -> int:
        return device

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Return the shared memory that a block has on the smallest device, 64 KiB (7.5)."""
        return {"max_shared_mem": 2**16, "device": device}

    def load_binary(self, name: str, binary: bytes, *_: object) -> tuple[object, ...]:
        """Write a binary that the current device would load; return a description of it."""
        arch = self._archs[self.current]
        self._loaded[arch, name] += 1
        folder = self._folder / str(arch)
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-{self._loaded[arch, name]}.cubin").write_bytes(binary)
        return name, None, 0, 0, 1024  # module, function, registers, spills, threads

    def launcher_cls(self, *_: object) -> Callable[..., None]:
        return lambda *_: None

    def unload_module(self, *_: object) -> None:
        pass


def launch_everything() -> None:
    """Call every function that launches a kernel, with the server's and callers' image counts."""
    device = Cuda(torch.device("cpu"))
    parameters = device.put(np.zeros(PARAMETERS, np.float32))
    valid = device.load_images(np.zeros((2038, 784), np.uint8), np.zeros(2038, np.uint8))
    for count in (1, 17, 256, 12_396):
        pixels, labels = np.zeros((count, 784), np.uint8), np.zeros(count, np.uint8)
        examples = device.load_images(pixels, labels)
        examples.sgd(parameters, np.zeros(1, np.int64), count, Sgd())
        for batch_size in (1, 255, 256):
            batches = MiniBatches(examples, 42, batch_size)
            settings = [Sgd()] * 2
            batches.steps(parameters, batches.order(1)[:2], settings[: len(batches)], np.inf)
            orders = batches.orders(range(1, 4))
            stop, rates = np.zeros(1, np.uint8), np.ones(len(orders), np.float32)
            part = TrainingSlice(orders, 0, 0, 2 * len(batches), batch_size, rates, stop)
            batches.examples.train(parameters, part, valid)
        examples.sum_losses(parameters)


def main() -> None:
    """Compile for the devices and into the folder that the command line names."""
    # A copy to a device is aligned. On the CPU torch would return a view, which may not be.
    torch.Tensor.to = lambda tensor, *_: tensor.clone()  # type: ignore[method-assign,assignment]
    torch.empty = torch.zeros  # type: ignore[assignment]  # no kernel runs and writes it
    archs = [int(arch) for arch in sys.argv[2:]]
    simulated_driver = Driver(Path(sys.argv[1]), archs)
    driver.set_active(simulated_driver)
    for simulated_driver.current in range(len(archs)):
        launch_everything()
    print(triton.__version__)


if __name__ == "__main__":
    main()
