"""`mnist37 serve` with a simulated CUDA device: `python fake_cuda.py OPTIONS`.

The device's memory is the host's, and Triton's interpreter does the arithmetic. It covers the
server's own branches: tensors on the device and on the host, and a device that is full, busy or
lost. docs/operations.md lists what it cannot show.

Files in the folder that FAKE_CUDA names control the device:

    full    an allocation of more bytes than the file says fails
    busy    the device belongs to another process: every operation fails
    lost    every operation fails, permanently
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton reads this when the kernels are imported

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

DEVICE = torch.device("cuda", 0)
CONTROL = Path(os.environ["FAKE_CUDA"])
FACTORIES: dict[str, Callable[..., Tensor]] = {  # torch's original functions that make tensors
    name: getattr(torch, name) for name in ("tensor", "empty", "zeros")
}
launch = InterpretedFunction.run


def check() -> None:
    """Raise torch's error if the device is lost or busy."""
    for name, message in (
        ("lost", "CUDA error: an illegal memory access was encountered"),
        ("busy", "CUDA error: all CUDA-capable devices are busy or unavailable"),
    ):
        if (CONTROL / name).exists():
            raise torch.AcceleratorError(f"{message}\nCUDA kernel errors might be reported later")


def on_device(tensor: Tensor) -> Tensor:
    """Return a host tensor as a device tensor.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """
    check()
    full = CONTROL / "full"
    size_bytes = tensor.numel() * tensor.element_size()
    if full.exists() and size_bytes > int(full.read_text()):
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size_bytes} bytes.")
    return tensor.as_subclass(DeviceTensor)


def on_host(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


class DeviceTensor(Tensor):
    """A tensor on the device. An operation on it and a host tensor fails, as in torch."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def cpu(self, *_: object, **__: object) -> Tensor:
        check()
        return on_host(self).clone()

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name not in ("__get__", "size", "numel", "element_size", "__len__", "dim"):
            check()
            host_tensors = [a for a in arguments if type(a) is Tensor and a.dim()]
            if host_tensors and name not in ("copy_",):
                raise RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu")
        base: Any = super()
        return base.__torch_function__(function, types, arguments, options or {})


def with_device(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that makes tensors on the host and on the device.

    Args:
        make: torch's original function, which makes tensors on the host.
    """

    def make_on_either(*arguments: object, device: Any = None, **options: object) -> Tensor:
        if device is None or torch.device(device).type != "cuda":
            return make(*arguments, device=device, **options)
        return on_device(make(*arguments, **options))

    return make_on_either


def to(tensor: Tensor, device: torch.device, **_: object) -> Tensor:
    """Return a copy of a tensor on a device; replaces Tensor.to."""
    copy = on_host(tensor).clone()
    return on_device(copy) if torch.device(device).type == "cuda" else copy


def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
    """Launch a kernel; replaces InterpretedFunction.run.

    Raises:
        ValueError: an argument is a host tensor.
    """
    check()
    for argument in arguments:
        if isinstance(argument, Tensor) and not isinstance(argument, DeviceTensor):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    plain = [on_host(a) if isinstance(a, Tensor) else a for a in arguments]
    return launch(kernel, *plain, grid=grid, warmup=warmup, **options)


def install() -> None:
    """Replace torch's and Triton's functions, so that this process finds and uses the device."""
    for name, make in FACTORIES.items():
        setattr(torch, name, with_device(make))
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.synchronize = lambda device=None: check()  # noqa: ARG005 - the name is torch's
    cuda.empty_cache = check
    cuda.device_of = lambda tensor: nullcontext(tensor.device)
    cuda.Stream = lambda device: device
    cuda.stream = nullcontext
    version: Any = torch.version
    version.cuda = "13.0"
    tensor: Any = Tensor
    tensor.to = to
    interpreted: Any = InterpretedFunction
    interpreted.run = run


if __name__ == "__main__":
    install()
    from mnist37_server.training import device

    device.driver_finds_device = lambda: True
    from mnist37 import cuda

    cuda.ROWS = 512  # the interpreter takes as much time for a small tile as for a large one
    from mnist37_server.command_line import start

    start()
