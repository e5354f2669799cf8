"""A real server for the tests to talk to: one of their own, or the one at MNIST37_ADDRESS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import trustme
from mnist37_client import Client
from mnist37_client.local_server import LocalServer

# Where there is no CUDA device, Triton's interpreter runs the kernels; read as they are imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of a server that the tests share: what a test needs of the model's state, it sets itself."""
    if "MNIST37_ADDRESS" in os.environ:
        yield os.environ["MNIST37_ADDRESS"]
        return
    with LocalServer() as server:
        yield server.address


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, and certificates and keys in PEM that they have signed."""
    folder = tmp_path_factory.mktemp("pki")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    theirs.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, certificate in (
        ("server", ours.issue_cert("localhost", "127.0.0.1")),
        ("client", ours.issue_cert("client")),
        ("stranger", theirs.issue_cert("client")),
    ):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    (folder / "garbage").write_text("no PEM")
    return folder


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of the shared server, its parameters freshly drawn from seed 42."""
    with Client(address) as client:
        client.initialize()
        yield client


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of the test's own, at version 0."""
    with LocalServer("--device", "cpu") as server:
        yield server
