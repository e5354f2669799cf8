"""What the command line shows: a run under way, its curve, and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import plotext
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mnist37_client.results import Progress, Run

ROWS_MAX = 25  # of the table of a run
SHADES = " ░▒▓█"

HEADER = f"{'epoch':>9}  {'training loss':>13}  {'validation loss':>15}  {'accuracy':>8}"


def show_progress(run: Iterable[Progress], epochs: int, console: Console) -> list[Progress]:
    """Shows a run as it goes: a row every few epochs, and a bar; returns all its progress."""
    every = -(-epochs // ROWS_MAX)
    seen: list[Progress] = []
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=epochs)
        try:
            for progress in run:
                if not seen:
                    bar.console.print(HEADER)
                seen.append(progress)
                bar.update(task, completed=progress.epoch)
                if progress.epoch % every == 0 or progress.epoch in (1, epochs):
                    bar.console.print(format_row(progress), highlight=False)
        except KeyboardInterrupt:
            reached = seen[-1].epoch if seen else 0
            bar.console.print(f"stopped after epoch {reached}; the model keeps what it learnt")
            raise
    return seen


def format_row(progress: Progress) -> str:
    """An epoch as a row below HEADER."""
    return (
        f"{progress.epoch:>9}  {progress.train_loss:>13.4f}  {progress.valid_loss:>15.4f}"
        f"  {progress.valid_accuracy:>8.4f}"
    )


def show_run(said: Iterable[Run | Progress], follow: bool, console: Console) -> None:
    """What is said of a run: how it stands, its table, and the curve; as it comes, if followed."""
    seen: list[Progress] = []
    for thing in said:
        if not isinstance(thing, Progress):
            console.print(summarize_run(thing), highlight=False, markup=False, soft_wrap=True)
            continue
        if follow and not seen:
            console.print(HEADER)
        seen.append(thing)
        if follow:
            console.print(format_row(thing), highlight=False)
    if not follow and seen:
        console.print(HEADER)
        every = -(-len(seen) // ROWS_MAX)
        for progress in seen[every - 1 :: every]:
            console.print(format_row(progress), highlight=False)
    if len(seen) > 1:
        console.print()
        console.print(draw_loss_curve(seen, console.width), highlight=False, markup=False)


def draw_loss_curve(seen: Sequence[Progress], width: int) -> str:
    """The losses of a run, drawn in `width` columns of text."""
    epochs = [progress.epoch for progress in seen]
    curves = {
        "braille": [progress.train_loss for progress in seen],
        "hd": [progress.valid_loss for progress in seen],
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
    drawn: str = plotext.uncolorize(figure.build().string())
    return drawn.rstrip("\n")


def draw_image(image: NDArray[np.uint8]) -> list[str]:
    """An image (28, 28) as 14 lines of 28 characters; a character is two pixels high."""
    halved = image.reshape(14, 2, 28).mean(axis=1)
    shades = np.ceil(halved / 255 * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[shade] for shade in line) for line in shades]


def draw_gallery(images: NDArray[np.uint8], captions: Sequence[str], width: int) -> str:
    """Images above their captions, as many side by side as fit `width` columns of text."""
    blocks = [
        [*draw_image(image), caption.center(28), ""]
        for image, caption in zip(images, captions, strict=True)
    ]
    abreast = max(1, (width + 2) // 30)
    shelves = [blocks[start : start + abreast] for start in range(0, len(blocks), abreast)]
    return "\n".join(
        "  ".join(line).rstrip() for shelf in shelves for line in zip(*shelf, strict=True)
    )


def escape_unprintable(text: str) -> str:
    """What somebody else wrote, with escapes for what would forge lines or command a terminal."""
    return text if text.isprintable() else repr(text)


def format_time(time: datetime) -> str:
    """To the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def summarize_run(run: Run) -> str:
    """A run in a line."""
    epoch = run.last.epoch if run.last else 0
    accuracy = f", accuracy {run.last.valid_accuracy:.4f}" if run.last else ""
    name = f", id {escape_unprintable(run.request_id)}" if run.request_id else ""
    return (
        f"run {run.run}: {run.state}, epoch {epoch} of {run.epochs}{accuracy}, version"
        f" {run.version}, started {format_time(run.started_at)}, learning rate"
        f" {run.learning_rate:g}, batch size {run.batch_size}, seed {run.seed}{name}"
    )
