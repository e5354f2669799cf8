"""Tests of a database of an earlier commit, whose server was killed during a run.

Commit d40bbcd made `state.zip` and `answers.json`: a write of each kind, with a request_id named
after it, then a run during which the server was killed. The answers are those of that commit,
including the end of the run, and must be the same to the bit.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_client import AlreadyExists, Client, validation_images
from mnist37_client.local_server import LocalServer

STORED = Path(__file__).parents[1] / "unit" / "server" / "storage" / "from_d40bbcd"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Return a client of a server on the database."""
    with zipfile.ZipFile(STORED / "state.zip") as state:
        state.extractall(tmp_path)
    with (
        LocalServer("--device", "cpu", "--state", str(tmp_path)) as server,
        Client(server.address) as client,
    ):
        yield client


def test_a_server_continues_with_an_earlier_commits_database(client: Client) -> None:
    answers: dict[str, Any] = json.loads((STORED / "answers.json").read_text())
    images, labels = validation_images()
    model = client.get_model()
    assert (model.version, model.digest) == (
        answers["version when killed"],
        answers["digest when killed"],
    )

    step = client.step(request_id="step")
    assert [step.loss, step.version] == answers["step"]
    step = client.step(images[:7], labels[:7], learning_rate=0.5, request_id="batch")
    assert [step.loss, step.version] == answers["batch"]
    assert client.initialize(seed=7, std=0.5, request_id="initialize") == answers["initialize"]
    weights = np.linspace(-1, 1, 784)
    assert client.import_model(weights, 0.25, request_id="import") == answers["import"]
    assert client.restore(2, request_id="restore") == answers["restore"]
    settings: dict[str, Any] = {"batch_size": 1000, "learning_rate": 2.0, "seed": 9}
    last = client.train(3, **settings, request_id="train").wait()
    assert [*vars(last).values()][:6] == answers["train"]
    with pytest.raises(AlreadyExists):
        client.train(4, **settings, request_id="train").wait()
    assert client.get_model().version == model.version, "a repeated write was applied again"
    killed, finished = client.runs()
    assert (killed.state, finished.state) == ("interrupted", "finished")
    assert (finished.epochs, finished.learning_rate, finished.batch_size) == (3, 2.0, 1000)

    settings = {"batch_size": 6198, "learning_rate": 1.5, "seed": 3}
    ended = client.train(2000, **settings, request_id="killed").wait()
    assert [*vars(ended).values()][:6] == answers["ended"]
    assert client.get_model().digest == answers["digest"]
