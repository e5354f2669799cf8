"""Tests of the command line's drawings and tables, character by character."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from mnist37_client import Progress, Run
from mnist37_client.cli.terminal import (
    HEADER,
    draw_gallery,
    draw_image,
    draw_loss_curve,
    format_row,
    show_progress,
    show_run,
    summarize_end,
    summarize_run,
)
from rich.console import Console

FINISHED = Run(
    run=7,
    state="finished",
    request_id=None,
    epochs=9,
    learning_rate=1.0,
    batch_size=256,
    seed=42,
    started_at=datetime(2026, 1, 2, 3, 4, 5).astimezone(),
    version=49,
    last=None,
    name=None,
    schedule="constant",
    final_learning_rate=None,
    warmup_epochs=0,
    patience=None,
    min_delta=None,
    best_epoch=None,
    best_version=None,
    queue_position=None,
)
BLANK = np.zeros((28, 28), np.uint8)
INK = np.full((28, 28), 255, np.uint8)


def run_of(epochs: int) -> list[Progress]:
    """Return the progress of a run whose losses fall."""
    return [
        Progress(
            epoch=epoch,
            epochs=epochs,
            train_loss=0.25 / epoch + 0.02,
            valid_loss=0.12 / epoch + 0.03,
            valid_accuracy=0.97 - 0.1 / epoch,
            version=49 * epoch,
            run=1,
            best_epoch=None,
            stopped_early=False,
            elapsed=0.02 * epoch,
        )
        for epoch in range(1, epochs + 1)
    ]


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=80, force_terminal=terminal), written


def epochs_of_rows(written: str) -> list[int]:
    """Return the epochs that have a row in the table, in order."""
    lines = [line.split() for line in written.splitlines()]
    return [int(words[0]) for words in lines if len(words) == 4 and words[0].isdigit()]


def test_an_image_is_14_lines_of_28_characters() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    for image in (BLANK, INK, noise):
        drawn = draw_image(image)
        assert len(drawn) == 14
        assert {len(line) for line in drawn} == {28}


def test_an_empty_image_is_blank() -> None:
    assert draw_image(BLANK) == [" " * 28] * 14


def test_full_ink_is_full_blocks() -> None:
    assert draw_image(INK) == ["█" * 28] * 14


def test_the_faintest_ink_is_not_blank() -> None:
    image = BLANK.copy()
    image[10, 20] = 1
    drawn = draw_image(image)
    assert drawn[5] == " " * 20 + "░" + " " * 7


@pytest.mark.parametrize(("width", "abreast"), [(20, 1), (28, 1), (57, 1), (58, 2), (80, 2)])
def test_a_gallery_wraps_to_the_width(width: int, abreast: int) -> None:
    captions = ["first", "second", "third", "fourth"]
    drawn = draw_gallery(np.stack([INK] * 4), captions, width).splitlines()
    assert max(map(len, drawn)) == 30 * abreast - 2
    named = [line.split() for line in drawn if "█" not in line and line]
    assert named == [captions[start : start + abreast] for start in range(0, 4, abreast)]


def test_a_caption_is_below_the_middle_of_its_image() -> None:
    drawn = draw_gallery(np.stack([INK, INK]), ["one", "other"], 80).splitlines()
    assert drawn[0] == "█" * 28 + "  " + "█" * 28
    assert drawn[14] == ("one".center(28) + "  " + "other".center(28)).rstrip()


def test_a_gallery_shows_an_odd_number_of_images_too() -> None:
    drawn = draw_gallery(np.stack([INK] * 3), ["a", "b", "c"], 80)
    assert drawn.split("\n").count("█" * 28) == 14
    assert [word for word in drawn.split() if "█" not in word] == ["a", "b", "c"]


@pytest.mark.parametrize("epoch", [0, 19, 999_999])
def test_rows_line_up_with_the_header(epoch: int) -> None:
    progress = run_of(epoch + 1)[-1] if epoch < 100 else run_of(1)[0]
    line = format_row(progress)
    assert len(line) == len(HEADER)
    ends = [
        HEADER.index(name) + len(name) for name in ("epoch", "training loss", "validation loss")
    ]
    values = line.split()
    assert len(values) == 4
    for end, value in zip([*ends, len(HEADER)], values, strict=True):
        assert line[:end].endswith(value)
        assert line[end : end + 2].strip() == ""


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("epochs", [2, 20, 1000])
def test_the_curve_fits_the_width_and_has_no_escape_codes(width: int, epochs: int) -> None:
    drawn = draw_loss_curve(run_of(epochs), width)
    assert "\x1b" not in drawn
    assert max(map(len, drawn.splitlines())) <= width
    assert len(drawn.splitlines()) == 14


def test_a_curve_has_nothing_of_the_previous_one() -> None:
    first = draw_loss_curve(run_of(20), 80)
    draw_loss_curve(run_of(7), 60)
    assert draw_loss_curve(run_of(20), 80) == first


def test_the_curve_of_a_loss_that_stays_the_same_is_drawn() -> None:
    same = [Progress(epoch, 3, 0.5, 0.5, 0.5, epoch, 0.1, 1, None, False) for epoch in (1, 2, 3)]
    assert len(draw_loss_curve(same, 80).splitlines()) == 14


@pytest.mark.parametrize("epochs", [1, 2, 25, 26, 49, 1000, 1001])
def test_a_run_has_at_most_26_rows_its_first_and_last_epoch_among_them(epochs: int) -> None:
    run = run_of(epochs)
    to, written = console()
    assert show_progress(iter(run), epochs, to) == run
    assert written.getvalue().startswith(HEADER)
    shown = epochs_of_rows(written.getvalue())
    assert len(shown) <= 26
    assert shown[0] == 1
    assert shown[-1] == epochs
    assert shown == sorted(set(shown))


def test_a_run_that_stops_early_has_a_row_for_its_last_epoch() -> None:
    *run, last = run_of(100)[:49]
    to, written = console()
    show_progress([*run, replace(last, stopped_early=True)], 100, to)
    assert epochs_of_rows(written.getvalue())[-1] == 49


@pytest.mark.parametrize("epochs", [1, 2, 25, 26, 49, 1001])
def test_an_ended_run_is_shown_with_its_last_epoch(epochs: int) -> None:
    to, written = console()
    show_run([FINISHED, *run_of(epochs)], follow=False, console=to)
    shown = epochs_of_rows(written.getvalue())
    assert len(shown) <= 25
    assert shown[-1] == epochs
    assert shown == sorted(set(shown))


def test_a_short_run_has_a_row_for_every_epoch() -> None:
    to, written = console()
    show_progress(run_of(20), 20, to)
    assert epochs_of_rows(written.getvalue()) == list(range(1, 21))


@pytest.mark.parametrize("best_epoch", [4, 9])  # with a min_delta, the last one may be the best
def test_a_run_that_stops_early_says_where(best_epoch: int) -> None:
    last = replace(run_of(20)[8], best_epoch=best_epoch, stopped_early=True)
    lines = list(summarize_end(last))
    assert lines[-1] == "stopped early, after epoch 9 of 20"
    assert any("lowest after epoch 4: best@1" in line for line in lines) == (best_epoch == 4)


def test_an_interrupted_run_says_how_far_it_came() -> None:
    def interrupted() -> Iterator[Progress]:
        yield from run_of(10)[:4]
        raise KeyboardInterrupt

    to, written = console()
    with pytest.raises(KeyboardInterrupt):
        show_progress(interrupted(), 10, to)
    assert written.getvalue().rstrip().splitlines()[-1].startswith("stopped after epoch 4")


def test_a_runs_id_cannot_send_escape_codes_to_the_terminal() -> None:
    run = replace(FINISHED, request_id="a\nrun 8: \x1b[31m", name="b\x1b[2J")
    assert summarize_run(run).isprintable()
    assert r"id 'a\nrun 8: \x1b[31m'" in summarize_run(run)
    assert r"name 'b\x1b[2J'" in summarize_run(run)


def test_a_run_is_summarized_with_what_was_set() -> None:
    assert summarize_run(FINISHED) == (
        "run 7: finished, epoch 0 of 9, version 49, started 2026-01-02 03:04:05, learning rate 1,"
        " batch size 256, seed 42"
    )
    set_up = replace(
        FINISHED,
        name="monday",
        last=replace(run_of(9)[-1], stopped_early=True),
        schedule="cosine",
        final_learning_rate=0.01,
        warmup_epochs=2,
        patience=3,
        min_delta=0.0,
        best_epoch=4,
        best_version=44,
    )
    assert summarize_run(set_up) == (
        "run 7: finished, name monday, epoch 9 of 9, accuracy 0.9589, stopped early, version 49,"
        " started 2026-01-02 03:04:05, best epoch 4 (version 44), learning rate 1 after 2 epochs"
        " of warm-up, cosine to 0.01, batch size 256, seed 42, patience 3 (min delta 0)"
    )
    waiting = replace(FINISHED, run=None, state="queued", started_at=None, version=None)
    assert summarize_run(replace(waiting, queue_position=3)) == (
        "queued, 3 writes before it, epoch 0 of 9, learning rate 1, batch size 256, seed 42"
    )


def test_output_that_is_not_a_terminal_gets_no_escape_codes() -> None:
    plain, written = console()
    show_progress(run_of(5), 5, plain)
    assert "\x1b" not in written.getvalue()
    coloured, written = console(terminal=True)
    show_progress(run_of(5), 5, coloured)
    assert "\x1b" in written.getvalue()  # the progress bar: shows that the check above can fail
