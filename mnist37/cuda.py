"""A CUDA device by torch, and what is launched there: the kernels of mnist37.cuda_kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37 import cuda_kernels
from mnist37.examples import SliceOutput, StepsOutput, TrainingSlice
from mnist37.kernels import Floats, Labels, Pixels
from mnist37.optimizer import Sgd

ROWS = cuda_kernels.ROWS  # images in a tile
STEPS_PER_LAUNCH = 1_024  # at the most: a run is stopped between two launches


class Cuda:
    """A CUDA device, whose memory holds parameters as tensors.

    Args:
        device: which of torch's; with the CPU's Triton's interpreter does the arithmetic.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # made when it is first wanted

    def __str__(self) -> str:
        return str(self._device)

    def load_images(self, pixels: Pixels, labels: Labels) -> CudaExamples:
        """See mnist37.examples.Device, as for what follows."""
        return CudaExamples.load(pixels, labels, self._device)

    def put(self, values: Floats) -> Tensor:
        """See Device."""
        return torch.tensor(values, device=self._device)

    def assign(self, parameters: Tensor, values: Floats) -> None:
        """See Device."""
        parameters.copy_(torch.tensor(values))

    def fetch(self, parameters: Tensor) -> Floats:
        """See Device."""
        found: Floats = parameters.cpu().numpy()
        return found

    def side_stream(self) -> AbstractContextManager[object]:
        """See Device: on a stream of its own, which runs beside the one of the training."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._stream)

    def is_lost(self) -> bool:
        """See Device.

        Most errors of CUDA's end all use of the device by the process. Which ones is for CUDA to
        know: it says so at whatever is asked next.
        """
        try:
            torch.cuda.synchronize(self._device)
        except Exception:  # noqa: BLE001 - whatever it says, it does not work
            return True
        return False


@dataclass(frozen=True)
class CudaExamples:
    """As mnist37.examples.Examples says.

    Triton launches on a thread's current device, which is the first one; so each launch names the
    tensors' own.
    """

    pixels: Tensor  # (N, 784) uint8
    labels: Tensor  # (N,) uint8

    @classmethod
    def load(cls, pixels: Pixels, labels: Labels, device: torch.device) -> Self:
        """Images (N, 784) and their labels (N,), put on the device."""
        return cls(torch.tensor(pixels, device=device), torch.tensor(labels, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """See Examples."""
        index = torch.from_numpy(order).to(self.labels.device)
        return type(self)(self.pixels[index], self.labels[index])

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, sgd: Sgd) -> int:
        """See Examples."""
        if not len(order):
            return 0
        device = parameters.device
        total = torch.empty((), dtype=torch.int64, device=device)
        with torch.cuda.device_of(parameters):
            cuda_kernels.sgd[1,](
                self.pixels,
                self.labels,
                torch.from_numpy(order).to(device),
                len(order),
                len(self),
                batch_size,
                parameters,
                sgd.learning_rate,
                total,
                ROWS=ROWS,
                num_warps=cuda_kernels.WARPS,
            )
        return int(total.item())

    def steps(
        self,
        parameters: Tensor,
        order: NDArray[np.int64],
        batch_size: int,
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """See Examples; a launch each."""
        found = StepsOutput.empty(len(order))
        for step, sgd in enumerate(settings):
            found.losses[step] = self.sgd(parameters, order[step : step + 1], batch_size, sgd)
            found.parameters[step] = parameters.cpu().numpy()
            if not np.abs(found.parameters[step], dtype=np.float64).sum() <= bound:
                return found.truncated(step)
        return found

    def sum_losses(self, parameters: Tensor) -> tuple[int, int]:
        """See Examples."""
        blocks = math.ceil(len(self) / ROWS)
        found = torch.empty((blocks, 2), dtype=torch.int64, device=parameters.device)
        with torch.cuda.device_of(parameters):
            cuda_kernels.evaluate[blocks,](
                self.pixels,
                self.labels,
                len(self),
                parameters,
                found,
                ROWS=ROWS,
                num_warps=cuda_kernels.WARPS,
            )
        total, correct = found.sum(0).tolist()
        return total, correct

    def train(self, parameters: Tensor, part: TrainingSlice, valid: Self) -> SliceOutput:
        """See Examples; a launch an epoch, or a thousand steps of one."""
        found = SliceOutput.empty(part)
        steps, start, loss, ended = 0, part.first_step, part.loss, 0
        for order in part.orders:
            while start < len(order) and steps < part.max_steps and not part.stop[0]:
                some = order[start : start + min(STEPS_PER_LAUNCH, part.max_steps - steps)]
                loss += self.sgd(parameters, some, part.batch_size, part.sgd)
                steps += len(some)
                start += len(some)
            if start < len(order):
                break
            found.totals[ended] = loss, *valid.sum_losses(parameters)
            found.parameters[ended] = parameters.cpu().numpy()
            start, loss, ended = 0, 0, ended + 1
        return found.from_lists(steps, loss, ended)
