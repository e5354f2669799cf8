"""The demonstrations: a new server, a run and its predictions; or a new server and its page."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mnist37_client.cli.terminal import draw_gallery, draw_loss_curve, show_progress
from mnist37_client.client import Client
from mnist37_client.errors import Unavailable
from mnist37_client.images import validation_images
from mnist37_client.local_server import LocalServer
from mnist37_client.processes.local_process import LocalProcess
from mnist37_client.processes.local_web import LocalWeb
from mnist37_client.results import Prediction

EPOCHS = 20
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class DemoServer(LocalServer):
    """The server of a demonstration, which a demonstration that is killed does not leave behind."""

    ends_with_thread = True


class DemoWeb(LocalWeb):
    """The page of a demonstration, which ends with it too."""

    ends_with_thread = True


def run(console: Console) -> None:
    """Run the demonstration; its last line is the accuracy on the validation images."""
    console.print("starting a server, its model in memory ...")
    with DemoServer() as server, Client(server.address) as client:
        stop_by_signals(server)
        model = client.get_model()
        initial = client.get_loss("valid")
        console.print(f"it listens on {server.address}, its model is on {model.device}")
        console.print(
            f"untrained, it is right about {initial.accuracy:.1%} of the {initial.count:,} images"
            " that it will be tested on; it trains on others:\n"
        )
        history = show_progress(client.train(epochs=EPOCHS), EPOCHS, console)
        console.print()
        console.print(draw_loss_curve(history, console.width), highlight=False, markup=False)
        images, labels = validation_images()
        prediction = client.predict(images)
        digits = np.where(labels == 1, 3, 7)
        is_correct = prediction.digits == digits
        console.print(f"\nwhat version {prediction.version} says of images that it never saw:\n")
        indexes = choose_examples(prediction, is_correct)
        captions = [format_caption(prediction, index, int(digits[index])) for index in indexes]
        gallery = draw_gallery(images[indexes], captions, console.width)
        console.print(gallery, highlight=False, markup=False)
        console.print(f"it is right about {is_correct.sum():,} of {len(is_correct):,}")
        digest = client.get_model(version=prediction.version).digest
        console.print(f"digest {digest}", highlight=False, soft_wrap=True)
    console.print(f"validation accuracy {is_correct.mean():.4f}")


def run_page(console: Console) -> None:
    """Start a server and its page, and keep both until Ctrl-C."""
    console.print("starting a server, its model in memory, and its page ...")
    with DemoServer() as server:
        stop_by_signals(server)
        with DemoWeb(server.address) as page:
            stop_by_signals(page, server)
            console.print(f"open {page.address} in a browser", highlight=False, soft_wrap=True)
            console.print("Ctrl-C ends it, and the model with it")
            with suppress(KeyboardInterrupt):
                page.process.wait()
    status, log = page.stop()
    if status > 0:
        raise Unavailable(f"the page has ended: {log.strip()}")


def stop_by_signals(*processes: LocalProcess) -> None:
    """Have the signals whose default would leave processes behind end them with this one."""

    def end(number: int, _: object) -> None:
        for local in processes:
            local.process.terminate()
        # An exception in the midst of a call could leave a lock of gRPC's channel taken.
        os._exit(128 + number)

    for number in END_SIGNALS:
        signal.signal(number, end)


def choose_examples(prediction: Prediction, is_correct: NDArray[np.bool_]) -> list[int]:
    """Return the indexes of the surest 3 and 7, the least sure image and the worst error."""
    probabilities = prediction.probabilities
    confidence = np.abs(probabilities - 0.5)
    surest_three = int(np.argmax(np.where(is_correct, probabilities, 0)))
    surest_seven = int(np.argmin(np.where(is_correct, probabilities, 1)))
    least_sure = int(np.argmin(confidence))
    worst_error = int(np.argmax(np.where(is_correct, 0, confidence)))
    return [surest_three, surest_seven, least_sure, worst_error]


def format_caption(prediction: Prediction, index: int, digit: int) -> str:
    """Return a caption with the digit that the model predicts, and the true one if it differs."""
    probability = float(prediction.probabilities[index])
    model_digit = int(prediction.digits[index])
    confidence = probability if model_digit == 3 else 1 - probability
    error = "" if model_digit == digit else f", but is {digit}"
    return f"says {model_digit} ({confidence:.1%}){error}"
