"""python fake_cuda.py OPTIONS: `mnist37 serve`, on a machine that seems to have a CUDA device.

The device's memory is the host's, and Triton's interpreter does the arithmetic. What it shows are
the branches of the server's own: tensors that are on the device and others that are not, a device
that is full, busy or lost. What it cannot show is listed in docs/operations.md.

The device does as it is told by files in the folder that FAKE_CUDA names:

    full    its memory has no room for a tensor of more bytes than the file says
    busy    it belongs to another process: nothing can be begun on it
    lost    whatever is asked of it fails, for good
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read as the kernels are imported

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

DEVICE = torch.device("cuda", 0)
CONTROL = Path(os.environ["FAKE_CUDA"])
MADE: dict[str, Callable[..., Tensor]] = {  # what makes tensors, of torch's own
    name: getattr(torch, name) for name in ("tensor", "empty", "zeros")
}
launch = InterpretedFunction.run


def check() -> None:
    """Raise what torch raises where nothing can be done on the device."""
    for name, said in (
        ("lost", "CUDA error: an illegal memory access was encountered"),
        ("busy", "CUDA error: all CUDA-capable devices are busy or unavailable"),
    ):
        if (CONTROL / name).exists():
            raise torch.AcceleratorError(f"{said}\nCUDA kernel errors might be reported later")


def on_device(tensor: Tensor) -> Tensor:
    """Return a tensor of the host's as one of the device's.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """
    check()
    full = CONTROL / "full"
    size = tensor.numel() * tensor.element_size()
    if full.exists() and size > int(full.read_text()):
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
    return tensor.as_subclass(DeviceTensor)


def on_host(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


class DeviceTensor(Tensor):
    """A tensor on the device: it says so, and does not mix with those of the host."""

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
            hosts = [a for a in arguments if type(a) is Tensor and a.dim()]
            if hosts and name not in ("copy_",):
                raise RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu")
        base: Any = super()
        return base.__torch_function__(function, types, arguments, options or {})


def making(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that makes tensors on the device too."""

    def made(*arguments: object, device: Any = None, **options: object) -> Tensor:
        if device is None or torch.device(device).type != "cuda":
            return make(*arguments, device=device, **options)
        return on_device(make(*arguments, **options))

    return made


def to(tensor: Tensor, device: torch.device, **_: object) -> Tensor:
    """Copy a tensor to a device, in place of Tensor.to."""
    copied = on_host(tensor).clone()
    return on_device(copied) if torch.device(device).type == "cuda" else copied


def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
    """Launch a kernel, in place of Triton's own: on tensors of the device alone."""
    check()
    for argument in arguments:
        if isinstance(argument, Tensor) and not isinstance(argument, DeviceTensor):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    plain = [on_host(a) if isinstance(a, Tensor) else a for a in arguments]
    return launch(kernel, *plain, grid=grid, warmup=warmup, **options)


def install() -> None:
    """Have this process find the device, and use it."""
    for name, make in MADE.items():
        setattr(torch, name, making(make))
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

    cuda.ROWS = 512  # the interpreter takes as long for a small tile as for a large one
    from mnist37_server.__main__ import start

    start()
