"""Measures what the preparation of pictures costs in accuracy, condition by condition.

    PYTHONPATH=tests python tests/stress/pictures.py 1000

It prints a table; each row compares pictures with the raw images of the same digits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from mnist37_client import Client, InvalidInput, read_digit, validation_images
from mnist37_client.local_server import LocalServer
from numpy.typing import NDArray
from support.photos import CONDITIONS, cropped, no_stroke, two_digits
from support.varied_photos import VARIED

IMAGES, LABELS = validation_images()
SEED = 37
MADE = CONDITIONS | VARIED


class Row(NamedTuple):
    """A condition's accuracies, and the interval of their difference in points."""

    name: str
    raw: float
    prepared: float
    difference: float
    interval: float  # half of the 95 % interval
    refused: int
    allowed: float


def places_of(name: str, count: int) -> NDArray[np.int64]:
    random = np.random.default_rng([SEED, *name.encode()])
    chosen: NDArray[np.int64] = random.choice(len(IMAGES), count, replace=count > len(IMAGES))
    return chosen


def prepare(name: str, place: int) -> NDArray[np.uint8] | None:
    """Return a condition's picture of a digit as the model gets it; None if it is refused."""
    random = np.random.default_rng([SEED, int(place), *name.encode()])
    try:
        return read_digit(MADE[name][0](IMAGES[place], random))
    except InvalidInput:
        return None


def measure(client: Client, name: str, count: int, pool: ProcessPoolExecutor) -> Row:
    places = places_of(name, count)
    found = list(pool.map(prepare, [name] * count, places, chunksize=20))
    answered = np.array([image is not None for image in found])
    images = np.stack([np.zeros((28, 28), np.uint8) if one is None else one for one in found])
    digits = np.where(LABELS[places] == 1, 3, 7)
    prepared = (client.predict(images).digits == digits) & answered
    raw = client.predict(IMAGES[places]).digits == digits
    difference = prepared.astype(float) - raw
    return Row(
        name,
        100 * raw.mean(),
        100 * prepared.mean(),
        100 * difference.mean(),
        196 * difference.std() / count**0.5,
        int((~answered).sum()),
        MADE[name][1],
    )


def is_refused(kind: str, number: int) -> bool:
    """Return whether a picture that shows no one whole digit is refused."""
    random = np.random.default_rng([SEED, number, *kind.encode()])
    one, other = IMAGES[random.integers(0, len(IMAGES), 2)]
    made = {
        "two digits": lambda: two_digits(one, other, random),
        "cropped by the border": lambda: cropped(one, random),
        "no stroke": lambda: no_stroke(random),
    }[kind]()
    try:
        read_digit(made)
    except InvalidInput:
        return True
    return False


REFUSALS = {"two digits": 0.9, "no stroke": 0.98, "cropped by the border": 0.8}


def table(client: Client, count: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    yield "| condition | raw images | pictures | difference in points | refused | may lose |"
    yield "|---|---|---|---|---|---|"
    for name in MADE:
        row = measure(client, name, count, pool)
        yield (
            f"| {name} | {row.raw:.1f} % | {row.prepared:.1f} % | {row.difference:+.1f}"
            f" ± {row.interval:.1f} | {row.refused} of {count:,} | {row.allowed} |"
        )
    yield ""
    yield "| to be refused | refused | at least |"
    yield "|---|---|---|"
    for kind, least in REFUSALS.items():
        refused = sum(pool.map(is_refused, [kind] * count, range(count), chunksize=20))
        yield f"| {kind} | {refused} of {count:,} | {least:.0%} |"


def main() -> None:
    count = int(sys.argv[1])
    with LocalServer() as server, Client(server.address) as client, ProcessPoolExecutor(2) as pool:
        client.train(epochs=20).wait()
        for line in table(client, count, pool):
            print(line, flush=True)


if __name__ == "__main__":
    main()
