"""Tests of `mnist37 cluster` with a Ray of its own: where it listens, its commands and its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mnist37_client import Client, Unauthenticated
from mnist37_cluster.connection import listeners
from mnist37_server.errors import CannotStart
from support import guarding
from support.both_clients import IMAGES
from support.cluster_command import COMMAND, ClusterCommand, is_running, wait_until_ended
from support.following import Server
from support.scraping import wait_until


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterCommand]:
    with ClusterCommand(tmp_path_factory.mktemp("cluster"), "--replicas", "2") as command:
        yield command
        command.end()


def ray_of(command: ClusterCommand) -> str:
    return command.lines[0].split()[1].rstrip(",")


def descendants(command: ClusterCommand) -> list[int]:
    return [each.pid for each in psutil.Process(command.process.pid).children(recursive=True)]


def test_ray_listens_on_loopback_alone(command: ClusterCommand) -> None:
    found = listeners.find_listeners(command.process.pid)
    assert {each.host for each in found} == {"127.0.0.1"}
    said = {line.split()[3] for line in command.lines if line.startswith("ray listens on ")}
    assert {f"{each.host}:{each.port}" for each in found} & said
    assert ray_of(command) in said
    # No dashboard, and no agent of it that answers HTTP.
    assert not [each for each in found if each.port in (8265, 52365)]


def test_ray_refuses_who_has_no_token(command: ClusterCommand, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_")
    } | {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    for token in ("", "0" * 64):
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
        process = subprocess.run(
            [*COMMAND, "status", "--ray", ray_of(command)],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert process.returncode == 2
        assert "mnist37 cluster: --ray: " in process.stderr
        assert "Traceback" not in process.stderr


def test_a_record_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = subprocess.run(
        [*COMMAND, "--replicas", "1"],
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 2
    assert "XDG_STATE_HOME: no folder for the record of a cluster can be made: " in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_the_state_is_shown(command: ClusterCommand) -> None:
    with Client(command.owner) as client:
        version = client.step().version
        assert wait_until(
            lambda: [each.version for each in client.followers()] == [version] * 2, 30
        )
        addresses = {each.address for each in client.followers()}
    state = command.status()
    assert state["owner"]["address"] == command.owner
    assert [each["name"] for each in state["replicas"]] == ["follower-1", "follower-2"]
    assert {each["address"] for each in state["replicas"]} == addresses
    assert {each["version"] for each in state["replicas"]} == {version}
    (node,) = state["nodes"]
    assert {each["node"] for each in (state["owner"], *state["replicas"])} == {node["node"]}
    shown = command.call("status", "--ray", ray_of(command)).stdout
    assert re.search(rf"^owner  {command.owner}  node ", shown, re.MULTILINE)
    for each in state["replicas"]:
        assert f"{each['name']}  {each['address']}  node" in shown
    assert f"version {version}  age 0.0 s" in shown


def test_a_follower_is_away_for_a_moment(command: ClusterCommand) -> None:
    before = {each["name"]: each["pid"] for each in command.status()["replicas"]}
    os.kill(before["follower-2"], signal.SIGKILL)

    def is_back() -> bool:
        found = {each["name"]: each["pid"] for each in command.status()["replicas"]}
        assert found["follower-1"] == before["follower-1"]
        return found["follower-2"] not in (None, before["follower-2"])

    assert wait_until(is_back, 120)


def test_followers_restart_one_after_the_other(command: ClusterCommand) -> None:
    before = command.status()
    with Client(command.owner, replicas="owner") as client:
        fewest = 2
        process = subprocess.Popen(
            [*COMMAND, "restart", "--ray", ray_of(command)],
            env=command.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None:
            client.predict(IMAGES[0])
            fewest = min(fewest, len(client.followers()))
        lines, _ = process.communicate()
    assert process.returncode == 0
    assert fewest == 1
    after = command.status()
    assert after["owner"] == before["owner"]
    old, new = ([each["pid"] for each in state["replicas"]] for state in (before, after))
    assert not set(old) & set(new)
    shown = [line.split()[:2] for line in lines.splitlines()]
    assert shown == [[each["name"], each["address"]] for each in after["replicas"]]


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    with Server("--device", "cpu") as owner:
        options = ("--replicas", "1", "--owner", owner.address)
        with ClusterCommand(tmp_path, *options, has_owner=False) as command:
            state = command.status()
            assert state["owner"]["note"] == "outside Ray"
            with Client(owner.address) as client:
                assert len(client.followers()) == 1
            pids = descendants(command)
            folder = ray_folder(command)
            assert folder.exists()
            assert folder.stat().st_mode & 0o077 == 0
            assert command.end() == 0
        wait_until_ended(*pids)
        assert not folder.exists()
        assert not list((tmp_path / "home").rglob("*.json"))
        assert is_running(owner.process.pid)


def test_servers_behind_tls_and_tokens(pki: Path, tmp_path: Path) -> None:
    tokens = guarding.tokens_file(tmp_path / "tokens", *guarding.ROLES)
    token = guarding.token_file(tmp_path, "follow")
    files = {
        "--owner-tls-ca": pki / "ca.pem",
        "--owner-tls-cert": pki / "client.pem",
        "--owner-tls-key": pki / "client.key",
        "--owner-token-file": token,
    }
    flags = [str(part) for flag in files.items() for part in flag]
    guards = guarding.guards(pki, tokens)
    access: dict[str, Any] = {
        "tls_ca": pki / "ca.pem",
        "tls_cert": pki / "client.pem",
        "tls_key": pki / "client.key",
        "tls_server_name": "localhost",
        "token": guarding.secret("train"),
    }
    with ClusterCommand(tmp_path, "--replicas", "1", *guards, *flags) as command:
        with Client(command.owner, replicas="owner", **access) as client:
            version = client.step().version
            assert client.predict(IMAGES[0]).version == version
        (replica,) = command.status()["replicas"]
        assert replica["version"] == version
        # The follower asks for a token too, and nobody finds one in the log.
        with (
            pytest.raises(Unauthenticated),
            Client(None, replicas=replica["address"], **{**access, "token": None}) as stranger,
        ):
            stranger.predict(IMAGES[0])
        assert command.end() == 0
        assert "secret-of" not in command.log.read_text()


def ray_folder(command: ClusterCommand) -> Path:
    """Return the folder of the Ray that a command has started."""
    for each in psutil.Process(command.process.pid).children():
        for word in each.cmdline():
            if found := re.search(r"/tmp/mnist37-ray-\w+", word):
                return Path(found[0])
    raise AssertionError("no process of Ray has a folder")


def test_nothing_outlives_a_command_that_is_killed(tmp_path: Path) -> None:
    with ClusterCommand(tmp_path, "--replicas", "1", "--front") as command:
        with Client(command.owner) as client:
            assert [each.address for each in client.followers()] == [
                each["address"] for each in command.status()["replicas"]
            ]
        pids = descendants(command)
        assert len(pids) > 6
        state, folder = command.status(), ray_folder(command)
        command.process.kill()
        wait_until_ended(*(each["pid"] for each in (state["owner"], *state["replicas"])))
        wait_until_ended(*pids)  # two agents of Ray look for the others for a minute and a half
        assert folder.exists()
        # The record of the dead command counts no more.
        process = command.call("status")
        assert process.returncode == 2
        assert "--ray: missing; this user runs no `mnist37 cluster`" in process.stderr
        assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--replicas", "0"], "'--replicas': 0 is not in the range 1<=x<=64"),
        ([], "Missing option '--replicas'"),
        (["--replicas", "1", "--tls-key", "key.pem"], "--tls-key: needs --tls-cert too"),
        (["--replicas", "1", "--address", "192.0.2.1:0"], "--address: cannot listen on"),
        (["--replicas", "1", "--ray", "127.0.0.1:1"], "--ray: no Ray listens at 127.0.0.1:1: Conn"),
        (["--replicas", "1", "--ray", "auto"], "--ray: got 'auto'; must be HOST:PORT"),
        (["--replicas", "1", "--state", "/proc/none"], "owner does not start on the node"),
        (["status"], "--ray: missing; this user runs no `mnist37 cluster` here"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: list[str], text: str) -> None:
    address = [] if {"--address", "status"} & {*options} else ["--address", "127.0.0.1:0"]
    process = subprocess.run(
        [*COMMAND, *options, *address],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 2
    assert process.stdout.count("ray listens") == 0 or "owner" in text
    last = process.stderr.splitlines()[-1]
    assert last.startswith("mnist37 cluster: ")
    assert text in last
    assert "Traceback" not in process.stderr


def test_a_socket_that_other_machines_reach_is_refused() -> None:
    code = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1]); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = [each for each in listeners.find_listeners() if each.port == port]
        process.kill()
    (open_one,) = found
    assert open_one.host == "0.0.0.0"
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert listeners.Listener("this process", "127.0.0.1", port) in listeners.find_listeners()
    listeners.check_unreachable(found, listeners.other_addresses())  # here there is only lo
    local = listeners.Listener("raylet", "127.0.0.1", 1)
    listeners.check_unreachable([local], ["192.0.2.2"])
    with pytest.raises(CannotStart, match=rf"0\.0\.0\.0:{open_one.port} .*192\.0\.2\.2.*unshare"):
        listeners.check_unreachable([local, open_one], ["192.0.2.2"])
