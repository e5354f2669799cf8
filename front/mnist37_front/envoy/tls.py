"""The TLS of Envoy: its certificate for callers, and its connection to the owner.

Envoy reads all files of both again when they are replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mnist37_front.settings import FrontSettings

Config = dict[str, Any]

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def downstream_tls(settings: FrontSettings) -> Config | None:
    """Return the transport socket for callers; None for plain text."""
    folder = settings.folder
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [
            certificate(folder, "front", settings.tls_cert, settings.tls_key)
        ],
    }
    if settings.client_ca is not None:
        common["validation_context_sds_secret_config"] = authority(
            folder, "callers", settings.client_ca
        )
    context: Config = {"@type": f"{TLS}DownstreamTlsContext", "common_tls_context": common}
    if settings.client_ca is not None:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def upstream_tls(settings: FrontSettings) -> Config | None:
    """Return the transport socket for the owner; None for plain text."""
    folder = settings.folder
    if settings.owner_tls_ca is None:
        return None
    name = settings.owner_tls_server_name or settings.parsed_owner.host
    names = [{"san_type": kind, "matcher": {"exact": name}} for kind in ("DNS", "IP_ADDRESS")]
    common: Config = {
        "alpn_protocols": ["h2"],
        "validation_context_sds_secret_config": authority(
            folder, "owner", settings.owner_tls_ca, match_typed_subject_alt_names=names
        ),
    }
    if settings.owner_tls_cert is not None and settings.owner_tls_key is not None:
        common["tls_certificate_sds_secret_configs"] = [
            certificate(folder, "front-for-owner", settings.owner_tls_cert, settings.owner_tls_key)
        ]
    context = {"@type": f"{TLS}UpstreamTlsContext", "sni": name, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def certificate(folder: Path, name: str, chain: Path, key: Path) -> Config:
    """Return the source of a certificate.

    Args:
        folder: the front's own.
        name: of the secret.
        chain: the file of the certificate, PEM.
        key: the file of its private key, PEM.
    """
    files = {
        "certificate_chain": {"filename": str(chain.absolute())},
        "private_key": {"filename": str(key.absolute())},
        "watched_directory": {"path": str(chain.absolute().parent)},
    }
    return source(folder, name, {"tls_certificate": files})


def authority(folder: Path, name: str, file: Path, **checks: object) -> Config:
    """Return the source of an authority.

    Args:
        folder: the front's own.
        name: of the secret.
        file: of the authority, PEM.
        checks: further ones, of the certificates that it has signed.
    """
    files = {"trusted_ca": {"filename": str(file.absolute())}}
    return source(folder, name, {"validation_context": {**files, **checks}})


def source(folder: Path, name: str, secret: Config) -> Config:
    """Return the source of a secret, whose files Envoy reads again when they are replaced.

    It does so for secrets that come from a file alone: this one has the paths, and no secret.
    """
    file = folder / f"{name}.json"
    content = {"@type": f"{TLS}Secret", "name": name, **secret}
    file.write_text(json.dumps({"resources": [content]}))
    return {"name": name, "sds_config": {"path_config_source": {"path": str(file)}}}
