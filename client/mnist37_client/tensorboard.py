"""Event files of TensorBoard: the curves of training runs, their settings, and their weights.

    from mnist37_client.tensorboard import TensorBoardLog

    with TensorBoardLog("logs") as log:
        for progress in client.train(200):
            log.add(progress)

Then `tensorboard --logdir logs` shows the runs beside one another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist37_client.errors import InvalidInput, NotFound, Unavailable
from mnist37_client.results import Model, Progress, Run

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

FLUSH_SECONDS = 1.0  # between two syncs to disk
SCALE = 8  # pixels of the picture a weight, in each direction
# The page's colours, of weights that speak for a 3 and for a 7; a weight of 0 is white.
THREE, SEVEN = (179, 71, 0), (11, 92, 173)
# Of the weights, this share is within the colours' range; the few beyond it have its ends.
QUANTILE = 0.98

SETTINGS = (
    *("name", "epochs", "batch_size", "seed", "learning_rate", "schedule", "final_learning_rate"),
    *("warmup_epochs", "patience", "min_delta"),
)

Item = TypeVar("Item", Run, Progress, Run | Progress)


class TensorBoardLog:
    """Event files for runs: in a folder for each run, with a step for each epoch.

    They have the scalars loss/training, loss/validation and accuracy/validation. Not for use by
    several threads.

    Args:
        folder: of the folders run-1, run-2 ...; it is made if it is not there.

    Raises:
        InvalidInput: tensorboardX is not installed, or the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX  # noqa: F401 - what is missing is told before a run begins
        except ModuleNotFoundError:
            raise InvalidInput(
                "TensorBoard's files need tensorboardX: pip install 'mnist37[tensorboard]'"
            ) from None
        # Absolute: tensorboardX takes s3:// and the like for stores of others.
        self._folder = Path(folder).absolute()
        self._writer: EventsWriter | None = None
        self._run: int | None = None  # whose files are open
        self._began_at: float | None = None  # seconds since 1970
        self._next_flush = 0.0  # on time.monotonic's clock
        with self._refusing():
            self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, item: Run | Progress) -> None:
        """Write an epoch of a run, or the settings of a run whose epochs follow.

        Args:
            item: of `train`, or of `watch_run`.

        Raises:
            InvalidInput: the files cannot be written.
        """
        from tensorboardX import summary

        if isinstance(item, Run):
            if item.run is not None:
                self._open(item.run, item.started_at.timestamp() if item.started_at else None)
                self._write(0, 0.0, summary.text("settings", settings_table(item)))
            return
        self._open(item.run)
        scalars = {
            "loss/training": item.train_loss,
            "loss/validation": item.valid_loss,
            "accuracy/validation": item.valid_accuracy,
        }
        values = [summary.scalar(tag, value).value[0] for tag, value in scalars.items()]
        self._write(item.epoch, item.elapsed, summary.Summary(value=values))

    def add_weights(self, progress: Progress, model: Model) -> None:
        """Write a picture of the weights after an epoch.

        Args:
            progress: of the epoch.
            model: of the epoch's version.

        Raises:
            InvalidInput: the files cannot be written.
        """
        from tensorboardX import summary

        self._open(progress.run)
        picture = draw_weights(model.weights)
        image = summary.image("weights", picture, dataformats="HWC")
        self._write(progress.epoch, progress.elapsed, image)

    def record(self, items: Iterable[Item], get_model: Callable[[int], Model]) -> Iterator[Item]:
        """Yield the items of runs as they come, each written first; close the files at the end.

        The weights are written after the epochs 1, 2, 4, 8 ... and the last one of a run, as far as
        the server still has their versions.

        Args:
            items: of `train`, or of `watch_run`.
            get_model: returns the parameters of a version.

        Raises:
            InvalidInput: the files cannot be written.
        """
        with self:
            for item in items:
                self.add(item)
                if isinstance(item, Progress) and has_picture(item):
                    with suppress(NotFound, Unavailable):  # the curve is what counts
                        model = get_model(item.version)
                        self.add_weights(item, model)
                yield item

    def close(self) -> None:
        """Write what is left, and close the files; more can be added afterwards.

        Raises:
            InvalidInput: the files cannot be written.
        """
        writer, self._writer, self._run = self._writer, None, None
        if writer is not None:
            with self._refusing():
                writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, run: int, began_at: float | None = None) -> None:
        """Open the files of a run, unless they are open."""
        if began_at is not None:
            self._began_at = began_at
        if run == self._run:
            return
        self.close()
        self._began_at = began_at
        from tensorboardX.event_file_writer import EventsWriter

        folder = self._folder / f"run-{run}"
        with self._refusing():
            folder.mkdir(exist_ok=True)
            # Two processes may log one run in the same second: the suffix keeps their files apart.
            self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._run = run

    def _write(self, step: int, elapsed: float, summary: Any) -> None:  # noqa: ANN401 - untyped
        """Write an event, and flush the file once in a while."""
        from tensorboardX.proto.event_pb2 import Event

        assert self._writer is not None
        if self._began_at is None:
            self._began_at = time.time() - elapsed
        event = Event(wall_time=self._began_at + elapsed, step=step, summary=summary)
        with self._refusing():
            self._writer.write_event(event)
            if time.monotonic() >= self._next_flush:
                self._writer.flush()
                self._next_flush = time.monotonic() + FLUSH_SECONDS

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInput(
                f"{self._folder}: TensorBoard's files cannot be written: {error.strerror}"
            ) from None


def has_picture(progress: Progress) -> bool:
    """Return whether the weights are written after an epoch: a power of two, or the last one."""
    is_power = progress.epoch & (progress.epoch - 1) == 0
    return is_power or progress.best_epoch is not None


def draw_weights(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture of the weights, uint8 (224, 224, 3).

    Args:
        weights: float32 (784,).
    """
    values = np.kron(weights.reshape(28, 28), np.ones((SCALE, SCALE), np.float32))
    # 1e-9: all weights may be 0
    strength = np.clip(values / (np.quantile(np.abs(weights), QUANTILE) + 1e-9), -1, 1)[..., None]
    colour = np.where(strength > 0, THREE, SEVEN)
    picture: NDArray[np.uint8] = (255 - np.abs(strength) * (255 - colour)).astype(np.uint8)
    return picture


def settings_table(run: Run) -> str:
    """Return the settings of a run as a table in Markdown."""
    rows = (
        f"| {name} | {getattr(run, name)} |" for name in SETTINGS if getattr(run, name) is not None
    )
    return "\n".join(("| setting | value |", "|---|---|", *rows))
