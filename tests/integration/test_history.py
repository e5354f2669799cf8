"""Tests of retained versions and runs, and of Restore and Import."""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mnist37_client import (
    AlreadyExists,
    Client,
    InvalidInput,
    NotFound,
    Progress,
    Run,
    validation_images,
)
from mnist37_client.cli.safetensors_file import load_model, save_model
from support.twin import data


def test_versions_say_what_made_them(client: Client) -> None:
    client.initialize()
    client.step()
    run = client.train(epochs=2)
    last = run.wait().version
    restored = client.restore(last - 49)
    model = client.get_model()
    client.import_model(model.weights, model.bias)
    newest = client.versions(6)
    assert [found.origin for found in newest] == [
        "import",
        "restore",
        "train",
        "train",
        "step",
        "initialize",
    ]
    assert [found.version for found in newest[:4]] == [restored + 1, restored, last, last - 49]
    assert newest[2].run == client.runs()[0].run
    assert newest[0].run is None
    assert abs(newest[0].committed_at.timestamp() - time.time()) < 60


def test_restore_makes_an_old_version_the_newest(client: Client) -> None:
    old = client.get_model()
    client.train(epochs=1).wait()
    before = client.get_model().version
    name = uuid.uuid4().hex
    version = client.restore(old.version, request_id=name)
    model = client.get_model()
    assert (version, model.version, model.digest) == (before + 1, before + 1, old.digest)
    assert client.restore(old.version, request_id=name) == version
    with pytest.raises(AlreadyExists):
        client.restore(version, request_id=name)
    assert client.get_model(version=old.version).digest == old.digest, "the old version must stay"


def test_a_version_that_is_not_retained_cannot_be_restored(client: Client) -> None:
    model = client.get_model()
    for version in (model.version + 1000, 2**64 - 1):
        with pytest.raises(NotFound, match="ListVersions names the versions that are"):
            client.restore(version)
    assert client.get_model().version == model.version


def test_neither_restore_nor_import_moves_the_batch_cursor(client: Client) -> None:
    first = client.get_model()
    losses = [client.step(learning_rate=1e-30).loss for _ in range(49)]
    client.restore(first.version)
    client.import_model(first.weights, first.bias)
    assert [client.step(learning_rate=1e-30).loss for _ in range(49)] == losses


def test_the_notes_parameters_can_be_imported(client: Client, tmp_path: Path) -> None:
    # PyTorch saves them as an nn.Linear's state. The notes' score of the first image is 20.2336.
    linear = torch.nn.Linear(784, 1)
    torch.manual_seed(42)
    torch.randn(20)
    torch.randn(3)
    with torch.no_grad():
        linear.weight.copy_(torch.randn((784, 1)).T)
        linear.bias.copy_(torch.randn(1))
    safetensors.torch.save_file(linear.state_dict(), tmp_path / "notes.safetensors")
    client.import_model(*load_model(tmp_path / "notes.safetensors"))
    model = client.get_model()
    one = data().train_x[0].numpy()
    assert f"{one @ model.weights + model.bias:.4f}" == "20.2336"
    assert client.predict(one).probabilities[0] == pytest.approx(1 / (1 + np.exp(-20.2336)))
    accuracy = client.get_loss("train").accuracy
    assert np.float32(accuracy) == np.float32(0.4912068545818329)


def test_an_exported_model_loads_in_pytorch_and_can_be_imported_again(
    client: Client, tmp_path: Path
) -> None:
    client.train(epochs=1).wait()
    model = client.get_model()
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    linear = torch.nn.Linear(784, 1)
    linear.load_state_dict(safetensors.torch.load_file(path))
    images, _ = validation_images()
    with torch.no_grad():
        x = torch.from_numpy(images.reshape(-1, 784)).float() / 255
        expected = torch.sigmoid(linear(x)).flatten()
    found = client.predict(images).probabilities
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    client.initialize()
    client.import_model(*load_model(path))
    assert client.get_model().digest == model.digest


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        (np.zeros(783), 0.0, "weights: got float64 of shape"),
        (np.full(784, np.nan), 0.0, "weights: got NaN or infinity"),
        (np.zeros(784), np.inf, "bias: got NaN or infinity"),
        (np.full(784, 3e38), 0.0, "weights: their sum is beyond what float32 can hold"),
        (["a"] * 784, 0.0, "weights: got <U1"),
    ],
)
def test_invalid_parameters_are_refused(
    client: Client, weights: object, bias: float, message: str
) -> None:
    before = client.get_model()
    with pytest.raises(InvalidInput, match=message):
        client.import_model(weights, bias)  # type: ignore[arg-type]
    assert client.get_model().digest == before.digest


