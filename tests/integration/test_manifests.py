"""Tests of what the manifests of Kubernetes run: it starts, is ready, and lets in whom it should.

The processes get the arguments, variables and files of the manifests, at loopback addresses.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import trustme
from mnist37_client import Client, PermissionDenied, Unauthenticated, Unavailable, validation_images
from mnist37_client.local_server import UNWANTED_VARIABLES
from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess
from mnist37_front.command import front
from mnist37_server.command_line import main as serve
from support.deployment import FILES, Deployment, Pod
from support.fronted import missing
from support.guarding import ROLES, secret, tokens_file
from support.pages import ROOT
from support.scraping import wait_until
from support.settings import parse

IMAGE = validation_images()[0][0]
PODS = {
    pod.where.removeprefix("docs/"): pod
    for pod in Deployment({name: (ROOT / name).read_text() for name in FILES}).pods
}
SERVER = PODS["kubernetes.yaml: mnist37"]
FOLLOWER = PODS["kubernetes-follower.yaml: mnist37-follower"]
FRONT = PODS["kubernetes-front.yaml: mnist37-front"]
FRONT_TLS = PODS["kubernetes-front-tls.yaml: mnist37-front"]
MODULES: dict[click.Command | None, str] = {serve: "mnist37_server", front: "mnist37_front"}
OURS = {name: pod for name, pod in PODS.items() if pod.command in MODULES}  # and not web's


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Node:
    """A folder with the files of all Secrets, and the processes that pods would run.

    Args:
        folder: where `/etc` is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        for name in ("mnist37", "mnist37-front", "mnist37-follower", "mnist37-clients"):
            secret_folder = folder / "etc" / name
            secret_folder.mkdir(parents=True)
            authority.cert_pem.write_to_path(str(secret_folder / "ca.crt"))
            issued = authority.issue_cert(name, "127.0.0.1")
            issued.private_key_pem.write_to_path(str(secret_folder / "tls.key"))
            issued.cert_chain_pems[0].write_to_path(str(secret_folder / "tls.crt"))
            (secret_folder / "token").write_text(secret("follow"))
            (secret_folder / "page-token").write_text(secret("predict"))
            (secret_folder / "password").write_text("a password of the page")
        tokens_file(folder / "etc/mnist37/tokens", *ROLES)
        self.server = "mnist37:50051"

    def path(self, name: str) -> str:
        return str(self.folder / "etc" / name)

    def at_home(self, text: str) -> str:
        """Return an argument or a value with this node's files and addresses."""
        text = text.replace("/etc/", f"{self.folder}/etc/").replace("$(POD_IP)", "127.0.0.1")
        return text.replace("mnist37:50051", self.server)

    def arguments(self, pod: Pod) -> list[str]:
        return [self.at_home(argument) for argument in pod.container["args"]]

    def environment(self, pod: Pod) -> dict[str, str]:
        return {
            each["name"]: self.at_home(each["value"])
            for each in pod.container.get("env", [])
            if "value" in each
        }

    @contextmanager
    def running(self, pod: Pod, *more: str) -> Iterator[str]:
        """Run what a pod runs; yield its address when its probes succeed."""
        metrics = free_port()
        arguments = [*self.arguments(pod), f"--metrics-address=127.0.0.1:{metrics}", *more]
        line = (*python_process.command(MODULES[pod.command]), *arguments, "--address=127.0.0.1:0")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment(pod).items():
                patch.setenv(name, value)
            process = LocalProcess(pod.where, line, UNWANTED_VARIABLES)
        with process:
            assert wait_until(lambda: self.is_ready(pod, process.address), 30), pod.where
            probe = pod.container["livenessProbe"].get("httpGet")
            if probe is not None:
                url = f"http://127.0.0.1:{metrics}{probe['path']}"
                with urllib.request.urlopen(url, timeout=10) as answer:
                    assert b"mnist37_model_version" in answer.read()
            yield process.address

    def is_ready(self, pod: Pod, address: str) -> bool:
        """Return whether the probe of the pod's readiness succeeds."""
        _, *command = pod.container["readinessProbe"]["exec"]["command"]
        arguments = [self.at_home(each).replace("127.0.0.1:50051", address) for each in command]
        process = subprocess.run(
            [sys.executable, "-m", "mnist37_client.cli", *arguments],
            env=python_process.environment() | self.environment(pod),
            capture_output=True,
            check=False,
        )
        return process.returncode == 0

    def client(self, address: str | None, role: str, **settings: Any) -> Client:
        """Return a client with the token of a role."""
        return Client(address, tls_ca=self.path("mnist37/ca.crt"), token=secret(role), **settings)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Return a node on which the server runs."""
    node = Node(tmp_path)
    with node.running(SERVER, "--state=:memory:", "--device=cpu") as address:
        node.server = address
        yield node


@pytest.mark.parametrize("pod", OURS.values(), ids=OURS)
def test_the_settings_fit_together_where_other_machines_reach_the_port(
    pod: Pod, tmp_path: Path
) -> None:
    assert pod.command is not None
    node = Node(tmp_path)
    arguments = [*node.arguments(pod), "--address=0.0.0.0:50051"]  # the image's own
    settings = parse(pod.command, arguments, node.environment(pod))  # raises an error if not
    assert not settings.insecure


def test_a_follower_serves_and_is_listed_by_its_address(node: Node) -> None:
    with node.running(FOLLOWER) as address, node.client(node.server, "train") as owner:
        version = owner.step().version
        with node.client(None, "predict", replicas=address) as reader:
            assert wait_until(lambda: reader.predict(IMAGE).version == version)
        (follower,) = owner.followers()
        assert follower.address == "127.0.0.1:50051", "the address of the pod"
        with (
            Client(None, replicas=address, tls_ca=node.path("mnist37/ca.crt")) as stranger,
            pytest.raises(Unauthenticated),
        ):
            stranger.predict(IMAGE)


def test_a_front_serves_and_passes_writes_on(node: Node) -> None:
    if reason := missing():
        pytest.skip(reason)
    with node.running(FRONT) as address:
        with node.client(address, "train") as client:
            version = client.step().version
            assert client.predict(IMAGE).version >= version
        with node.client(address, "predict") as reader, pytest.raises(PermissionDenied):
            reader.step()


def test_the_patch_lets_a_front_ask_for_certificates(node: Node) -> None:
    if reason := missing():
        pytest.skip(reason)
    with node.running(FRONT_TLS) as address:
        files = {"tls_cert": "mnist37-clients/tls.crt", "tls_key": "mnist37-clients/tls.key"}
        own = {name: node.path(file) for name, file in files.items()}
        with node.client(address, "predict", **own) as reader:
            assert reader.predict(IMAGE).version == 0
        with (
            node.client(address, "predict", retry_for=0) as stranger,
            pytest.raises(Unavailable),
        ):
            stranger.predict(IMAGE)
