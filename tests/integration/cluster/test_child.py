"""Tests of a server as the child of a process, which it does not outlive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from mnist37_client import health
from mnist37_cluster.child import Child, ChildFailed, environment
from mnist37_cluster.settings import ClusterSettings
from support.cluster_command import is_running, wait_until_ended

IN_MEMORY = ClusterSettings(1, state=":memory:", device="cpu")
PARENT = """
import time
from mnist37_cluster.child import Child
from mnist37_cluster.settings import ClusterSettings
child = Child(ClusterSettings(1, state=":memory:", device="cpu").owner_command("127.0.0.1:0"))
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_server_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_until_ended(pid)


def test_a_server_ends_in_order() -> None:
    child = Child(IN_MEMORY.owner_command("127.0.0.1:0"))
    assert health.check(child.address) == "cpu"
    child.end()
    assert child.wait() == 0
    child.end()  # has no effect


def test_a_killed_server_is_noticed() -> None:
    child = Child(IN_MEMORY.owner_command("127.0.0.1:0"))
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_server_that_does_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildFailed, match="it ended with the status 2"):
        Child(IN_MEMORY.owner_command("nowhere"))
    assert "mnist37 serve: --address: got 'nowhere'" in capfd.readouterr().err


def test_the_options_of_a_server_are_those_of_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MNIST37_TOKENS", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "/secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/cache")
    found = environment()
    assert not {"MNIST37_TOKENS", "RAY_AUTH_TOKEN", "CUDA_VISIBLE_DEVICES"} & found.keys()
    assert found["NUMBA_CACHE_DIR"] == "/cache"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert environment()["CUDA_VISIBLE_DEVICES"] == "1"