def test_files_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load_model(path)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(InvalidInput, match="not a safetensors file"):
        load_model(path)
    safetensors.torch.save_file({"weight": torch.zeros(1, 10)}, path)
    with pytest.raises(InvalidInput, match=r"must hold weight \(1, 784\) and bias"):
        load_model(path)


def test_a_file_of_another_precision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bf16.safetensors"
    tensors = {"weight": torch.zeros(1, 784).bfloat16(), "bias": torch.zeros(1).bfloat16()}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InvalidInput, match="must hold"):
        load_model(path)


def test_writes_that_wait_together_see_each_other(client: Client) -> None:
    # A Step, and a Restore of the version that this Step makes, both wait for the end of a run.
    with ThreadPoolExecutor(2) as pool:
        run = client.train(epochs=100)
        before = next(run).version - 49
        made = before + 100 * 49 + 1
        step = pool.submit(client.step)
        time.sleep(0.05)
        restored = pool.submit(client.restore, made)
        run.wait()
        assert (step.result().version, restored.result()) == (made, made + 1)
    assert client.get_model().digest == client.get_model(version=made).digest


def test_runs_are_listed_with_their_settings(client: Client) -> None:
    name = uuid.uuid4().hex
    last = client.train(
        epochs=3, learning_rate=0.5, batch_size=1000, seed=7, request_id=name
    ).wait()
    run = client.runs()[0]
    assert (run.state, run.request_id, run.last, run.version) == (
        "finished",
        name,
        last,
        last.version,
    )
    assert (run.epochs, run.learning_rate, run.batch_size, run.seed) == (3, 0.5, 1000, 7)
    assert run.started_at is not None
    assert abs(run.started_at.timestamp() - time.time()) < 60
    shown, *curve = client.watch_run(run.run)
    assert shown == run
    assert [found.epoch for found in curve if isinstance(found, Progress)] == [1, 2, 3]
    assert curve[-1] == last


def test_another_client_can_follow_a_run(client: Client, address: str) -> None:
    # The watcher joins during the run, and must receive what the run's own caller receives.
    watched: list[Run | Progress] = []
    run = client.train(epochs=150)
    first = next(run)

    def watch() -> None:
        with Client(address) as other:
            watched.extend(other.watch_run(follow=True))

    watcher = threading.Thread(target=watch)
    watcher.start()
    received = [first, *run]
    watcher.join()
    begun, *curve, ended = watched
    assert isinstance(begun, Run)
    assert isinstance(ended, Run)
    assert (begun.state, ended.state, ended.last) == ("running", "finished", received[-1])
    assert curve == received


def test_a_run_without_its_caller_stops_although_it_is_watched(
    client: Client, address: str
) -> None:
    run = client.train(epochs=100_000)
    next(run)
    with Client(address) as other:
        watched = other.watch_run(follow=True)
        next(watched)
        run.cancel()
        *_, ended = watched
    assert isinstance(ended, Run)
    assert ended.state == "interrupted"


def test_a_run_that_is_not_retained_cannot_be_watched(client: Client) -> None:
    with pytest.raises(NotFound, match="run: 999999 is not retained; the newest 1,000 are"):
        list(client.watch_run(999_999))


def test_reading_and_watching_change_nothing(client: Client, tmp_path: Path) -> None:
    client.train(epochs=2).wait()
    before = client.get_model()
    client.versions()
    client.runs()
    list(client.watch_run(follow=True))
    save_model(before, tmp_path / "model.safetensors")
    client.get_loss("train")
    after = client.get_model()
    assert (after.version, after.digest) == (before.version, before.digest)
    assert json.dumps(after.weights.tolist()) == json.dumps(before.weights.tolist())
