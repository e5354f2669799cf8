"""The validation images: examples for the pad, and the errors that the model makes on them."""

from __future__ import annotations

import asyncio
import base64
import secrets
from functools import cached_property

import numpy as np
from mnist37_client import AsyncClient, validation_images
from mnist37_client.images import PIXELS
from numpy.typing import NDArray

WORST = 24  # errors that the page shows


class Validation:
    """The model's answers on the validation images, for all browsers once a version.

    Args:
        client: with web's own token.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._lock = asyncio.Lock()  # guards _errors
        self._errors: dict[str, object] | None = None

    @cached_property
    def _images(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images, labels = validation_images()
        return images.reshape(-1, PIXELS), labels

    def example(self, digit: int) -> dict[str, object]:
        """Return an image of a digit, 3 or 7, picked at random."""
        _, labels = self._images
        return self._view(secrets.choice(np.flatnonzero(labels == (digit == 3)).tolist()))

    async def errors(self, newest: int | None) -> dict[str, object]:
        """Return the images about which the model is surest and wrong, the surest first.

        Args:
            newest: the newest version, if web knows it: its answers are not asked for twice.

        Raises:
            Mnist37Error: the server does not answer.
        """
        async with self._lock:
            if self._errors is None or newest is None or self._errors["version"] != newest:
                self._errors = await self._ask()
            return self._errors

    async def _ask(self) -> dict[str, object]:
        images, labels = self._images
        prediction = await self._client.predict(images)
        is_wrong = prediction.digits != np.where(labels == 1, 3, 7)
        confidence = np.abs(prediction.probabilities - 0.5)
        wrong = np.flatnonzero(is_wrong)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
        return {
            "version": prediction.version,
            "count": len(labels),
            "wrong": len(wrong),
            "images": [
                {**self._view(int(index)), "probability": float(prediction.probabilities[index])}
                for index in worst
            ],
        }

    def _view(self, index: int) -> dict[str, object]:
        images, labels = self._images
        return {
            "index": index,
            "digit": 3 if labels[index] else 7,
            "pixels": base64.b64encode(images[index].tobytes()).decode(),
        }
