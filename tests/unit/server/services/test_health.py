"""Tests of a watch of the health whose caller leaves at the wrong moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from grpc_health.v1 import health_pb2
from mnist37_server.services.health import Health


def test_a_watch_ends_at_once_if_its_call_ended_before_it_asked_to_be_told() -> None:
    service = Health([], ThreadPoolExecutor(1), "cpu")
    active = iter([True])  # when the call begins, and never again
    left: Any = SimpleNamespace(
        time_remaining=lambda: 60.0,
        is_active=lambda: next(active, False),
        add_callback=lambda _: False,
        peer=lambda: "ipv4:127.0.0.1:50000",
    )
    ended = threading.Event()

    def call() -> None:
        list(service.Watch(health_pb2.HealthCheckRequest(), left))
        ended.set()

    threading.Thread(target=call, daemon=True).start()
    assert ended.wait(20), "the thread waits for changes that nobody reads"
