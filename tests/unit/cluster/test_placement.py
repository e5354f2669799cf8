"""Tests of the wait for an actor's server, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mnist37_cluster import placement
from mnist37_cluster.actors import Placement
from mnist37_cluster.settings import ClusterSettings

FIRST = Placement("follower-1", "node-1", "192.0.2.1", "192.0.2.1:40001", 7)


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_server_is_asked_as_it_listens(monkeypatch: pytest.MonkeyPatch, has_tls: bool) -> None:
    """Ask a follower in plain text where the owner outside Ray alone speaks TLS."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(placement.health, "check", lambda _, **tls: asked.append(tls))
    ca, cert = Path("/ca"), Path("/cert")
    settings = ClusterSettings(1, owner="192.0.2.9:1", owner_tls_ca=ca)
    if has_tls:
        settings = replace(settings, tls_cert=cert, tls_key=cert)
    assert placement.is_serving(FIRST, settings)
    assert [tls.get("tls_ca") for tls in asked] == [ca if has_tls else None]
