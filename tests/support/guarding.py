"""Servers with TLS and tokens: the files that they need, and the flags."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROLES = ("predict", "follow", "train")


def secret(role: str) -> str:
    """Return the token of a role."""
    return f"secret-of-{role}"


def tokens_file(path: Path, *roles: str) -> Path:
    """Write a server's file with the token of each role; return its path."""
    digests = {role: hashlib.sha256(secret(role).encode()).hexdigest() for role in roles}
    path.write_text("".join(f"{role} {digest}\n" for role, digest in digests.items()))
    return path


def token_file(folder: Path, role: str) -> Path:
    """Write a file with the token of a role, as --follow-token-file takes it; return its path."""
    path = folder / f"token-{role}"
    path.write_text(f"{secret(role)}\n")
    return path


def guards(pki: Path, tokens: Path) -> list[str]:
    """Return the flags of a server that wants certificates and tokens of its callers."""
    flags = {
        "--tls-cert": pki / "server.pem",
        "--tls-key": pki / "server.key",
        "--client-ca": pki / "ca.pem",
        "--tokens": tokens,
    }
    return [str(part) for flag in flags.items() for part in flag]


def follow_flags(owner: str, pki: Path, token: Path) -> list[str]:
    """Return the flags of a follower of an owner with such guards."""
    flags = {
        "--follow": owner,
        "--follow-tls-ca": pki / "ca.pem",
        "--follow-tls-cert": pki / "client.pem",
        "--follow-tls-key": pki / "client.key",
        "--follow-token-file": token,
    }
    return [str(part) for flag in flags.items() for part in flag]
