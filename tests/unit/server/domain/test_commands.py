"""Tests of fingerprints, which are stored with request_ids and so must never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from mnist37_server.domain.commands.commands import (
    DeleteTag,
    Import,
    Initialize,
    Request,
    Restore,
    Step,
    TagVersion,
)
from mnist37_server.domain.commands.fingerprint import Fingerprinted
from mnist37_server.domain.commands.train import EarlyStopping, Train
from mnist37_server.domain.examples import Batch

from mnist37.optimizer import Sgd
from mnist37.schedule import Schedule, Shape

GOLDEN: list[tuple[Request, str]] = [
    (Step(), "d6e6d287c84ecafb03823b9a253106c8b292c5d0a271d10720407ad7ac9bc62e"),
    (
        Step(Batch(bytes(784), b"\1"), Sgd(0.5)),
        "21bce3801c49b5788a98bd11ceab7822768b77a2b9e181f87d314f391a9371d3",
    ),
    (
        Train(epochs=3, seed=7),
        "752c57fa32130205feced508ae5f84d616b420c172c097027a28f8dbb250874a",
    ),
    (Initialize(), "f7fca862e011ea2f5f11e66468f09031fa0ace967cda6cd9583dac5cb1c09464"),
    (Restore(37), "497e922f9b825a4ad781f7000f17d3ddabd6474e5c51851e5b96e393128ac13c"),
    (
        Import(np.linspace(-1, 1, 784).astype("<f4").tobytes(), 0.25),
        "a2b294cec8c14de3224b3e5608ee5d17a316206b701fa7bd5da150c3509b4d4e",
    ),
    (
        Train(
            3,
            seed=7,
            name="cosine",
            schedule=Schedule(Shape.COSINE, final_rate=0.1, warmup_epochs=1),
            early_stopping=EarlyStopping(patience=2, min_delta=0.001),
        ),
        "036b74335d3c7614a2fd1641c78722329ce6416068387fe7a32070f74619ffe0",
    ),
    (Restore("best@7"), "71eaf58d11cb46e9800f98c5ce44fea9bc98ee08d71bbab416ae241c4e53ebb7"),
    (TagVersion("monday"), "79fd337fbbaf9f26054e3b60e7e51a69c39018da98e4156c4e2bd3ed56b6498f"),
    (TagVersion("monday", 37), "b6c355b2da504bb6ae764f86742a50ffc099186cc42e3ff1a0c63a4895b40b01"),
    (
        TagVersion("monday", "best@7"),
        "3754add6fcc69b6b3f9bfbf1e8cdb031a830aa9bf94d5dd973641ab5c47a3ea5",
    ),
    (DeleteTag("monday"), "4b36add2e632d65f94f3c0dbdee4fff893ef088454079352bd677fe43ff51292"),
]


@pytest.mark.parametrize(("request_", "fingerprint"), GOLDEN)
def test_fingerprints_equal_those_in_databases(request_: Request, fingerprint: str) -> None:
    assert request_.fingerprint.hex() == fingerprint


def test_every_kind_of_write_has_a_golden_fingerprint() -> None:
    assert {type(request_) for request_, _ in GOLDEN} == set(Fingerprinted.__subclasses__())


def test_a_class_may_be_renamed() -> None:
    class Renamed(Train):
        pass

    assert Renamed(3, seed=7).fingerprint == Train(3, seed=7).fingerprint


def test_an_added_field_changes_the_fingerprint_only_if_it_is_not_the_default() -> None:
    # A later release may add a field; a request from before must keep its fingerprint.

    @dataclass(frozen=True)
    class Later(Train):
        colour: str = ""

        def hashed_fields(self) -> tuple[str, dict[str, object]]:
            method, values = super().hashed_fields()
            return method, values | self.added_fields(colour=(self.colour, ""))

    assert Later(3, seed=7).fingerprint == Train(3, seed=7).fingerprint
    assert Later(3, seed=7, colour="red").fingerprint != Train(3, seed=7).fingerprint
