"""The failures of the connection to the owner, in words that say which setting would be right."""

from __future__ import annotations

import re

import grpc

from mnist37_server.follower.upstream import describe

# What is in gRPC's text for a failed connection, and what it means; the first pattern that matches
# counts. {flag} is --follow, or what a front calls it.
MEANINGS = (
    (
        "CERTIFICATE_VERIFY_FAILED: ([^:]+)",
        "the owner's certificate is not trusted: {0}; is {flag}-tls-ca the authority that signed"
        " it?",
    ),
    (
        "Hostname Verification",
        "the owner's certificate is for another name than the one in {flag}; is there a name for"
        " {flag}-tls-server-name in it?",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "the owner does not speak TLS, which {flag}-tls-ca asks for",
    ),
    (
        "failed to connect.*(?:Socket closed|reset by peer|Broken pipe)",
        "the owner closed the connection; does it require TLS ({flag}-tls-ca)? With TLS, it"
        " requires a certificate ({flag}-tls-cert, {flag}-tls-key), or has refused it; its log says"
        " which",
    ),
)


def explain(error: grpc.RpcError, flag: str) -> str:
    """Return what a failed call says: the meaning, if gRPC's text has one, or the text itself.

    Args:
        error: of the call.
        flag: has the owner's address, and begins the flags of the way there.
    """
    code, text = describe(error)
    if code is grpc.StatusCode.UNAVAILABLE:
        for pattern, meaning in MEANINGS:
            if match := re.search(pattern, text):
                return meaning.format(*match.groups(), flag=flag)
    return f"{code.name}: {text}"
