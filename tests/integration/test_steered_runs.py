"""Tests of runs with a name, a schedule and early stopping, and of their list and their curves."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.scraping import wait_until
from support.twin import Twin

SCHEDULED = {
    "schedule": pb.SCHEDULE_COSINE,
    "learning_rate": 2.0,
    "final_learning_rate": 0.01,
    "warmup_epochs": 3,
}


@pytest.fixture
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield mnist37_pb2_grpc.Mnist37ServiceStub(channel)


def train(stub: Any, epochs: int, **values: Any) -> list[pb.TrainResponse]:
    return list(stub.Train(pb.TrainRequest(epochs=epochs, **values)))


def refusal(stub: Any, **values: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        train(stub, **values)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


def expected_rate(
    kind: str, epoch: int, epochs: int, full: float, final: float, warmup: int
) -> Any:
    """Return the rate of an epoch by the contract's formula."""
    if epoch < warmup:
        return full * epoch / warmup
    first = max(warmup, 1)
    t = 0.0 if epoch == first else (epoch - first) / (epochs - first)
    if kind == "linear":
        return full + (final - full) * t
    return final + (full - final) * (1 + math.cos(math.pi * t)) / 2


@pytest.mark.parametrize("warmup", [0, 1, 4, 7])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_scheduled_run_equals_one_epoch_runs(
    client: Client, kind: str, warmup: int, stub: Any
) -> None:
    values: dict[str, Any] = {
        "schedule": pb.Schedule.Value(f"SCHEDULE_{kind.upper()}"),
        "learning_rate": 3.0,
        "final_learning_rate": 0.1,
        "warmup_epochs": warmup,
        "batch_size": 2000,
    }
    train(stub, 7, **values)
    twin = Twin()
    for epoch in range(1, 8):
        rate = expected_rate(kind, epoch, 7, 3.0, 0.1, warmup)
        twin.train(1, first=epoch, lr=float(np.float32(rate)), batch_size=2000)
    assert client.get_model().digest == twin.digest


def test_patience_ends_a_run(client: Client, stub: Any) -> None:
    # At this rate the validation loss goes up and down.
    values: dict[str, Any] = {"learning_rate": 60.0, "batch_size": 3000, "seed": 5}
    whole = train(stub, 60, **values)
    losses = [answer.valid_loss for answer in whole]
    for patience, min_delta in ((1, 0.0), (3, 0.0), (3, 0.002), (5, 0.0)):
        client.initialize()
        baseline, since, stop = losses[0], 0, len(losses) - 1
        for index, loss in enumerate(losses[1:], 1):
            baseline, since = (loss, 0) if loss < baseline - min_delta else (baseline, since + 1)
            if since == patience:
                stop = index
                break
        answers = train(stub, 60, patience=patience, min_delta=min_delta, **values)
        last = answers[-1]
        assert [answer.valid_loss for answer in answers] == losses[: stop + 1]
        assert last.stopped_early is (stop + 1 < 60)
        assert last.best_epoch == 1 + losses.index(min(losses[: stop + 1]))
        run = stub.ListRuns(pb.ListRunsRequest(page_size=1)).runs[0]
        assert run.state == pb.RUN_STATE_FINISHED
        last.ClearField("start")  # which is of the answer, not of the epoch
        assert (run.last, run.patience, run.min_delta) == (last, patience, min_delta)
        assert run.best_version == answers[last.best_epoch - 1].version
        assert client.get_model().version == last.version
        # The model is that of the last epoch that counts.
        other = Client(client.address)
        assert other.get_loss("valid").loss == losses[stop]
        other.close()


def test_a_write_after_an_early_stop_goes_on_from_the_last_epoch_that_counts(
    client: Client, stub: Any
) -> None:
    # The slice had computed further epochs, of which the model may keep nothing.
    settings: dict[str, Any] = {"learning_rate": 60.0, "batch_size": 3000, "seed": 5}
    last = train(stub, 60, patience=1, **settings)[-1]
    assert last.stopped_early
    images, labels = validation_images()
    client.step(images[:50], labels[:50])
    after = client.get_model()
    client.restore(last.version)
    client.step(images[:50], labels[:50])
    assert client.get_model().digest == after.digest
    assert after.version == last.version + 1


def test_of_equal_losses_the_first_epoch_is_the_best(client: Client, stub: Any) -> None:
    # The rate is so small that no parameter changes, over several slices of the run.
    client.initialize()
    settings: dict[str, Any] = {"learning_rate": 1e-30, "batch_size": 12396}
    answers = train(stub, 300, **settings)
    assert len({answer.valid_loss for answer in answers}) == 1
    assert answers[-1].best_epoch == 1
    (stopped,) = train(stub, 300, patience=3, **settings)[-1:]
    assert (stopped.epoch, stopped.best_epoch, stopped.stopped_early) == (4, 1, True)


