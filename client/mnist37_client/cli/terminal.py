"""Output of the command line in a terminal: the progress of a run, its loss curve, and images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import numpy as np
import plotext
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mnist37_client.errors import Mnist37Error
from mnist37_client.results import Progress, Run
from mnist37_client.runs.training_run import TrainingRun

ROWS_MAX = 25  # of the table of a run, apart from the first epoch
WAIT_SECONDS = 1.0  # of silence, before a run is asked what it waits for
SHADES = " ░▒▓█"

HEADER = f"{'epoch':>9}  {'training loss':>13}  {'validation loss':>15}  {'accuracy':>8}"


def announce_waiting(run: TrainingRun, announce: Callable[[str], None]) -> Iterator[Progress]:
    """Yield a run's progress; until it begins, announce each run that it waits for."""
    has_begun = threading.Event()

    def watch() -> None:
        announced = None
        while not has_begun.wait(WAIT_SECONDS):
            with suppress(Mnist37Error):  # the run itself fails too, and says why
                ahead = run.waits_for()
                if ahead is not None and ahead.run != announced and not has_begun.is_set():
                    announce(f"waits for {ahead.position}")
                    announced = ahead.run

    threading.Thread(target=watch, daemon=True).start()
    try:
        for progress in run:
            has_begun.set()
            yield progress
    finally:
        has_begun.set()


def show_progress(run: Iterable[Progress], epochs: int, console: Console) -> list[Progress]:
    """Show a run while it goes on: a bar, and a table row every few epochs; return its progress."""
    row_interval = -(-epochs // ROWS_MAX)
    history: list[Progress] = []
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=epochs)
        try:
            for progress in run:
                if not history:
                    bar.console.print(HEADER)
                history.append(progress)
                bar.update(task, completed=progress.epoch)
                ends = progress.stopped_early or progress.epoch == epochs
                if progress.epoch % row_interval == 0 or progress.epoch == 1 or ends:
                    bar.console.print(format_row(progress), highlight=False)
        except KeyboardInterrupt:
            epoch = history[-1].epoch if history else 0
            bar.console.print(f"stopped after epoch {epoch}; the model keeps what it learnt")
            raise
    return history


def format_row(progress: Progress) -> str:
    """Return an epoch as a row of the table below HEADER."""
    return (
        f"{progress.epoch:>9}  {progress.train_loss:>13.4f}  {progress.valid_loss:>15.4f}"
        f"  {progress.valid_accuracy:>8.4f}"
    )


def show_run(items: Iterable[Run | Progress], follow: bool, console: Console) -> None:
    """Show the summary, the table and the loss curve of a run.

    Args:
        items: the results of `Client.watch_run`.
        follow: show every epoch when it arrives; False shows at most ROWS_MAX epochs at the end.
        console: the console to print to.
    """
    history: list[Progress] = []
    for item in items:
        if not isinstance(item, Progress):
            console.print(summarize_run(item), highlight=False, markup=False, soft_wrap=True)
            continue
        if follow and not history:
            console.print(HEADER)
        history.append(item)
        if follow:
            console.print(format_row(item), highlight=False)
    if not follow and history:
        console.print(HEADER)
        row_interval = -(-len(history) // ROWS_MAX)
        for progress in history[::-row_interval][::-1]:  # the last epoch is always among them
            console.print(format_row(progress), highlight=False)
    if len(history) > 1:
        console.print()
        console.print(draw_loss_curve(history, console.width), highlight=False, markup=False)


def draw_loss_curve(history: Sequence[Progress], width: int) -> str:
    """Return a drawing of a run's losses, at most `width` and at most 80 columns wide."""
    epochs = [progress.epoch for progress in history]
    curves = {
        "braille": [progress.train_loss for progress in history],
        "hd": [progress.valid_loss for progress in history],
    }
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(width, 80), 14)
    for marker, losses in curves.items():
        signal = figure.signal(epochs, losses, marker=marker)
        signal.lines()
        figure.draw(signal)
    figure.title("loss by epoch: training (thin) and validation (thick)")
    drawing: str = plotext.uncolorize(figure.build().string())
    return drawing.rstrip("\n")


def draw_image(image: NDArray[np.uint8]) -> list[str]:
    """Return an image (28, 28) as 14 lines of 28 characters; a character is two pixels high."""
    brightness = image.reshape(14, 2, 28).mean(axis=1)
    shades = np.ceil(brightness / 255 * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[shade] for shade in line) for line in shades]


def draw_gallery(images: NDArray[np.uint8], captions: Sequence[str], width: int) -> str:
    """Return images above their captions, as many side by side as fit `width` columns of text."""
    blocks = [
        [*draw_image(image), caption.center(28), ""]
        for image, caption in zip(images, captions, strict=True)
    ]
    columns = max(1, (width + 2) // 30)
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    return "\n".join("  ".join(line).rstrip() for row in rows for line in zip(*row, strict=True))


def escape_unprintable(text: str) -> str:
    """Return a caller's text, with escapes if it could forge lines or control a terminal."""
    return text if text.isprintable() else repr(text)


def format_time(time: datetime) -> str:
    """Return a local time to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def summarize_end(last: Progress) -> Iterator[str]:
    """Yield the lines that tell how a run ended, from its last epoch."""
    yield f"validation accuracy {last.valid_accuracy:.4f}, version {last.version}"
    if last.best_epoch not in (None, last.epoch):
        yield f"the validation loss was lowest after epoch {last.best_epoch}: best@{last.run}"
    if last.stopped_early:
        yield f"stopped early, after epoch {last.epoch} of {last.epochs}"


def summarize_run(run: Run) -> str:
    """Return a run as one line of text."""
    parts = [f"run {run.run}: {run.state}" if run.run else f"{run.state}"]
    if run.name is not None:
        parts.append(f"name {escape_unprintable(run.name)}")
    if run.queue_position is not None:
        parts.append(f"{run.queue_position} writes before it")
    parts.append(f"epoch {run.last.epoch if run.last else 0} of {run.epochs}")
    if run.last is not None:
        parts.append(f"accuracy {run.last.valid_accuracy:.4f}")
        if run.last.stopped_early:
            parts.append("stopped early")
    if run.version is not None and run.started_at is not None:
        parts += [f"version {run.version}", f"started {format_time(run.started_at)}"]
    if run.best_epoch is not None:
        parts.append(f"best epoch {run.best_epoch} (version {run.best_version})")
    parts.append(f"learning rate {run.learning_rate:g}{summarize_schedule(run)}")
    parts += [f"batch size {run.batch_size}", f"seed {run.seed}"]
    if run.patience is not None:
        parts.append(f"patience {run.patience} (min delta {run.min_delta or 0:g})")
    if run.request_id:
        parts.append(f"id {escape_unprintable(run.request_id)}")
    return ", ".join(parts)


def summarize_schedule(run: Run) -> str:
    """Return how a run's learning rate changes, to follow the rate; "" if it does not."""
    warmup = f" after {run.warmup_epochs} epochs of warm-up" if run.warmup_epochs else ""
    if run.final_learning_rate is None:
        return warmup
    return f"{warmup}, {run.schedule} to {run.final_learning_rate:g}"
