"""Fixtures of all tests: a real server, started by the tests or the one at MNIST37_ADDRESS."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import trustme
from mnist37_client import Client
from mnist37_client.local_server import LocalServer

# Without a CUDA device, Triton's interpreter runs the kernels. Triton reads this at its import.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _no_server_in_this_process() -> Iterator[None]:
    """Check that no test prepares its own process for a server: children would inherit that."""
    before = os.environ.get("GRPC_TRACE")
    yield
    assert os.environ.get("GRPC_TRACE") == before


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Return the address of a server that the tests share.

    A test sets the state of the model that it needs.
    """
    if "MNIST37_ADDRESS" in os.environ:
        yield os.environ["MNIST37_ADDRESS"]
        return
    with LocalServer() as server:
        yield server.address


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two certificate authorities, and certificates and keys they signed.

    All files are PEM, except `garbage`.
    """
    folder = tmp_path_factory.mktemp("pki")
    authority, other_authority = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other_authority.cert_pem.write_to_path(folder / "other-ca.pem")
    for name, certificate in (
        ("server", authority.issue_cert("localhost", "127.0.0.1")),
        ("client", authority.issue_cert("client")),
        ("stranger", other_authority.issue_cert("client")),
    ):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    (folder / "garbage").write_text("no PEM")
    return folder


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder that is TMPDIR too; its path is short enough for files of sockets."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked up once
        yield Path(name)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """Return a client of the shared server, after Initialize with seed 42."""
    with Client(address) as client:
        client.initialize()
        yield client


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Start a server for one test, at version 0."""
    with LocalServer("--device", "cpu") as server:
        yield server