def test_only_the_last_message_of_a_run_names_its_best_epoch(client: Client, stub: Any) -> None:
    answers = train(stub, 5, batch_size=6198)
    assert [answer.HasField("best_epoch") for answer in answers] == [False] * 4 + [True]
    assert not any(answer.stopped_early for answer in answers)
    assert len({answer.run for answer in answers}) == 1
    assert answers[0].run == client.runs()[0].run


def test_a_finished_run_answers_the_same_again(stub: Any) -> None:
    request_id = uuid.uuid4().hex
    values: dict[str, Any] = {"name": "once", "patience": 2, "request_id": request_id, **SCHEDULED}
    last = train(stub, 50, **values)[-1]
    assert train(stub, 50, **values) == [last]
    with pytest.raises(grpc.RpcError) as caught:
        train(stub, 50, **{**values, "name": "twice"})
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"schedule": pb.SCHEDULE_LINEAR}, "final_learning_rate: is missing for a linear schedule"),
    ({"schedule": pb.SCHEDULE_COSINE}, "final_learning_rate: is missing for a cosine schedule"),
    ({"schedule": pb.SCHEDULE_UNSPECIFIED}, "schedule: got 0; must be one of SCHEDULE_CONSTANT"),
    ({"schedule": 99}, "schedule: got 99; must be one of SCHEDULE_CONSTANT"),
    ({"final_learning_rate": 0.1}, "final_learning_rate: got 0.1 for a constant learning rate"),
    (
        {"schedule": pb.SCHEDULE_LINEAR, "final_learning_rate": 0.0},
        "final_learning_rate: got 0; must be above 0",
    ),
    (
        {"schedule": pb.SCHEDULE_COSINE, "final_learning_rate": math.nan},
        "final_learning_rate: got nan; must be above 0",
    ),
    ({"warmup_epochs": 10}, "warmup_epochs: got 10; must be 0 to 9"),
    ({"patience": 0}, "patience: got 0; must be 1 to 1,000,000"),
    ({"min_delta": 0.1}, "patience: is missing beside min_delta"),
    ({"patience": 1, "min_delta": -0.1}, "min_delta: got -0.1; must be at least 0"),
    ({"patience": 1, "min_delta": math.nan}, "min_delta: got nan; must be at least 0"),
    ({"patience": 1, "min_delta": math.inf}, "min_delta: got inf; must be at least 0"),
    ({"name": ""}, "name: got 0 characters; must have 1 to 128"),
    ({"name": "x" * 129}, "name: got 129 characters; must have 1 to 128"),
]


@pytest.mark.parametrize(("values", "text"), REFUSED, ids=[text[:30] for _, text in REFUSED])
def test_bad_settings_are_refused(client: Client, stub: Any, values: Any, text: str) -> None:
    before = client.get_model().version
    assert refusal(stub, epochs=9, **values).startswith(text)
    assert client.get_model().version == before


