"""Tests of the wait for an actor's server, without Ray."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mnist37_cluster.actors import Placement
from mnist37_cluster.settings import ClusterSettings

FIRST = Placement("follower-1", "node-1", "192.0.2.1", "192.0.2.1:40001", 7)


@pytest.fixture
def placement(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module, also where Ray is not installed, and psutil, which is for Ray alone."""
    if find_spec("psutil") is None:
        monkeypatch.setitem(sys.modules, "psutil", ModuleType("psutil"))
    return importlib.import_module("mnist37_cluster.placement")


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_server_is_asked_as_it_listens(
    placement: Any, monkeypatch: pytest.MonkeyPatch, has_tls: bool
) -> None:
    """Ask a follower in plain text where the owner outside Ray alone speaks TLS."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(placement.health, "check", lambda _, **tls: asked.append(tls))
    ca, cert = Path("/ca"), Path("/cert")
    settings = ClusterSettings(1, owner="192.0.2.9:1", owner_tls_ca=ca)
    if has_tls:
        settings = replace(settings, tls_cert=cert, tls_key=cert)
    assert placement.is_serving(FIRST, settings)
    assert [tls.get("tls_ca") for tls in asked] == [ca if has_tls else None]


def test_a_server_that_was_started_again_may_have_the_number_of_the_one_before(
    placement: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = replace(FIRST, node="node-2", host="192.0.2.2", address="192.0.2.2:40001")
    found = iter([FIRST, None, second])
    monkeypatch.setattr(placement, "where", lambda _: next(found))
    monkeypatch.setattr(placement, "is_serving", lambda *_: True)
    settings = ClusterSettings(1)
    assert second == placement.wait_until_serving(
        None, "follower-1", settings, lambda: False, FIRST
    )
