"""The certificates and authorities of a server's connections: with callers, and with its owner."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import grpc

from mnist37_server.access.secret_file import read_secret_file
from mnist37_server.config import Config, Following
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
    _check_pair(config.tls_cert, "--tls-key", config.tls_key)
    authority = None
    if config.client_ca is not None:
        authority = _certificates("--client-ca", config.client_ca)
    return grpc.ssl_server_credentials(
        [(key, certificate)], authority, require_client_auth=authority is not None
    )


def owner_credentials(following: Following) -> grpc.ChannelCredentials | None:
    """Return gRPC's credentials for the connection to the owner, or None without an authority.

    Raises:
        CannotStart: a file cannot be used; the text names the file and the cause.
    """
    if following.tls_ca is None:
        return None
    flag = following.flag
    authority = _certificates(f"{flag}-tls-ca", following.tls_ca)
    certificate = key = None
    if following.tls_cert is not None and following.tls_key is not None:
        certificate = _certificates(f"{flag}-tls-cert", following.tls_cert)
        key = _read(f"{flag}-tls-key", following.tls_key)
        _check_pair(following.tls_cert, f"{flag}-tls-key", following.tls_key)
    return grpc.ssl_channel_credentials(authority, key, certificate)


def check_token_file(following: Following) -> None:
    """Raise CannotStart unless the file of the follower's token, if there is one, has a token."""
    if following.token_file is None:
        return
    option = f"{following.flag}-token-file"
    token = read_secret_file(option, following.token_file).strip()
    if not re.fullmatch(rb"[!-~]+", token):
        raise CannotStart(
            f"{option}: {following.token_file} must hold one token and nothing else;"
            " `mnist37 token follow` makes one"
        )


def _certificates(option: str, path: Path) -> bytes:
    content = _read(option, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise CannotStart(f"{option}: {path} holds no certificate in PEM") from error
    return content


def _check_pair(certificate: Path, key_option: str, key: Path) -> None:
    try:
        # With password=None, OpenSSL would ask for a password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        problem = (
            f"is not the key of {certificate}"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "holds no private key in PEM without a passphrase"
        )
        raise CannotStart(f"{key_option}: {key} {problem}") from error


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotStart(f"{option}: cannot read {path}: {error.strerror}") from error
