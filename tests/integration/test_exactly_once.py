"""Tests of request_id: a write is done once, although it is sent often and by many callers."""

from __future__ import annotations

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mnist37_client import Aborted, AlreadyExists, Client, Mnist37Error, Progress
from mnist37_client.local_server import LocalServer
from support.twin import Twin

own_server = pytest.mark.skipif(
    "MNIST37_ADDRESS" in os.environ, reason="compares bits, which differ between kinds of devices"
)


def new_id() -> str:
    return f"test-{uuid.uuid4()}"


def test_a_step_is_done_once(client: Client) -> None:
    name = new_id()
    first = client.step(request_id=name)
    digest = client.get_model().digest
    assert [client.step(request_id=name) for _ in range(3)] == [first] * 3
    client.step()
    assert client.step(request_id=name) == first
    assert client.get_model().version == first.version + 1
    assert digest != client.get_model().digest


def test_defaults_are_filled_in_before_requests_are_compared(client: Client) -> None:
    name = new_id()
    first = client.step(request_id=name)
    assert client.step(learning_rate=1.0, request_id=name) == first


def test_an_initialize_is_done_once(client: Client) -> None:
    name = new_id()
    version = client.initialize(seed=1, request_id=name)
    client.step()
    assert client.initialize(seed=1, request_id=name) == version
    assert client.get_model().version == version + 1


def test_a_finished_run_answers_its_last_progress_once(client: Client) -> None:
    name = new_id()
    *_, last = client.train(epochs=3, request_id=name)
    assert list(client.train(epochs=3, request_id=name)) == [last]
    assert client.get_model().version == last.version


def test_an_id_that_is_used_for_another_request_is_refused(client: Client) -> None:
    name = new_id()
    client.step(request_id=name)
    model = client.get_model()
    for other in (
        lambda: client.step(learning_rate=2.0, request_id=name),
        lambda: client.initialize(request_id=name),
        lambda: client.train(epochs=1, request_id=name).wait(),
    ):
        with pytest.raises(AlreadyExists, match=r"used before .* nothing is applied"):
            other()
    assert client.get_model().digest == model.digest
    assert client.get_model().version == model.version


def test_concurrent_callers_with_one_id_share_one_step(client: Client) -> None:
    name, before = new_id(), client.get_model().version
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.step(request_id=name), range(64)))
    assert set(answers) == {answers[0]}
    assert client.get_model().version == before + 1


def test_a_second_caller_joins_a_run(client: Client) -> None:
    name, seen = new_id(), []
    first = client.train(epochs=200, request_id=name)
    next(first)
    joined: list[Progress] = []
    thread = threading.Thread(
        target=lambda: joined.extend(client.train(epochs=200, request_id=name))
    )
    thread.start()
    seen = list(first)
    thread.join()
    assert joined == seen[-len(joined) :]
    assert joined[-1].epoch == 200


def test_a_run_goes_on_while_one_of_its_callers_stays(client: Client) -> None:
    name = new_id()
    first = client.train(epochs=100, request_id=name)
    next(first)
    second = client.train(epochs=100, request_id=name)
    next(second)
    first.cancel()
    assert second.wait().epoch == 100


@own_server
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(client: Client) -> None:
    # Mini-batches of 2 make epochs long, so some of the interruptions are inside an epoch.
    name, epochs, steps = new_id(), [], 6198
    start = client.get_model().version
    finished = None
    interruptions = []
    for pause in (0.02, 0.15, 0.05, 0.1):
        with client.train(200, batch_size=2, learning_rate=0.1, request_id=name):
            time.sleep(pause)
        interruptions.append(wait_until_stopped(client) - start)
    assert interruptions == sorted(interruptions)
    assert interruptions[-1] < 200 * steps
    assert any(steps_done % steps for steps_done in interruptions)
    for finished in client.train(200, batch_size=2, learning_rate=0.1, request_id=name):
        epochs.append(finished.epoch)
    assert finished is not None
    assert epochs == list(range(epochs[0], 201)), "the numbers continue"
    twin = Twin()
    twin.train(200, 0.1, 2)
    assert client.get_model().digest == twin.digest
    assert finished.version == client.get_model().version == start + 200 * steps
    uninterrupted = uninterrupted_loss(client)
    assert finished.train_loss == uninterrupted, "the loss differs from an uninterrupted run's"


def uninterrupted_loss(client: Client) -> float:
    client.initialize()
    return client.train(200, batch_size=2, learning_rate=0.1).wait().train_loss


def wait_until_stopped(client: Client) -> int:
    """Wait until a cancelled run has stopped, which may make one more step; return the version."""
    time.sleep(0.1)
    version = client.get_model().version
    time.sleep(0.05)
    assert client.get_model().version == version
    return version


def test_an_interrupted_run_cannot_continue_after_another_write(client: Client) -> None:
    name = new_id()
    run = client.train(epochs=100_000, request_id=name)
    next(run)
    run.cancel()
    wait_until_stopped(client)
    client.step()
    model = client.get_model()
    with pytest.raises(Aborted, match=r"interrupted at version \d+ and the model is at \d+"):
        client.train(epochs=100_000, request_id=name).wait()
    assert client.get_model().digest == model.digest


@pytest.mark.alone
def test_a_cancelled_run_stops_within_50_ms(client: Client) -> None:
    run = client.train(epochs=100_000, batch_size=16)
    next(run)
    run.cancel()
    time.sleep(0.05)
    version = client.get_model().version
    time.sleep(0.1)
    assert client.get_model().version == version


def test_a_step_whose_caller_left_before_it_began_is_not_done(address: str, client: Client) -> None:
    with client.train(epochs=100_000) as run, Client(address, timeout=0.2) as hasty:
        next(run)
        with pytest.raises(Mnist37Error, match="did not answer within the timeout"):
            hasty.step()
    version = wait_until_stopped(client)
    client.step()
    assert client.get_model().version == version + 1


@own_server
def test_the_state_is_unchanged_after_a_restart(tmp_path: Path) -> None:
    with LocalServer("--state", str(tmp_path)) as server, Client(server.address) as client:
        first = client.step(request_id="step")
        run = client.train(epochs=500, request_id="run")
        next(run)
        run.cancel()
        wait_until_stopped(client)
        before = client.get_model()
    with LocalServer("--state", str(tmp_path)) as server, Client(server.address) as client:
        after = client.get_model()
        assert (after.version, after.digest) == (before.version, before.digest)
        assert client.step(request_id="step") == first
        with pytest.raises(AlreadyExists):
            client.step(learning_rate=0.5, request_id="step")
        last = client.train(epochs=500, request_id="run").wait()
        twin = Twin()
        twin.step()
        twin.train(500)
        assert (last.epoch, client.get_model().digest) == (500, twin.digest)
        assert client.step().version == last.version + 1  # the batch cursor was kept too
        twin.step()
        assert client.get_model().digest == twin.digest


@own_server
def test_a_killed_server_loses_no_acknowledged_write(tmp_path: Path) -> None:
    server = LocalServer("--state", str(tmp_path))
    acknowledged = 0
    with Client(server.address) as client:
        for number in range(20):
            acknowledged = client.step(request_id=f"step-{number}").version
        server.kill()
    with LocalServer("--state", str(tmp_path)) as server, Client(server.address) as client:
        assert client.get_model().version == acknowledged == 20
        for number in range(25):
            client.step(request_id=f"step-{number}")
        twin = Twin()
        for _ in range(25):
            twin.step()
        assert client.get_model().version == 25
        assert client.get_model().digest == twin.digest
