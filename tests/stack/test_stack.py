"""What holds for a live model that others train and ask at the same time, as a team's will be."""

from __future__ import annotations

import asyncio
import hashlib
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
    """What these parameters say, computed here in float64."""
    scores = images.reshape(-1, 784) / 255.0 @ model.weights.astype(np.float64) + model.bias
    return 1 / (1 + np.exp(-scores))


def test_the_trainer_trains(client: Client) -> None:
    def finished() -> list[float]:
        return [
            run.last.valid_accuracy
            for run in client.runs()
            if (run.request_id or "").startswith("trainer-")
            and run.state == "finished"
            and run.last
        ]

    assert wait_until(lambda: bool(finished()), 60)
    assert max(finished()) > 0.95


def test_the_predictor_asks(stack: Stack) -> None:
    def answered() -> float:
        return Scrape(stack.metrics).codes("Predict").get("OK", 0)

    before = answered()
    assert wait_until(lambda: answered() > before + 3, 60)


def test_each_answer_is_from_one_version(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(client.train(epochs=100).wait)
        answers = [client.predict(IMAGES)]
        while not run.done():
            answers.append(client.predict(IMAGES))
    assert len(answers) > 1
    versions = [answer.version for answer in answers]
    assert versions == sorted(versions), "none is older than one before"
    for answer in answers[:: max(1, len(answers) // 10)]:
        model = client.get_model(version=answer.version)
        expected = probabilities(model, IMAGES)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


def test_a_run_among_others_ends_on_the_bits_that_the_core_computes(client: Client) -> None:
    """From wherever the others' writes had brought the model when its turn came."""
    told = list(client.train(epochs=3, batch_size=1000, seed=7))
    start = client.get_model(version=told[0].version - 13)
    if start.device != "cpu":
        pytest.skip("compares bits, which are of a kind of device")
    twin = Twin()
    twin.parameters = torch.from_numpy(np.append(start.weights, start.bias))
    twin.train(3, batch_size=1000, seed=7)
    assert client.get_model(version=told[-1].version).digest == twin.digest


def test_a_write_that_is_sent_again_is_done_once(client: Client, stack: Stack) -> None:
    name = uuid.uuid4().hex
    first = client.step(learning_rate=0.01, request_id=name)
    with Client(stack.address) as another:
        assert another.step(learning_rate=0.01, request_id=name) == first
        assert another.step(learning_rate=0.01).version > first.version


def test_writes_of_many_are_all_done(client: Client) -> None:
    """Each makes a version of its own, whatever comes between."""
    with ThreadPoolExecutor(8) as pool:
        made = [
            pool.submit(client.step, IMAGES[:50], LABELS[:50], learning_rate=0.01)
            for _ in range(40)
        ]
        versions = [step.result().version for step in made]
    assert len(set(versions)) == 40
    kept = {version.version for version in client.versions(1000)}
    assert kept >= set(versions)


def test_asking_for_many_at_once(stack: Stack) -> None:
    async def ask() -> tuple[int, int]:
        async with AsyncClient(stack.address) as client:
            one_by_one = await asyncio.gather(*(client.predict(image) for image in IMAGES[:200]))
            together = await client.predict(IMAGES, version=one_by_one[-1].version)
            right = int(((together.digits == 3) == (LABELS == 1)).sum())
            return len(one_by_one), right

    count, right = asyncio.run(ask())
    assert count == 200
    assert right > 0.9 * len(IMAGES), "the trainer has trained it"


def test_a_model_that_is_taken_out_and_put_in_again_is_the_same(client: Client) -> None:
    model = client.get_model()
    assert (
        hashlib.sha256(np.append(model.weights, model.bias).astype("<f4").tobytes()).hexdigest()
        == model.digest
    )
    again = client.import_model(model.weights, model.bias)
    assert client.get_model(version=again).digest == model.digest
    restored = client.restore(again)
    assert client.get_model(version=restored).digest == model.digest


def test_what_is_wrong_is_refused_and_goes_unnoticed_by_the_others(client: Client) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.step(learning_rate=-1)
    assert (refused.value.reason, refused.value.field) == ("INVALID_FIELD", "learning_rate")
    assert client.get_loss("valid").count == len(IMAGES)
