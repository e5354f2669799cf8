"""Tests of fingerprints, which are stored with request_ids and so must never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from mnist37_server.domain.commands import (
    Fingerprinted,
    Import,
    Initialize,
    Request,
    Restore,
    Step,
    Train,
)
from mnist37_server.domain.examples import Batch

from mnist37.optimizer import Sgd

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
        name: str = ""

        def hashed_fields(self) -> tuple[str, dict[str, object]]:
            method, values = super().hashed_fields()
            return method, values | self.added_fields(name=(self.name, ""))

    assert Later(3, seed=7).fingerprint == Train(3, seed=7).fingerprint
    assert Later(3, seed=7, name="monday").fingerprint != Train(3, seed=7).fingerprint
