"""The comparison of two notebooks, cell by cell and output by output."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from nbformat import NotebookNode
from PIL import Image

# Two machines draw the same numbers only nearly alike. A curve that is elsewhere by a pixel is more
# than this, and so is one square of a picture of weights in another colour.
SHADES_MAX = 32  # of 255, by which a pixel may differ
PIXELS_SHARE_MAX = 1 / 4000  # of a picture's pixels, which may differ by more


def differences(expected: NotebookNode, found: NotebookNode) -> Iterator[str]:
    """Yield what differs in the second notebook, each with the number of the cell."""
    for number, (left, right) in enumerate(zip_longest(expected.cells, found.cells)):
        if left is None or right is None:
            yield f"cell {number}: one notebook has it alone"
            continue
        for field in ("id", "cell_type", "source", "metadata", "execution_count"):
            if left.get(field) != right.get(field):
                yield f"cell {number}: {field} {left.get(field)!r} is {right.get(field)!r}"
        outputs = zip_longest(left.get("outputs", []), right.get("outputs", []))
        for place, (output, other) in enumerate(outputs):
            if output is None or other is None:
                yield f"cell {number}: one notebook alone has output {place}: {output or other}"
            else:
                for difference in output_differences(output, other):
                    yield f"cell {number}, output {place}: {difference}"
    if expected.metadata != found.metadata:
        yield f"metadata {expected.metadata} is {found.metadata}"


def output_differences(expected: NotebookNode, found: NotebookNode) -> Iterator[str]:
    """Yield what differs in an output: texts to the letter, pictures beyond the tolerance."""
    pictures = [output.get("data", {}).get("image/png") for output in (expected, found)]
    if all(pictures):
        yield from picture_differences(*pictures)
        expected, found = without_picture(expected), without_picture(found)
    if expected != found:
        yield f"{expected} is {found}"


def without_picture(output: NotebookNode) -> NotebookNode:
    """Return an output with the rest of its data."""
    rest = {kind: value for kind, value in output["data"].items() if kind != "image/png"}
    return NotebookNode({**output, "data": NotebookNode(rest)})


def picture_differences(expected: str, found: str) -> Iterator[str]:
    """Yield in what two pictures, PNG in base64, differ beyond the tolerance."""
    left, right = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), np.int16)
        for picture in (expected, found)
    )
    if left.shape != right.shape:
        yield f"a picture of {left.shape} is one of {right.shape}"
        return
    share = (np.abs(left - right).max(axis=2) > SHADES_MAX).mean()
    if share > PIXELS_SHARE_MAX:
        yield f"{share:.2%} of a picture's pixels are others"
