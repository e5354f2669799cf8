"""The counts and the times of a model's predictions, as plain numbers."""

from __future__ import annotations

import threading
from time import perf_counter, time
from typing import NamedTuple


class PredictionTotals(NamedTuple):
    """What a model has predicted since the server started; times are sums in seconds."""

    images: int
    answered: int  # requests; each is one computation
    wait_seconds: float  # until the versions were there
    input_seconds: float  # until the pixels were there
    compute_seconds: float
    output_seconds: float  # until the answers were put together
    failed: int  # requests
    failed_seconds: float
    ended_at: float | None  # when the last prediction ended, in seconds since 1970; None: none yet


class PredictionCounts:
    """The counts of one model's predictions, each of which is counted before it is answered.

    Attributes:
        images: the number of images that were predicted.
    """

    def __init__(self) -> None:
        # guarded by _lock: writes of all other fields
        self._lock = threading.Lock()
        self.images = 0
        self._answered = self._failed = 0
        self._wait_seconds = self._input_seconds = 0.0
        self._compute_seconds = self._output_seconds = self._failed_seconds = 0.0
        self._ended = 0.0  # when the last prediction ended, on perf_counter's clock

    def add(self, images: int, began: float, found: float, ended: float) -> None:
        """Count a prediction.

        Args:
            images: the number of its images.
            began: when it began, on perf_counter's clock.
            found: when its version was there.
            ended: when its probabilities were there.
        """
        with self._lock:
            self.images += images
            self._answered += 1
            self._wait_seconds += found - began
            self._compute_seconds += ended - found
            self._ended = ended

    def add_conversion(self, input_seconds: float, output_seconds: float) -> None:
        """Add the time that a service took for the pixels of a prediction, and for its answer."""
        with self._lock:
            self._input_seconds += input_seconds
            self._output_seconds += output_seconds

    def add_failure(self, seconds: float) -> None:
        """Count a request for a prediction that is refused or fails."""
        with self._lock:
            self._failed += 1
            self._failed_seconds += seconds

    def read(self) -> PredictionTotals:
        """Return the totals at one moment."""
        with self._lock:
            return PredictionTotals(
                images=self.images,
                answered=self._answered,
                wait_seconds=self._wait_seconds,
                input_seconds=self._input_seconds,
                compute_seconds=self._compute_seconds,
                output_seconds=self._output_seconds,
                failed=self._failed,
                failed_seconds=self._failed_seconds,
                ended_at=time() - perf_counter() + self._ended if self._answered else None,
            )
