"""Tests of the services in a front."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from mnist37_front.app import Front
from mnist37_front.asgi.server import AsgiServer


def test_a_front_has_no_threads_of_the_server_which_would_get_no_call() -> None:
    front: Any = object.__new__(Front)
    front.grpc = AsgiServer(None, message_bytes_max=1, message_seconds_max=1)
    front.follower = SimpleNamespace(model=SimpleNamespace(device="cpu"))
    before = set(threading.enumerate())
    front._add_services()
    assert set(threading.enumerate()) == before
