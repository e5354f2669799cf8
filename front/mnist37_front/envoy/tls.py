"""The TLS of Envoy: its certificate for callers, and its connection to the owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mnist37_front.settings import FrontSettings

Config = dict[str, Any]

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def downstream_tls(settings: FrontSettings) -> Config | None:
    """Return the transport socket for callers; None for plain text.

    Envoy reads the files again when they are replaced.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    secrets: list[Config] = [
        {
            "@type": f"{TLS}Secret",
            "name": "front",
            "tls_certificate": certificate(settings.tls_cert, settings.tls_key),
        }
    ]
    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [sds("front", settings.folder)],
    }
    if settings.client_ca is not None:
        secrets.append(
            {
                "@type": f"{TLS}Secret",
                "name": "callers",
                "validation_context": authority(settings.client_ca),
            }
        )
        common["validation_context_sds_secret_config"] = sds("callers", settings.folder)
    write_secrets(settings.folder, secrets)
    context: Config = {"@type": f"{TLS}DownstreamTlsContext", "common_tls_context": common}
    if settings.client_ca is not None:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def upstream_tls(settings: FrontSettings) -> Config | None:
    """Return the transport socket for the owner; None for plain text."""
    if settings.owner_tls_ca is None:
        return None
    name = settings.owner_tls_server_name or settings.parsed_owner.host
    validation = authority(settings.owner_tls_ca)
    validation["match_typed_subject_alt_names"] = [
        {"san_type": kind, "matcher": {"exact": name}} for kind in ("DNS", "IP_ADDRESS")
    ]
    common: Config = {"alpn_protocols": ["h2"], "validation_context": validation}
    if settings.owner_tls_cert is not None and settings.owner_tls_key is not None:
        common["tls_certificates"] = [certificate(settings.owner_tls_cert, settings.owner_tls_key)]
    context = {"@type": f"{TLS}UpstreamTlsContext", "sni": name, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def certificate(chain: Path, key: Path) -> Config:
    """Return a certificate in files, which are read again when their folder changes."""
    return {
        "certificate_chain": {"filename": str(chain.absolute())},
        "private_key": {"filename": str(key.absolute())},
        "watched_directory": {"path": str(chain.absolute().parent)},
    }


def authority(file: Path) -> Config:
    """Return the authority in a file."""
    return {"trusted_ca": {"filename": str(file.absolute())}}


def sds(name: str, folder: Path) -> Config:
    """Return the source of a secret: a file in the front's own folder."""
    path = {"path_config_source": {"path": str(folder / f"{name}.json")}}
    return {"name": name, "sds_config": path}


def write_secrets(folder: Path, secrets: list[Config]) -> None:
    """Write the files that name the secrets. They hold paths, and no secret."""
    for secret in secrets:
        content = json.dumps({"resources": [secret]})
        (folder / f"{secret['name']}.json").write_text(content)
