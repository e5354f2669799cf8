"""Tests on a CUDA device: its results equal the CPU's within float32, and its own to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mnist37_client import Client, Exhausted, Model, Prediction, Unavailable, validation_images
from mnist37_client.local_server import LocalServer
from numpy.typing import NDArray
from support.twin import Twin, data

from mnist37 import kernels
from mnist37.host import HostExamples
from mnist37.losses import Evaluation
from mnist37.training import evaluate

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICE = "cuda"
LONG = 900  # epochs; all their versions are retained


@pytest.fixture
def client() -> Iterator[Client]:
    """Return a client of a new server, at version 0."""
    with LocalServer("--device", DEVICE) as server, Client(server.address) as client:
        yield client


def train_on_new_server() -> tuple[Model, float]:
    """Train three epochs and a step on a new server; return the model and the epochs' loss."""
    with LocalServer("--device", DEVICE) as server, Client(server.address) as client:
        assert client.get_model().digest == Twin().digest, "not drawn on the CPU"
        loss = client.train(epochs=3).wait().valid_loss
        client.step()
        return client.get_model(), loss


def parameters(model: Model) -> NDArray[np.float32]:
    return np.append(model.weights, model.bias).astype(np.float32)


def host_probabilities(model: Model, images: kernels.Pixels) -> NDArray[np.float32]:
    """Return the probabilities (N,) that a server on the CPU predicts with a model's parameters."""
    probabilities = np.empty(len(images), np.float32)
    kernels.predict(images.reshape(-1, 784), parameters(model), probabilities)
    return probabilities


def host_evaluation(model: Model, examples: HostExamples) -> Evaluation:
    return evaluate(parameters(model), examples)


def test_the_device_gives_the_cpus_results_and_its_own_to_the_bit() -> None:
    model, loss = train_on_new_server()
    other_model, other_loss = train_on_new_server()
    assert model.device == "cuda:0"
    assert (model.digest, loss) == (other_model.digest, other_loss)
    twin = Twin()
    twin.train(3)
    twin.step()
    np.testing.assert_allclose(model.weights, twin.parameters[:-1].numpy(), atol=1e-4)


def test_losses_are_the_cpus_within_float32(client: Client) -> None:
    # The losses of a run's epochs, and GetLoss on the resident images and on a caller's images.
    with LocalServer("--device", "cpu") as server, Client(server.address) as cpu_client:
        expected = [epoch.train_loss for epoch in cpu_client.train(3)]
    found = [epoch.train_loss for epoch in client.train(3)]
    assert found == pytest.approx(expected, rel=1e-4)
    model = client.get_model()
    splits = {"train": data().train, "valid": data().valid}
    for split, images in splits.items():
        by_host = host_evaluation(model, HostExamples(images.pixels, images.labels))
        for loss in (
            client.get_loss("train" if split == "train" else "valid"),
            client.get_loss(images=images.pixels, labels=images.labels),
        ):
            assert loss.count == by_host.count
            assert loss.loss == pytest.approx(by_host.loss, abs=1e-6)
            assert loss.accuracy == pytest.approx(by_host.accuracy, abs=1 / by_host.count)


@pytest.mark.parametrize("batch_size", [256, 1000])
def test_a_run_that_was_killed_ends_on_the_same_bits(
    client: Client, tmp_path: Path, batch_size: int
) -> None:
    # Its losses must be those of a run that was never killed, too.
    whole = client.train(LONG, batch_size=batch_size).wait()
    options = ("--device", DEVICE, "--state", str(tmp_path))
    for reached in (5, 50):
        with LocalServer(*options) as server, Client(server.address, retry_for=0) as cut:
            run = cut.train(LONG, batch_size=batch_size, request_id="run")
            while next(run).epoch < reached:
                pass
            server.kill()
    with LocalServer(*options) as server, Client(server.address) as last:
        ended = last.train(LONG, batch_size=batch_size, request_id="run").wait()
        assert last.get_model().digest == client.get_model().digest
    for name in ("epoch", "train_loss", "valid_loss", "valid_accuracy", "version"):
        assert getattr(ended, name) == getattr(whole, name)


def test_while_it_trains_predictions_are_the_hosts_and_losses_of_one_version(
    client: Client,
) -> None:
    images, _ = validation_images()
    predictions: list[Prediction] = []
    losses = []
    for _ in client.train(LONG):
        predictions.append(client.predict(images))
        losses.append(client.get_loss("valid"))
    assert len({prediction.version for prediction in predictions}) > 1
    for prediction in predictions[:: len(predictions) // 20]:
        model = client.get_model(version=prediction.version)
        assert np.array_equal(prediction.probabilities, host_probabilities(model, images))
    for loss in losses[:: len(losses) // 20]:
        assert loss == client.get_loss("valid", version=loss.version)


@contextmanager
def full_device() -> Iterator[None]:
    """Allocate the device's free memory, except about 32 MB, and free it at the end."""
    tensors, size_bytes = [], 2**30
    while size_bytes >= 2**25:
        try:
            tensors.append(torch.empty(size_bytes, dtype=torch.uint8, device=DEVICE))
        except torch.OutOfMemoryError:
            size_bytes //= 2
    yield
    tensors.clear()
    torch.cuda.empty_cache()


def test_a_full_device_refuses_large_batches_and_loses_nothing(client: Client) -> None:
    images = np.zeros((80_000, 784), np.uint8)  # 63 MB
    labels = np.zeros(80_000, np.uint8)
    client.train(2).wait()
    before = client.get_model()
    with full_device():
        for ask in (
            lambda: client.step(images, labels),
            lambda: client.get_loss(images=images, labels=labels),
        ):
            with pytest.raises(Exhausted, match="has no room for 80,000 images") as refused:
                ask()
            assert refused.value.reason == "DEVICE_OUT_OF_MEMORY"
        after = client.get_model()
        assert (after.version, after.digest) == (before.version, before.digest)
        assert client.predict(images[:5]).version == before.version
        assert client.step().version == before.version + 1, "a small write must succeed"
        with pytest.raises(Unavailable, match="--device: cuda:0 has no room in its memory"):
            LocalServer("--device", DEVICE)
    assert client.step(images, labels).version == before.version + 2
