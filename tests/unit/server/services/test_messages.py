"""Tests of the conversions from messages to commands and from results to messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.commands.commands import Initialize, Step
from mnist37_server.domain.commands.train import EarlyStopping, Train
from mnist37_server.domain.examples import Batch, Split, view_images
from mnist37_server.domain.records import QueuedRun
from mnist37_server.domain.results import Progress, result_from_values, values_of
from mnist37_server.errors import InvalidArgument
from mnist37_server.services.messages import requests, responses
from mnist37_server.storage.tables.rows import train_from_json, train_to_json

from mnist37.optimizer import Sgd
from mnist37.schedule import Schedule, Shape

rates = st.floats(0, 3e38, exclude_min=True)
seeds = st.integers(0, 2**64 - 1)
batches = st.integers(1, 5).flatmap(
    lambda count: st.builds(
        Batch,
        st.binary(min_size=784 * count, max_size=784 * count),
        st.lists(st.integers(0, 1), min_size=count, max_size=count).map(bytes),
    )
)
settings = st.builds(Sgd, rates)
steps = st.builds(Step, st.none() | batches, settings)
schedules = st.builds(
    Schedule, st.sampled_from([Shape.LINEAR, Shape.COSINE]), rates, st.integers(0, 1)
) | st.builds(Schedule, st.just(Shape.CONSTANT), st.none(), st.integers(0, 1))
trains = st.builds(
    Train,
    st.integers(1, 10**6),
    settings,
    st.integers(1, 12396),
    seeds,
    st.none() | st.text(min_size=1, max_size=128),
    schedules,
    st.none() | st.builds(EarlyStopping, st.integers(1, 10**6), st.floats(0, 1e9)),
)
initializes = st.builds(Initialize, seeds, st.floats(0, 100))
finite = st.floats(allow_nan=False, allow_infinity=False)


def transmit(message: Any) -> Any:
    """Return a message as it arrives: serialized and parsed."""
    return type(message).FromString(message.SerializeToString())


@given(steps)
def test_step(step: Step) -> None:
    batch = pb.Batch(**vars(step.batch)) if step.batch else None
    message = pb.StepRequest(batch=batch, learning_rate=step.sgd.learning_rate)
    assert requests.parse_step(transmit(message)) == step


@given(trains)
def test_train(train: Train) -> None:
    message = pb.TrainRequest(
        epochs=train.epochs,
        learning_rate=train.sgd.learning_rate,
        batch_size=train.batch_size,
        seed=train.seed,
        name=train.name,
        schedule=responses.SCHEDULES[train.schedule.shape],
        final_learning_rate=train.schedule.final_rate,
        warmup_epochs=train.schedule.warmup_epochs,
        patience=train.early_stopping.patience if train.early_stopping else None,
        min_delta=train.early_stopping.min_delta if train.early_stopping else None,
    )
    assert requests.parse_train(transmit(message)) == train
    # The message of a run has the settings by the same names.
    listed = transmit(responses.queued_run_message(QueuedRun(3, "id", train)))
    for field in message.DESCRIPTOR.fields:
        if field.name not in {"request_id", "coalesce"}:
            assert getattr(listed, field.name) == getattr(message, field.name), field.name


@given(trains)
def test_the_settings_of_a_run_are_stored(train: Train) -> None:
    assert train_from_json(train_to_json(train)) == train


@given(initializes)
def test_initialize(initialize: Initialize) -> None:
    assert (
        requests.parse_initialize(transmit(pb.InitializeRequest(**vars(initialize)))) == initialize
    )


def test_unset_fields_have_the_contracts_defaults() -> None:
    assert requests.parse_step(pb.StepRequest()) == Step(None, Sgd(1.0))
    assert requests.parse_train(pb.TrainRequest(epochs=3)) == Train(3, Sgd(1.0), 256, 42)
    assert requests.parse_initialize(pb.InitializeRequest()) == Initialize(42, 1.0)
    assert requests.parse_request_id(pb.StepRequest()) is None
    assert requests.parse_version(pb.GetModelRequest()) is None


def test_an_explicit_zero_is_used_as_given() -> None:
    assert requests.parse_initialize(pb.InitializeRequest(seed=0, std=0.0)) == Initialize(0, 0.0)
    assert requests.parse_version(pb.GetModelRequest(version=0)) == 0
    with pytest.raises(InvalidArgument, match="learning_rate: got 0; must be above 0"):
        requests.parse_step(pb.StepRequest(learning_rate=0))


@given(batches)
def test_examples(batch: Batch) -> None:
    message = pb.Batch(pixels=batch.pixels, labels=batch.labels)
    assert requests.parse_examples(transmit(pb.GetLossRequest(batch=message))) == batch
    assert requests.parse_examples(transmit(pb.GetLossRequest(split=pb.SPLIT_TRAIN))) is Split.TRAIN
    assert requests.parse_examples(transmit(pb.GetLossRequest(split=pb.SPLIT_VALID))) is Split.VALID


@given(
    st.builds(
        Progress,
        st.integers(1, 10**6),
        st.integers(1, 10**6),
        finite,
        finite,
        finite,
        st.integers(0, 2**63),
        st.floats(0, 10**9),
        st.integers(0, 2**63),
        st.integers(0, 10**6),
        st.booleans(),
    )
)
def test_progress(answer: Progress) -> None:
    message = transmit(responses.progress_message(answer))
    found = {name: getattr(message, name) for name in Progress._fields if name != "elapsed"}
    assert found == {k: v for k, v in answer._asdict().items() if k != "elapsed"}
    assert message.elapsed.ToNanoseconds() == pytest.approx(answer.elapsed * 1e9, abs=1)


@given(st.binary(min_size=784, max_size=784), st.binary(min_size=784, max_size=784))
def test_pixels_are_rows(first: bytes, second: bytes) -> None:
    images = view_images(first + second)
    assert images.shape == (2, 784)
    assert [row.tobytes() for row in images] == [first, second]


@given(steps | trains | initializes, steps | trains | initializes)
def test_fingerprints_tell_requests_apart(a: Any, b: Any) -> None:
    assert a.fingerprint == a.fingerprint
    assert (a.fingerprint == b.fingerprint) == (a == b)


def test_a_result_is_restored_from_stored_values() -> None:
    answer = Progress(1, 2, 0.3, 0.4, 0.5, 6, 0.7, 8, 1, True)
    assert result_from_values(Train(2), list(values_of(answer))) == answer
    assert result_from_values(Train(2), list(answer[:7])) == Progress(*answer[:7])


def test_equal_steps_without_a_batch_are_one_object() -> None:
    first, again = (requests.parse_step(pb.StepRequest(learning_rate=0.5)) for _ in range(2))
    assert first is again, "its fingerprint must be computed once only"
    assert requests.parse_step(pb.StepRequest(learning_rate=0.25)) == Step(None, Sgd(0.25))
