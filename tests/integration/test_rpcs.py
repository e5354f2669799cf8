"""Tests of each RPC on a real server, compared with the core's results without a server."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import numpy as np
import pytest
import torch
from mnist37_client import Client, Progress, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.twin import Twin, data, datasets

from mnist37.training import evaluate

# A server at MNIST37_ADDRESS may use another kind of device, whose results differ in the last bits.
own_server = pytest.mark.skipif(
    "MNIST37_ADDRESS" in os.environ, reason="compares bits, which differ between kinds of devices"
)


def test_a_new_server_is_at_version_0_with_the_notes_parameters(server: LocalServer) -> None:
    with Client(server.address) as client:
        model = client.get_model()
    assert (model.version, model.device, model.digest) == (0, "cpu", Twin().digest)
    generator = torch.Generator().manual_seed(42)
    assert model.weights.tolist() == torch.randn((784, 1), generator=generator).flatten().tolist()
    assert model.bias == torch.randn(1, generator=generator).item()


@pytest.mark.parametrize(("seed", "std"), [(0, 1.0), (2**64 - 1, 0.1), (7, 0.0), (7, 100.0)])
def test_initialize_draws_what_torch_draws(client: Client, seed: int, std: float) -> None:
    before = client.get_model().version
    assert client.initialize(seed=seed, std=std) == before + 1
    assert client.get_model().digest == Twin(seed, std).digest


@own_server
def test_train_is_the_cores_run_to_the_bit(client: Client) -> None:
    start = client.get_model().version
    seen = list(client.train(epochs=3, learning_rate=0.5, batch_size=100, seed=9))
    twin = Twin()
    twin.train(3, 0.5, 100, 9)
    assert client.get_model().digest == twin.digest
    assert [progress.epoch for progress in seen] == [1, 2, 3]
    assert {progress.epochs for progress in seen} == {3}
    assert [progress.version for progress in seen] == [start + 124 * epoch for epoch in (1, 2, 3)]
    assert seen[0].elapsed < seen[1].elapsed < seen[2].elapsed
    valid = evaluate(twin.parameters.numpy(), datasets().valid)
    assert (seen[-1].valid_loss, seen[-1].valid_accuracy) == (valid.loss, valid.accuracy)


@pytest.mark.parametrize("coalesce", [None, False, True])
def test_each_epoch_comes_once_coalesced_or_not(address: str, coalesce: bool | None) -> None:
    def epochs(messages: list[pb.TrainResponse]) -> list[int]:
        if not coalesce:
            assert not any(message.earlier for message in messages)
        return [at.epoch for message in messages for at in (*message.earlier, message)]

    with grpc.insecure_channel(address) as channel:
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        run = stub.Train(pb.TrainRequest(epochs=500, coalesce=coalesce), timeout=60)
        messages = [next(run)]  # the run has begun
        watching = stub.WatchRun(pb.WatchRunRequest(follow=True, coalesce=coalesce), timeout=60)
        messages += run
        watched = list(watching)
    assert epochs(messages) == list(range(1, 501))
    assert len(messages) < 250 if coalesce else len(messages) == 500
    assert watched[-1].run.state == pb.RUN_STATE_FINISHED
    seen = epochs([message.progress for message in watched if message.HasField("progress")])
    assert seen == sorted(set(seen))
    assert seen[-1] == 500


def test_train_learns(client: Client) -> None:
    seen = list(client.train(epochs=20))
    losses = [progress.train_loss for progress in seen]
    assert losses == sorted(losses, reverse=True)
    assert seen[-1].valid_accuracy >= 0.965


@own_server
def test_steps_use_the_mini_batches_in_the_order_of_seed_42(server: LocalServer) -> None:
    twin, batches = Twin(), datasets().mini_batches(42, 256)
    with Client(server.address) as client:
        for number in range(1, 103):  # more than twice around the 49 mini-batches
            stepped = client.step(learning_rate=0.5)
            twin.step(0.5)
            assert stepped.version == number
        assert client.get_model().digest == twin.digest
        client.train(epochs=1).wait()  # does not move the batch cursor
        twin.train(1)
        client.step()
        twin.step()
        assert client.get_model().digest == twin.digest
    assert len(batches) == 49


def test_a_step_on_a_batch_is_autograds(client: Client) -> None:
    client.initialize(std=0.1)
    chosen = slice(6000, 6300)
    x, y = data().train_x[chosen], data().train_y[chosen]
    twin = Twin(42, 0.1)
    parameters = twin.parameters.double().requires_grad_()
    probabilities = torch.sigmoid(x.double() @ parameters[:-1] + parameters[-1])
    loss = torch.where(y[:, 0] == 1, 1 - probabilities, probabilities).mean()
    loss.backward()
    assert parameters.grad is not None
    before = client.get_model().version
    stepped = client.step(x.numpy(), y.numpy(), learning_rate=2.0)
    assert stepped.loss == pytest.approx(loss.item(), abs=1e-6)
    assert stepped.version == before + 1
    expected = (parameters - 2.0 * parameters.grad).detach().numpy()
    model = client.get_model()
    np.testing.assert_allclose(model.weights, expected[:-1], atol=1e-6)
    np.testing.assert_allclose(model.bias, expected[-1], atol=1e-6)


def test_get_loss_is_the_notes_loss(client: Client) -> None:
    client.initialize(std=0.1)
    twin = Twin(42, 0.1)
    for split, examples in (("train", datasets().train), ("valid", datasets().valid)):
        expected = evaluate(twin.parameters.numpy(), examples)
        found = client.get_loss("train" if split == "train" else "valid")
        assert found.count == expected.count
        assert found.loss == pytest.approx(expected.loss, abs=1e-6)
        assert found.accuracy == pytest.approx(expected.accuracy, abs=1e-3)
    images, labels = validation_images()
    own = client.get_loss(images=images, labels=labels)
    assert own == client.get_loss("valid")


def test_predict_is_the_notes_model(client: Client) -> None:
    images, _ = validation_images()
    prediction = client.predict(images)
    expected = Twin().probabilities(data().valid_x)
    np.testing.assert_allclose(prediction.probabilities, expected.numpy(), atol=1e-5)


def test_an_old_version_can_predict_and_be_evaluated(client: Client) -> None:
    images, _ = validation_images()
    seen: list[Progress] = list(client.train(epochs=3))
    losses = [client.get_loss("valid", version=progress.version).loss for progress in seen]
    assert losses == [progress.valid_loss for progress in seen]
    old = client.predict(images, version=seen[0].version)
    assert old.version == seen[0].version
    right = (old.digits == 3) == (np.arange(2038) < 1010)
    assert right.mean() == pytest.approx(seen[0].valid_accuracy, abs=1e-3)


@own_server
def test_the_bits_do_not_depend_on_the_cores() -> None:
    script = (
        "import os, sys; os.sched_setaffinity(0, eval(sys.argv[1]));"
        "from mnist37_client import Client; from mnist37_client.local_server import LocalServer;"
        "server = LocalServer('--device', 'cpu'); client = Client(server.address);"
        "client.train(epochs=3).wait(); client.step(); print(client.get_model().digest);"
        "client.close(); server.stop()"
    )
    cores = sorted(os.sched_getaffinity(0))
    digests = [
        subprocess.run(
            [sys.executable, "-c", script, repr(set(chosen))],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for chosen in (cores[:1], cores)
    ]
    twin = Twin()
    twin.train(3)
    twin.step()
    assert digests == [twin.digest + "\n"] * 2
