"""Messages to requests and back: what was said is what is understood."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.commands import (
    Batch,
    Initialize,
    Progress,
    Step,
    Train,
    answer_to,
    images_of,
)
from mnist37_server.engine.live_model import Split
from mnist37_server.errors import InvalidArgument
from mnist37_server.services import converters

rates = st.floats(0, 3e38, exclude_min=True)
seeds = st.integers(0, 2**64 - 1)
batches = st.integers(1, 5).flatmap(
    lambda count: st.builds(
        Batch,
        st.binary(min_size=784 * count, max_size=784 * count),
        st.lists(st.integers(0, 1), min_size=count, max_size=count).map(bytes),
    )
)
steps = st.builds(Step, st.none() | batches, rates)
trains = st.builds(Train, st.integers(1, 10**6), rates, st.integers(1, 12396), seeds)
initializes = st.builds(Initialize, seeds, st.floats(0, 100))
finite = st.floats(allow_nan=False, allow_infinity=False)


def sent(message: Any) -> Any:
    """As it arrives."""
    return type(message).FromString(message.SerializeToString())


@given(steps)
def test_step(step: Step) -> None:
    batch = pb.Batch(**vars(step.batch)) if step.batch else None
    assert (
        converters.step(sent(pb.StepRequest(batch=batch, learning_rate=step.learning_rate))) == step
    )


@given(trains)
def test_train(train: Train) -> None:
    assert converters.train(sent(pb.TrainRequest(**vars(train)))) == train


@given(initializes)
def test_initialize(initialize: Initialize) -> None:
    assert converters.initialize(sent(pb.InitializeRequest(**vars(initialize)))) == initialize


def test_what_is_unset_is_the_contracts_default() -> None:
    assert converters.step(pb.StepRequest()) == Step(None, 1.0)
    assert converters.train(pb.TrainRequest(epochs=3)) == Train(3, 1.0, 256, 42)
    assert converters.initialize(pb.InitializeRequest()) == Initialize(42, 1.0)
    assert converters.request_id(pb.StepRequest()) is None
    assert converters.version(pb.GetModelRequest()) is None


def test_a_zero_that_was_set_is_no_default() -> None:
    assert converters.initialize(pb.InitializeRequest(seed=0, std=0.0)) == Initialize(0, 0.0)
    assert converters.version(pb.GetModelRequest(version=0)) == 0
    with pytest.raises(InvalidArgument, match="learning_rate: got 0; must be above 0"):
        converters.step(pb.StepRequest(learning_rate=0))


@given(batches)
def test_examples(batch: Batch) -> None:
    message = pb.Batch(pixels=batch.pixels, labels=batch.labels)
    assert converters.examples(sent(pb.GetLossRequest(batch=message))) == batch
    assert converters.examples(sent(pb.GetLossRequest(split=pb.SPLIT_TRAIN))) is Split.TRAIN
    assert converters.examples(sent(pb.GetLossRequest(split=pb.SPLIT_VALID))) is Split.VALID


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
    message = sent(converters.progress(answer))
    found = {name: getattr(message, name) for name in Progress._fields if name != "elapsed"}
    assert found == {k: v for k, v in answer._asdict().items() if k != "elapsed"}
    assert message.elapsed.ToNanoseconds() == pytest.approx(answer.elapsed * 1e9, abs=1)


@given(st.binary(min_size=784, max_size=784), st.binary(min_size=784, max_size=784))
def test_pixels_are_rows(first: bytes, second: bytes) -> None:
    images = images_of(first + second)
    assert images.shape == (2, 784)
    assert [row.tobytes() for row in images] == [first, second]


@given(steps | trains | initializes, steps | trains | initializes)
def test_fingerprints_tell_requests_apart(a: Any, b: Any) -> None:
    assert a.fingerprint == a.fingerprint
    assert (a.fingerprint == b.fingerprint) == (a == b)


def test_an_answer_is_made_of_what_was_remembered() -> None:
    answer = Progress(1, 2, 0.3, 0.4, 0.5, 6, 0.7)
    assert answer_to(Train(2), list(answer)) == answer


@pytest.mark.parametrize(
    ("request_", "mark"),
    [
        (Step(), "d6e6d287c84ecafb03823b9a253106c8b292c5d0a271d10720407ad7ac9bc62e"),
        (
            Step(Batch(bytes(784), b"\1"), 0.5),
            "21bce3801c49b5788a98bd11ceab7822768b77a2b9e181f87d314f391a9371d3",
        ),
        (
            Train(epochs=3, seed=7),
            "752c57fa32130205feced508ae5f84d616b420c172c097027a28f8dbb250874a",
        ),
        (Initialize(), "f7fca862e011ea2f5f11e66468f09031fa0ace967cda6cd9583dac5cb1c09464"),
    ],
)
def test_fingerprints_stay_as_databases_have_them(request_: Any, mark: str) -> None:
    assert request_.fingerprint.hex() == mark


def test_one_step_without_a_batch_is_like_another() -> None:
    first, again = (converters.step(pb.StepRequest(learning_rate=0.5)) for _ in range(2))
    assert first is again, "so its fingerprint is there already"
    assert converters.step(pb.StepRequest(learning_rate=0.25)) == Step(None, 0.25)
