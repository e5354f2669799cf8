"""Tests of the certificates of a front, which are replaced while it serves."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from mnist37_client import Client, Mnist37Error, Unavailable, validation_images
from mnist37_client.local_server import LocalServer
from support.following import log_so_far
from support.fronted import Front, FrontedServer, is_serving
from support.scraping import wait_until

IMAGES, _ = validation_images()


class Certificates:
    """A folder as Kubernetes mounts a Secret: links into a folder that a link names.

    Args:
        folder: where the links are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self._count = 0
        self.ca = folder.with_name("ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        folder.mkdir()
        self.replace()
        for name in ("tls.crt", "tls.key", "callers.crt"):
            (folder / name).symlink_to(f"..data/{name}")

    def replace(self, callers: trustme.CA | None = None) -> int:
        """Have a new certificate at once, for callers of an authority; return its number."""
        self._count += 1
        content = self.folder / f"..{self._count}"
        content.mkdir()
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(content / "tls.key")
        issued.cert_chain_pems[0].write_to_path(content / "tls.crt")
        (callers or self.authority).cert_pem.write_to_path(content / "callers.crt")
        link = self.folder / "..new"
        link.symlink_to(content.name)
        link.replace(self.folder / "..data")
        return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of the server's certificate."""
        return ("--tls-cert", f"{self.folder}/tls.crt", "--tls-key", f"{self.folder}/tls.key")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "secret")


def served_number(address: str, context: ssl.SSLContext) -> int:
    """Return the number of the certificate that a server shows."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        content = encrypted.getpeercert(binary_form=True)
    assert content is not None
    return x509.load_der_x509_certificate(content).serial_number


def test_a_certificate_that_is_replaced_is_shown_and_no_call_fails(
    certificates: Certificates,
) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    with (
        FrontedServer("--device", "cpu", *certificates.flags) as front,
        Client(front.address, tls_ca=certificates.ca, retry_for=0) as client,
    ):
        numbers = []
        for _ in range(2):
            numbers.append(certificates.replace())
            assert wait_until(lambda: served_number(front.address, context) == numbers[-1], 20)
            client.predict(IMAGES[0])
            with Client(front.address, tls_ca=certificates.ca, retry_for=0) as newcomer:
                newcomer.step()


def test_an_authority_of_callers_that_is_replaced_counts_for_new_connections(
    certificates: Certificates, tmp_path: Path
) -> None:
    others = trustme.CA()
    for name, authority in (("old", certificates.authority), ("new", others)):
        issued = authority.issue_cert("client")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")

    def may_call(name: str) -> bool:
        client = Client(
            front.address,
            tls_ca=certificates.ca,
            tls_cert=tmp_path / f"{name}.pem",
            tls_key=tmp_path / f"{name}.key",
            timeout=3,
            retry_for=0,
        )
        with client:
            try:
                client.predict(IMAGES[0])
            except Unavailable:
                return False
            return True

    options = (*certificates.flags, "--client-ca", f"{certificates.folder}/callers.crt")
    with FrontedServer("--device", "cpu", *options) as front:
        assert may_call("old")
        assert not may_call("new")
        certificates.replace(callers=others)
        assert wait_until(lambda: may_call("new"), 20)
        assert not may_call("old")


def test_an_owners_certificate_may_have_another_name_than_its_address(pki: Path) -> None:
    shown = ("--tls-cert", str(pki / "client.pem"), "--tls-key", str(pki / "client.key"))
    way = ("--owner-tls-ca", str(pki / "ca.pem"), "--owner-tls-server-name", "client")
    with (
        LocalServer("--device", "cpu", *shown) as owner,
        Front(owner.address, *way) as front,
        Client(front.address, timeout=10) as client,
    ):
        assert wait_until(lambda: is_serving(front), 60)
        assert client.predict(IMAGES[0], version=0).version == 0
        assert client.step().version == 1


@pytest.mark.parametrize(
    ("authority", "text"),
    [
        ("other-ca", "is --owner-tls-ca the authority that signed it?"),
        ("ca", "than the one in --owner; is there a name for --owner-tls-server-name in it?"),
        (None, "does it require TLS (--owner-tls-ca)?"),
    ],
)
def test_the_log_says_by_the_fronts_own_flags_what_is_wrong_on_the_way_to_the_owner(
    pki: Path, authority: str | None, text: str
) -> None:
    shown = ("--tls-cert", str(pki / "client.pem"), "--tls-key", str(pki / "client.key"))
    way = ("--owner-tls-ca", str(pki / f"{authority}.pem")) if authority else ()
    with LocalServer("--device", "cpu", *shown) as owner, Front(owner.address, *way) as front:
        assert wait_until(lambda: text in log_so_far(front), 60)
        assert "--follow" not in log_so_far(front)


def test_the_files_for_the_owner_are_read_again_too(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Have the owner come back with certificates of another authority, and accept no others."""

    def start_owner(address: str) -> LocalServer:
        issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / "owner.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "owner.pem")
        certificates.authority.cert_pem.write_to_path(tmp_path / "owner-ca.pem")
        files = {"--tls-cert": "owner.pem", "--tls-key": "owner.key", "--client-ca": "owner-ca.pem"}
        flags = [part for flag, name in files.items() for part in (flag, str(tmp_path / name))]
        return LocalServer("--device", "cpu", "--address", address, *flags)

    def passes_on_and_follows() -> bool:
        with Client(front.address, timeout=10, retry_for=0) as client:
            try:
                written = client.step()
                return client.predict(IMAGES[0]).version >= written.version
            except Mnist37Error:
                return False

    files = {"ca": "callers.crt", "cert": "tls.crt", "key": "tls.key"}
    way = [
        part
        for flag, name in files.items()
        for part in (f"--owner-tls-{flag}", f"{certificates.folder}/{name}")
    ]
    with start_owner("127.0.0.1:0") as owner, Front(owner.address, *way) as front:
        assert wait_until(passes_on_and_follows, 60)
        owner.stop()
        certificates.authority = trustme.CA()
        certificates.replace()
        with start_owner(owner.address):
            assert wait_until(passes_on_and_follows, 60)
