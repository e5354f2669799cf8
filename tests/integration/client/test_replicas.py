"""Tests of clients with two real followers: kills, pauses and the loss of the owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from PIL import Image
from support.both_clients import IMAGES, AnyClient, MakeClient
from support.reading import reading

# What a read may take at most, on a machine that others use too; alone it is below 100 ms.
SLOWEST_SECONDS = 1.5


class Stack:
    """An owner and two followers of it, which the tests share and end."""

    def __init__(self, folder: Path) -> None:
        self._owner_options = ("--device", "cpu", "--state", str(folder))
        self.owner = LocalServer(*self._owner_options)
        self._follower_options = ("--device", "cpu", "--follow", self.owner.address)
        self.followers = [LocalServer(*self._follower_options) for _ in range(2)]
        self.replicas = [follower.address for follower in self.followers]

    def repair(self) -> None:
        """Start again what has ended, at the same addresses."""
        if self.owner.process.poll() is not None:
            self.owner = LocalServer(*self._owner_options, "--address", self.owner.address)
        for index, follower in enumerate(self.followers):
            if follower.process.poll() is not None:
                options = (*self._follower_options, "--address", follower.address)
                self.followers[index] = LocalServer(*options)

    def stop(self) -> None:
        for server in (*self.followers, self.owner):
            server.kill()


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("owner"))
    yield stack
    stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    shared_stack.repair()
    return shared_stack


def wait_for_followers(client: AnyClient, stack: Stack) -> None:
    """Wait until both have the newest version of the owner, which may have begun only now."""
    deadline = time.monotonic() + 10
    newest = client.get_model(fresh=True).version
    expected = {(address, newest) for address in stack.replicas}
    while {(found.address, found.version) for found in client.followers()} != expected:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_command(stack: Stack, *arguments: str) -> str:
    command = [sys.executable, "-m", "mnist37_client.cli", *arguments]
    environment = {**os.environ, "MNIST37_ADDRESS": stack.owner.address}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return process.stdout


def test_the_commands(stack: Stack) -> None:
    with Client(stack.owner.address) as client:
        version = client.step().version
        wait_for_followers(client, stack)
    lines = run_command(stack, "followers").splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(stack.replicas)
    objects = [json.loads(line) for line in run_command(stack, "followers", "--json").splitlines()]
    assert {each["address"] for each in objects} == set(stack.replicas)
    assert all(each["age"] >= 0 and each["start"] > 0 for each in objects)
    replicas = ("--replicas", ",".join(stack.replicas))
    assert f"version {version}" in run_command(stack, "model", *replicas)
    assert f"version {version}" in run_command(stack, "loss", *replicas)


def predict_command(address: str, picture: Path, *arguments: str) -> str:
    """Return what the command says of a picture, without waiting for a server that is away."""
    command = [sys.executable, "-m", "mnist37_client.cli", "predict", str(picture), *arguments]
    process = subprocess.run(
        command,
        env={**os.environ, "MNIST37_ADDRESS": address, "MNIST37_RETRY_FOR": "1000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert process.stderr == ""
    return process.stdout


def test_the_command_predict_needs_no_owner(stack: Stack, tmp_path: Path) -> None:
    with Client(stack.owner.address) as client:
        client.step()
        wait_for_followers(client, stack)
    picture = tmp_path / "digit.png"
    Image.fromarray(255 - IMAGES[0]).resize((280, 280)).save(picture)
    said = predict_command(stack.owner.address, picture)
    assert said.startswith(f"{picture}: ")
    assert predict_command(stack.replicas[0], picture) == said
    stack.owner.kill()
    assert predict_command(stack.replicas[0], picture) == said
    replicas = ("--replicas", ",".join(stack.replicas))
    assert predict_command(stack.owner.address, picture, *replicas) == said


def test_a_client_sees_its_writes_at_followers(make: MakeClient, stack: Stack) -> None:
    client = make(stack.owner.address, replicas=stack.replicas)
    client.initialize()
    wait_for_followers(client, stack)
    with reading(client):
        for _ in range(50):
            version = client.step().version
            assert client.predict(IMAGES[:3]).version == version
            assert client.get_loss("valid").version == version
        assert client.get_model().version == version
        assert [each.version for each in client.predict_stream([IMAGES[:2], IMAGES[0]])] == 2 * [
            version
        ]
        stack.owner.kill()
        stack.repair()
        version = client.step().version
        assert client.predict(IMAGES[0]).version == version


def test_the_kill_of_a_follower_is_not_noticed(make: MakeClient, stack: Stack) -> None:
    client = make(stack.owner.address, replicas=stack.replicas)
    with reading(client) as reader:
        time.sleep(0.3)
        stack.followers[0].kill()
        time.sleep(0.7)
    assert reader.slowest < SLOWEST_SECONDS


def test_a_paused_follower_fails_no_call(make: MakeClient, stack: Stack) -> None:
    client = make(stack.owner.address, replicas=stack.replicas)
    with reading(client) as reader:
        time.sleep(0.3)
        follower = stack.followers[0].process
        follower.send_signal(signal.SIGSTOP)
        try:
            time.sleep(3)
        finally:
            follower.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    assert reader.slowest < SLOWEST_SECONDS


def test_reads_go_on_without_the_owner(make: MakeClient, stack: Stack) -> None:
    client = make(stack.owner.address, replicas=stack.replicas)
    reader_only = make(None, replicas=stack.replicas)
    version = client.step().version
    wait_for_followers(client, stack)
    stack.owner.kill()
    for each in (client, reader_only):
        with reading(each) as reader:
            time.sleep(0.5)
        assert set(reader.versions) == {version}
