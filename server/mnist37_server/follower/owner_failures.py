"""The failures of the connection to the owner, in words that say which setting would be right."""

from __future__ import annotations

import re

import grpc

from mnist37_server.follower.upstream import describe

# What is in gRPC's text for a failed connection, and what it means; the first pattern that matches
# counts.
MEANINGS = (
    (
        "CERTIFICATE_VERIFY_FAILED: ([^:]+)",
        "the owner's certificate is not trusted: {0}; is --follow-tls-ca the authority that signed"
        " it?",
    ),
    (
        "Hostname Verification",
        "the owner's certificate is for another name than the one in --follow",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "the owner does not speak TLS, which --follow-tls-ca asks for",
    ),
    (
        "failed to connect.*(?:Socket closed|reset by peer|Broken pipe)",
        "the owner closed the connection; does it require TLS (--follow-tls-ca)? With TLS, it"
        " requires a certificate (--follow-tls-cert, --follow-tls-key), or has refused it; its log"
        " says which",
    ),
)


def explain(error: grpc.RpcError) -> str:
    """Return what a failed call says: the meaning, if gRPC's text has one, or the text itself."""
    code, text = describe(error)
    if code is grpc.StatusCode.UNAVAILABLE:
        for pattern, meaning in MEANINGS:
            if match := re.search(pattern, text):
                return meaning.format(*match.groups())
    return f"{code.name}: {text}"
