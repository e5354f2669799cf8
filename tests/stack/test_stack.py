"""Tests of a live model that other clients train and predict with at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mnist37_client import AsyncClient, Client, InvalidInput, Model, validation_images
from support.live_stack import Stack
from support.scraping import Scrape, wait_until
from support.twin import Twin

IMAGES, LABELS = validation_images()


def probabilities(model: Model, images: np.ndarray) -> np.ndarray:
    """Return the probabilities (N,) of images by a model's parameters, computed in float64."""
    scores = images.reshape(-1, 784) / 255.0 @ model.weights.astype(np.float64) + model.bias
    return 1 / (1 + np.exp(-scores))


def test_the_trainer_trains(owner: Client) -> None:
    def accuracies() -> list[float]:
        return [
            run.last.valid_accuracy
            for run in owner.runs()
            if (run.request_id or "").startswith("trainer-")
            and run.state == "finished"
            and run.last
        ]

    assert wait_until(lambda: bool(accuracies()), 60)
    assert max(accuracies()) > 0.95


def test_the_predictor_predicts_over_the_followers(stack: Stack) -> None:
    def predictions() -> float:
        scrapes = [Scrape(url) for url in stack.follower_metrics]
        return sum(scrape.codes("Predict").get("OK", 0) for scrape in scrapes)

    before = predictions()
    assert wait_until(lambda: predictions() > before + 3, 60)


def test_each_follower_and_the_front_follow_the_server(stack: Stack, owner: Client) -> None:
    expected = len(stack.follower_metrics) + (stack.front is not None)
    assert wait_until(lambda: len(owner.followers()) >= expected, 60)


def test_the_page_and_the_http_api_answer(stack: Stack) -> None:
    if stack.front is None:
        pytest.skip("a front cannot run here")
    url = f"http://{stack.front}"
    with urllib.request.urlopen(f"{url}/", timeout=10) as answer:
        assert "page.js" in answer.read().decode()
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784]}
    body = {"inputs": [{**pixels, "data": IMAGES[0].reshape(-1).tolist()}]}
    request = urllib.request.Request(
        f"{url}/v2/models/mnist37/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        (probability,) = json.load(answer)["outputs"][0]["data"]
    assert 0 <= probability <= 1


def test_a_client_sees_what_it_has_written(client: Client) -> None:
    for _ in range(20):
        version = client.step(learning_rate=0.01).version
        assert client.predict(IMAGES[0]).version >= version


def test_each_answer_is_from_one_version(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(client.train(epochs=100).wait)
        answers = [client.predict(IMAGES)]
        while not run.done():
            answers.append(client.predict(IMAGES))
    assert len(answers) > 1
    versions = [answer.version for answer in answers]
    assert versions == sorted(versions), "no answer is older than the one before it"
    for answer in answers[:: max(1, len(answers) // 10)]:
        model = client.get_model(version=answer.version)
        expected = probabilities(model, IMAGES)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


def test_a_run_among_others_ends_on_the_bits_that_the_core_computes(client: Client) -> None:
    # The run starts from the version that the other clients' writes left: one epoch, which is 13
    # steps, before its first progress.
    epochs = list(client.train(epochs=3, batch_size=1000, seed=7))
    start = client.get_model(version=epochs[0].version - 13)
    if start.device != "cpu":
        pytest.skip("compares bits, which differ between kinds of devices")
    twin = Twin()
    twin.parameters = torch.from_numpy(np.append(start.weights, start.bias))
    twin.train(3, batch_size=1000, seed=7)
    assert client.get_model(version=epochs[-1].version).digest == twin.digest


def test_a_repeated_write_is_done_once(client: Client, stack: Stack) -> None:
    request_id = uuid.uuid4().hex
    first = client.step(learning_rate=0.01, request_id=request_id)
    with Client(stack.address) as other_client:
        assert other_client.step(learning_rate=0.01, request_id=request_id) == first
        assert other_client.step(learning_rate=0.01).version > first.version


def test_each_of_many_writes_makes_a_version(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        steps = [
            pool.submit(client.step, IMAGES[:50], LABELS[:50], learning_rate=0.01)
            for _ in range(40)
        ]
        versions = [step.result().version for step in steps]
    assert len(set(versions)) == 40
    retained = {version.version for version in client.versions(1000)}
    assert retained >= set(versions)


def test_predicting_many_images_at_once(stack: Stack) -> None:
    async def predict() -> tuple[int, int]:
        async with AsyncClient(stack.address) as client:
            single = await asyncio.gather(*(client.predict(image) for image in IMAGES[:200]))
            together = await client.predict(IMAGES, version=single[-1].version)
            correct = int(((together.digits == 3) == (LABELS == 1)).sum())
            return len(single), correct

    count, correct = asyncio.run(predict())
    assert count == 200
    assert correct > 0.9 * len(IMAGES), "the trainer has trained the model"


def test_an_exported_model_is_the_same_after_its_import(client: Client) -> None:
    model = client.get_model()
    assert (
        hashlib.sha256(np.append(model.weights, model.bias).astype("<f4").tobytes()).hexdigest()
        == model.digest
    )
    imported = client.import_model(model.weights, model.bias)
    assert client.get_model(version=imported).digest == model.digest
    restored = client.restore(imported)
    assert client.get_model(version=restored).digest == model.digest


def test_invalid_input_is_refused_and_does_not_disturb_other_calls(client: Client) -> None:
    with pytest.raises(InvalidInput) as refusal:
        client.step(learning_rate=-1)
    assert (refusal.value.reason, refusal.value.field) == ("INVALID_FIELD", "learning_rate")
    assert client.get_loss("valid").count == len(IMAGES)
