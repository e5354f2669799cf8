"""Tests of the conversions from messages to commands and from results to messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.commands import Initialize, Step, Train
from mnist37_server.domain.examples import Batch, Split, view_images
from mnist37_server.domain.results import Progress, result_from_values
from mnist37_server.errors import InvalidArgument
from mnist37_server.services import converters

from mnist37.optimizer import Sgd

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
trains = st.builds(Train, st.integers(1, 10**6), settings, st.integers(1, 12396), seeds)
initializes = st.builds(Initialize, seeds, st.floats(0, 100))
finite = st.floats(allow_nan=False, allow_infinity=False)


def transmit(message: Any) -> Any:
    """Return a message as it arrives: serialized and parsed."""
    return type(message).FromString(message.SerializeToString())


@given(steps)
def test_step(step: Step) -> None:
    batch = pb.Batch(**vars(step.batch)) if step.batch else None
    message = pb.StepRequest(batch=batch, learning_rate=step.sgd.learning_rate)
    assert converters.parse_step(transmit(message)) == step


@given(trains)
def test_train(train: Train) -> None:
    message = pb.TrainRequest(
        epochs=train.epochs,
        learning_rate=train.sgd.learning_rate,
        batch_size=train.batch_size,
        seed=train.seed,
    )
    assert converters.parse_train(transmit(message)) == train


@given(initializes)
def test_initialize(initialize: Initialize) -> None:
    assert (
        converters.parse_initialize(transmit(pb.InitializeRequest(**vars(initialize))))
        == initialize
    )


def test_unset_fields_have_the_contracts_defaults() -> None:
    assert converters.parse_step(pb.StepRequest()) == Step(None, Sgd(1.0))
    assert converters.parse_train(pb.TrainRequest(epochs=3)) == Train(3, Sgd(1.0), 256, 42)
    assert converters.parse_initialize(pb.InitializeRequest()) == Initialize(42, 1.0)
    assert converters.parse_request_id(pb.StepRequest()) is None
    assert converters.parse_version(pb.GetModelRequest()) is None


def test_an_explicit_zero_is_used_as_given() -> None:
    assert converters.parse_initialize(pb.InitializeRequest(seed=0, std=0.0)) == Initialize(0, 0.0)
    assert converters.parse_version(pb.GetModelRequest(version=0)) == 0
    with pytest.raises(InvalidArgument, match="learning_rate: got 0; must be above 0"):
        converters.parse_step(pb.StepRequest(learning_rate=0))


@given(batches)
def test_examples(batch: Batch) -> None:
    message = pb.Batch(pixels=batch.pixels, labels=batch.labels)
    assert converters.parse_examples(transmit(pb.GetLossRequest(batch=message))) == batch
    assert (
        converters.parse_examples(transmit(pb.GetLossRequest(split=pb.SPLIT_TRAIN))) is Split.TRAIN
    )
    assert (
        converters.parse_examples(transmit(pb.GetLossRequest(split=pb.SPLIT_VALID))) is Split.VALID
    )


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
    )
)
def test_progress(answer: Progress) -> None:
    message = transmit(converters.progress_message(answer))
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
    answer = Progress(1, 2, 0.3, 0.4, 0.5, 6, 0.7)
    assert result_from_values(Train(2), list(answer)) == answer


def test_equal_steps_without_a_batch_are_one_object() -> None:
    first, again = (converters.parse_step(pb.StepRequest(learning_rate=0.5)) for _ in range(2))
    assert first is again, "its fingerprint must be computed once only"
    assert converters.parse_step(pb.StepRequest(learning_rate=0.25)) == Step(None, Sgd(0.25))
