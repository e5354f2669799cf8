"""A CUDA device, through torch, that runs the kernels of mnist37.cuda_kernels."""

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
from mnist37.losses import LossSums
from mnist37.optimizer import Sgd

ROWS = cuda_kernels.ROWS  # images in a tile
STEPS_PER_LAUNCH_MAX = 1_024  # a run can only stop between two launches


class Cuda:
    """A CUDA device, whose memory holds parameters as tensors.

    Args:
        device: a device of torch. For the CPU, Triton's interpreter does the arithmetic.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # created at first use

    def __str__(self) -> str:
        return str(self._device)

    def load_images(self, pixels: Pixels, labels: Labels) -> CudaExamples:
        """Copy images (N, 784) and their labels (N,) to the device."""
        return CudaExamples.load(pixels, labels, self._device)

    def put(self, values: Floats) -> Tensor:
        """Return a copy on the device of the parameters `values` (785,)."""
        return torch.tensor(values, device=self._device)

    def assign(self, parameters: Tensor, values: Floats) -> None:
        """Overwrite parameters on the device with `values` (785,)."""
        parameters.copy_(torch.tensor(values))

    def fetch(self, parameters: Tensor) -> Floats:
        """Return a copy (785,) on the host of parameters on the device."""
        values: Floats = parameters.cpu().numpy()
        return values

    def side_stream(self) -> AbstractContextManager[object]:
        """Return a context whose work goes to a CUDA stream that runs beside the training's."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._stream)

    def is_lost(self) -> bool:
        """Return whether this process cannot use the device any more.

        After most CUDA errors the process cannot use the device any more. Only CUDA knows which
        errors: after such an error the next call, here a synchronization, fails too.
        """
        try:
            torch.cuda.synchronize(self._device)
        except Exception:  # noqa: BLE001 - any error means that the device does not work
            return True
        return False


@dataclass(frozen=True)
class CudaExamples:
    """Images in a CUDA device's memory, kept as bytes.

    Triton launches on a thread's current device, which is the first one by default. So each launch
    selects the device of its tensors.
    """

    pixels: Tensor  # (N, 784) uint8
    labels: Tensor  # (N,) uint8

    @classmethod
    def load(cls, pixels: Pixels, labels: Labels, device: torch.device) -> Self:
        """Copy images (N, 784) and their labels (N,) to the device."""
        return cls(torch.tensor(pixels, device=device), torch.tensor(labels, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """Return a copy of the images and labels, permuted by `order` (N,)."""
        index = torch.from_numpy(order).to(self.labels.device)
        return type(self)(self.pixels[index], self.labels[index])

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, sgd: Sgd) -> int:
        """Take a step of SGD for each mini-batch; return the sum of the losses in LOSS_UNITs."""
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
        """Take steps of SGD, each with its own settings and in its own launch."""
        output = StepsOutput.empty(len(order))
        for step, sgd in enumerate(settings):
            output.losses[step] = self.sgd(parameters, order[step : step + 1], batch_size, sgd)
            output.parameters[step] = parameters.cpu().numpy()
            if not np.abs(output.parameters[step], dtype=np.float64).sum() <= bound:  # or NaN
                return output.truncated(step)
        return output

    def sum_losses(self, parameters: Tensor) -> LossSums:
        """Return the sums of the losses and of the correct classifications of all images."""
        blocks = math.ceil(len(self) / ROWS)
        sums = torch.empty((blocks, 2), dtype=torch.int64, device=parameters.device)
        with torch.cuda.device_of(parameters):
            cuda_kernels.evaluate[blocks,](
                self.pixels,
                self.labels,
                len(self),
                parameters,
                sums,
                ROWS=ROWS,
                num_warps=cuda_kernels.WARPS,
            )
        losses, counts = sums.sum(0).tolist()
        counts, threes_right = divmod(counts, cuda_kernels.COUNT_UNIT.value)
        threes, sevens_right = divmod(counts, cuda_kernels.COUNT_UNIT.value)
        return LossSums(losses, threes_right, sevens_right, threes)

    def train(self, parameters: Tensor, training_slice: TrainingSlice, valid: Self) -> SliceOutput:
        """Take the steps of a slice of a run, and evaluate after each epoch.

        An epoch is one launch, or more if it has more than STEPS_PER_LAUNCH_MAX steps.
        """
        output = SliceOutput.empty(training_slice)
        max_steps, batch_size = training_slice.max_steps, training_slice.batch_size
        steps, start, loss, epochs = 0, training_slice.first_step, training_slice.loss, 0
        for order, rate in zip(training_slice.orders, training_slice.rates.tolist(), strict=True):
            while start < len(order) and steps < max_steps and not training_slice.stop[0]:
                launch = order[start : start + min(STEPS_PER_LAUNCH_MAX, max_steps - steps)]
                loss += self.sgd(parameters, launch, batch_size, Sgd(rate))
                steps += len(launch)
                start += len(launch)
            if start < len(order):
                break
            sums = valid.sum_losses(parameters)
            output.totals[epochs] = loss, sums.losses, sums.threes_right + sums.sevens_right
            output.parameters[epochs] = parameters.cpu().numpy()
            start, loss, epochs = 0, 0, epochs + 1
        return output.truncated(steps, loss, epochs)
