"""The server's certificate, and the authority that it trusts for client certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from mnist37_server.config import Config
from mnist37_server.errors import CannotStart


def credentials(config: Config) -> grpc.ServerCredentials | None:
    """Return gRPC's credentials for --tls-cert, --tls-key and --client-ca, or None without TLS.

    For an invalid file gRPC reports only that it cannot listen. So each file is checked first.

    Raises:
        CannotStart: a file cannot be used; the text names the file and the cause.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    certificate = _certificates("--tls-cert", config.tls_cert)
    key = _read("--tls-key", config.tls_key)
    _check_pair(config.tls_cert, config.tls_key)
    authority = None
    if config.client_ca is not None:
        authority = _certificates("--client-ca", config.client_ca)
    return grpc.ssl_server_credentials(
        [(key, certificate)], authority, require_client_auth=authority is not None
    )


def _certificates(option: str, path: Path) -> bytes:
    content = _read(option, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise CannotStart(f"{option}: {path} holds no certificate in PEM") from error
    return content


def _check_pair(certificate: Path, key: Path) -> None:
    try:
        # With password=None, OpenSSL would ask for a password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        problem = (
            f"is not the key of {certificate}"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "holds no private key in PEM without a passphrase"
        )
        raise CannotStart(f"--tls-key: {key} {problem}") from error


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotStart(f"{option}: cannot read {path}: {error.strerror}") from error
