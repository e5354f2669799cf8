"""python compile_kernels.py ARCH FOLDER: what a device of compute capability ARCH would be given.

Everything that mnist37.device launches is compiled by the ordinary path, for a driver whose device
is made up: the binaries that it is to load are written to FOLDER, as NAME-N.cubin, and Triton's
version is printed. Nothing runs.
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
from mnist37.examples import PARAMETERS, Part
from mnist37.optimizer import Sgd
from mnist37.training import MiniBatches


class Driver:
    """As much of Triton's driver as a launch asks for.

    Args:
        arch: compute capability, 90 for 9.0.
        folder: where the binaries go.
    """

    def __init__(self, arch: int, folder: Path) -> None:
        self.utils = self
        self._arch = arch
        self._folder = folder
        self._loaded: Counter[str] = Counter()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Return the shared memory that a block has on the smallest device, 64 KiB (7.5)."""
        return {"max_shared_mem": 2**16, "device": device}

    def load_binary(self, name: str, binary: bytes, *_: object) -> tuple[object, ...]:
        """Write what a device would load; return what it would say of it."""
        self._loaded[name] += 1
        (self._folder / f"{name}-{self._loaded[name]}.cubin").write_bytes(binary)
        return name, None, 0, 0, 1024  # module, function, registers, spills, threads

    def launcher_cls(self, *_: object) -> Callable[..., None]:
        return lambda *_: None

    def unload_module(self, *_: object) -> None:
        pass


def launch_everything() -> None:
    """Call whatever launches a kernel, with images as many as the server's and as callers' are."""
    device = Cuda(torch.device("cpu"))
    parameters = device.put(np.zeros(PARAMETERS, np.float32))
    valid = device.place(np.zeros((2038, 784), np.uint8), np.zeros(2038, np.uint8))
    for count in (1, 17, 256, 12_396):
        pixels, labels = np.zeros((count, 784), np.uint8), np.zeros(count, np.uint8)
        examples = device.place(pixels, labels)
        examples.sgd(parameters, np.zeros(1, np.int64), count, Sgd())
        for batch_size in (1, 255, 256):
            batches = MiniBatches(examples, 42, batch_size)
            settings = [Sgd()] * 2
            batches.steps(parameters, batches.order(1)[:2], settings[: len(batches)], np.inf)
            orders = batches.orders(range(1, 4))
            stop = np.zeros(1, np.uint8)
            part = Part(orders, 0, 0, 2 * len(batches), batch_size, Sgd(), stop)
            batches.examples.train(parameters, part, valid)
        examples.total(parameters)


def main() -> None:
    """Do it for the device and the folder that the command line names."""
    # What goes to a device is copied, and so aligned; on the CPU torch would hand out a view.
    torch.Tensor.to = lambda tensor, *_: tensor.clone()  # type: ignore[method-assign,assignment]
    driver.set_active(Driver(int(sys.argv[1]), Path(sys.argv[2])))
    launch_everything()
    print(triton.__version__)


if __name__ == "__main__":
    main()
