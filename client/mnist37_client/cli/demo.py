"""The service in a minute: a fresh server, a run of 20 epochs, and what it recognises then."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mnist37_client.cli.terminal import draw_gallery, draw_loss_curve, show_progress
from mnist37_client.client import Client
from mnist37_client.images import validation_images
from mnist37_client.local_server import LocalServer
from mnist37_client.results import Prediction

EPOCHS = 20


def run(console: Console) -> None:
    """Ends with the accuracy on the validation images, as the service predicts them."""
    console.print("starting a server, its model in memory ...")
    with LocalServer() as server, Client(server.address) as client:
        model = client.get_model()
        before = client.get_loss("valid")
        console.print(f"it listens on {server.address}, its model is on {model.device}")
        console.print(
            f"untrained, it is right about {before.accuracy:.1%} of the {before.count:,} images"
            " that it will be tested on; it trains on others:\n"
        )
        seen = show_progress(client.train(epochs=EPOCHS), EPOCHS, console)
        console.print()
        console.print(draw_loss_curve(seen, console.width), highlight=False, markup=False)
        images, labels = validation_images()
        prediction = client.predict(images)
        digits = np.where(labels == 1, 3, 7)
        right = prediction.digits == digits
        console.print(f"\nwhat version {prediction.version} says of images that it never saw:\n")
        shown = choose_examples(prediction, right)
        captions = [format_caption(prediction, index, int(digits[index])) for index in shown]
        drawn = draw_gallery(images[shown], captions, console.width)
        console.print(drawn, highlight=False, markup=False)
        console.print(f"it is right about {right.sum():,} of {len(right):,}")
        digest = client.get_model(version=prediction.version).digest
        console.print(f"digest {digest}", highlight=False, soft_wrap=True)
    console.print(f"validation accuracy {right.mean():.4f}")


def choose_examples(prediction: Prediction, right: NDArray[np.bool_]) -> list[int]:
    """Four images worth a look: the surest 3 and 7, a close call, and the worst mistake."""
    probabilities = prediction.probabilities
    sureness = np.abs(probabilities - 0.5)
    surest_three = int(np.argmax(np.where(right, probabilities, 0)))
    surest_seven = int(np.argmin(np.where(right, probabilities, 1)))
    close_call = int(np.argmin(sureness))
    worst = int(np.argmax(np.where(right, 0, sureness)))
    return [surest_three, surest_seven, close_call, worst]


def format_caption(prediction: Prediction, index: int, digit: int) -> str:
    """What the model said of an image, and what it is."""
    probability = float(prediction.probabilities[index])
    said = int(prediction.digits[index])
    sure = probability if said == 3 else 1 - probability
    return f"says {said} ({sure:.1%})" + ("" if said == digit else f", but is {digit}")
