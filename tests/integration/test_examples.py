"""Tests of the examples: they work, and each has fewer than 40 lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mnist37_client import Client, validation_images
from support.following import Server

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, *addresses: str, stdin: str = "") -> list[str]:
    command = [sys.executable, str(EXAMPLES / example), *addresses]
    process = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short(example: str) -> None:
    assert len((EXAMPLES / example).read_text().splitlines()) < 40


def test_the_training_script(client: Client) -> None:
    *progress, last = run("train.py", client.address)
    assert len(progress) >= 10
    assert float(progress[-1].split()[-1]) > 0.97
    assert last.endswith(client.get_model().digest)


def test_the_service_that_predicts(client: Client) -> None:
    version = client.train(epochs=20).wait().version
    images, labels = validation_images()
    chosen = range(0, 2038, 50)
    lines = [images[index].tobytes().hex() for index in chosen]
    lines[3] = "00" * 783
    lines[4] = "no image"
    with Server("--follow", client.address, "--metrics-address", "127.0.0.1:0") as follower:
        follower.wait_until_serving().wait_for(version)
        servers = client.address, follower.address
        answers = run("predict_service.py", *servers, stdin="\n".join(lines) + "\n")
        predicted = follower.metric("mnist37_images_predicted_total")
    assert predicted, "the follower answers"
    assert answers[3].startswith("error: images: got shape (783,)")
    assert answers[4].startswith("error: ")
    right = 0
    for index, answer in zip(chosen, answers, strict=True):
        right += answer.startswith("3 " if labels[index] else "7 ")
    assert right >= 37, "of 39 images"