@contextmanager
def serve(folder: Path) -> Iterator[tuple[LocalServer, Any]]:
    """Serve the state in a folder; yield the server and a stub of it."""
    with (
        LocalServer("--device", "cpu", "--state", str(folder)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, mnist37_pb2_grpc.Mnist37ServiceStub(channel)


def test_a_run_that_is_cut_again_and_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Kill the server 10 times at random moments of a run with every option, and resume it."""
    values: dict[str, Any] = {
        "name": "cut",
        "request_id": "cut",
        "batch_size": 97,
        "seed": 3,
        "patience": 40,
        "min_delta": 1e-7,
        **SCHEDULED,
    }
    ends = []
    for name, kills in (("whole", 0), ("cut", 10)):
        random_moments = random.Random(1)
        for _ in range(kills):
            with serve(tmp_path / name) as (server, stub):
                for _ in stub.Train(pb.TrainRequest(epochs=800, **values)):
                    if random_moments.random() < 0.05:
                        break
                server.kill()
        with serve(tmp_path / name) as (_, stub):
            *_, last = stub.Train(pb.TrainRequest(epochs=800, **values))
            best = stub.GetModel(pb.GetModelRequest(tag=f"best@{last.run}"))
            model = stub.GetModel(pb.GetModelRequest())
            progress = (last.epoch, last.valid_loss, last.best_epoch, last.stopped_early)
            ends.append((*progress, best.version, best.digest, model.version, model.digest))
    assert ends[0] == ends[1]
    assert ends[0][3], "the patience must have ended the run, or the test shows little"


def test_the_curve_of_a_run_that_was_stopped(client: Client, stub: Any) -> None:
    with client.train(epochs=1_000_000, batch_size=12396) as run:
        for progress in run:
            if progress.epoch == 66:
                break
    assert wait_until(lambda: client.runs()[0].state == "interrupted")
    record, *curve = stub.WatchRun(pb.WatchRunRequest())
    epochs = [answer.progress.epoch for answer in curve]
    stop = record.run.last.epoch
    assert stop < 1000, "the machine is too fast for this test"
    assert epochs == list(range(1, stop + 1))


def test_a_long_curve_has_every_nth_epoch_and_both_ends(client: Client, stub: Any) -> None:
    client.train(epochs=2501, batch_size=12396).wait()
    _, *curve = stub.WatchRun(pb.WatchRunRequest())
    assert [answer.progress.epoch for answer in curve] == [1, *range(4, 2501, 4), 2501]


def test_runs_are_listed_by_name_and_state(client: Client, stub: Any) -> None:
    name = uuid.uuid4().hex
    for _ in range(5):
        client.train(epochs=1, batch_size=12396).wait()
        train(stub, 1, batch_size=12396, name=name)
    with client.train(epochs=100_000) as run:
        next(run)
        queued = [
            stub.Train(pb.TrainRequest(epochs=1, batch_size=12396, name=name)) for _ in range(3)
        ]
        request = pb.ListRunsRequest(states=[pb.RUN_STATE_QUEUED])
        assert wait_until(lambda: len(stub.ListRuns(request).runs) == 3)
        listed = stub.ListRuns(pb.ListRunsRequest(name=name)).runs
        assert [found.queue_position for found in listed] == [3, 2, 1, 0, 0, 0, 0, 0]
        assert [found.run for found in listed[:3]] == [0, 0, 0]
        assert {found.name for found in listed} == {name}
        request = pb.ListRunsRequest(states=[pb.RUN_STATE_RUNNING])
        assert [found.run for found in stub.ListRuns(request).runs] == [run_number(client)]
        pages, token = [], ""
        while True:
            request = pb.ListRunsRequest(name=name, page_size=2, page_token=token)
            page = stub.ListRuns(request)
            pages.append([(found.run, found.queue_position) for found in page.runs])
            token = page.next_page_token
            if not token:
                break
        assert [len(page) for page in pages] == [2, 2, 2, 2]
        everything = [run for page in pages for run in page]
        assert everything == [(found.run, found.queue_position) for found in listed]
        for call in queued:
            call.cancel()
        # Before the run ends, after which one of them would begin.
        request = pb.ListRunsRequest(states=[pb.RUN_STATE_QUEUED])
        assert wait_until(lambda: not stub.ListRuns(request).runs)
    finished = stub.ListRuns(pb.ListRunsRequest(name=name, states=[pb.RUN_STATE_FINISHED])).runs
    assert len(finished) == 5
    numbers = [found.run for found in finished]
    assert all(newer > older for newer, older in pairwise(numbers))


def run_number(client: Client) -> int | None:
    return next(run.run for run in client.runs() if run.state == "running")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"page_size": 0}, "page_size: got 0; must be 1 to 1,000"),
        ({"page_size": 1001}, "page_size: got 1,001; must be 1 to 1,000"),
        ({"page_token": "7"}, "page_token: got '7'; must be the next_page_token"),
        ({"page_token": "run-x"}, "page_token: got 'run-x'; must be"),
        ({"page_token": "x" * 10_000}, "page_token: got 10,000 characters; must be"),
        ({"states": [99]}, "states: got 99; must be of RUN_STATE_RUNNING"),
    ],
)
def test_a_bad_page_is_refused(stub: Any, values: Any, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListRuns(pb.ListRunsRequest(**values))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith(text)


def test_a_model_of_zeros_calls_every_image_a_seven(client: Client, stub: Any) -> None:
    # A score of exactly 0 is a seven, as in the notes' `preds > 0.0`.
    client.initialize(std=0)
    loss = stub.GetLoss(pb.GetLossRequest(split=pb.SPLIT_VALID))
    assert loss.accuracy == 1028 / 2038
    assert (loss.threes_right, loss.threes_called_sevens) == (0, 1010)
    assert (loss.sevens_right, loss.sevens_called_threes) == (1028, 0)
    assert set(client.predict(np.zeros((3, 784), np.uint8)).digits) == {7}


def test_the_confusion_matrix_is_that_of_the_predictions(client: Client, stub: Any) -> None:
    client.train(epochs=1).wait()
    images, labels = validation_images()
    loss = stub.GetLoss(pb.GetLossRequest(split=pb.SPLIT_VALID))
    threes = client.predict(images).digits == 3
    is_three = labels == 1
    assert loss.threes_right == (threes & is_three).sum()
    assert loss.threes_called_sevens == (~threes & is_three).sum()
    assert loss.sevens_right == (~threes & ~is_three).sum()
    assert loss.sevens_called_threes == (threes & ~is_three).sum()
    assert loss.count == 2038
    batch = pb.Batch(pixels=images[:5].tobytes(), labels=bytes(labels[:5]))
    answer = stub.GetLoss(pb.GetLossRequest(batch=batch))
    cells = (answer.threes_right, answer.threes_called_sevens)
    assert (sum(cells), answer.count) == (int(is_three[:5].sum()), 5)
