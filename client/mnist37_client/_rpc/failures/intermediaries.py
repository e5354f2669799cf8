"""The failures of what is between client and server: a web server in front, or a proxy on the way.

gRPC reports them with codes of its own choice; only its texts say what happened.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from mnist37_client.errors import (
    Exhausted,
    Mnist37Error,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

# The variables that name a proxy, in the order in which gRPC looks at them.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
DEFAULT_PROXY_PORT = 443  # as gRPC connects to a proxy without a port

HTTP_STATUS = re.compile(r"Received http2 header with status: (\d+)")
RESET = re.compile(r".*\bRST_STREAM with error code (\d+)")
# The text for a stream whose answer is a page: now and then gRPC's core loses the status of it.
NOT_GRPC = "Stream removed (Data frame with END_STREAM flag received)"
TUNNEL_REFUSED = re.compile(r".*HTTP proxy returned response code (\d+)")

# The exceptions for the HTTP statuses of a server that does not speak gRPC. Any other status means
# that it reaches no server of ours, now or ever.
HTTP_EXCEPTIONS: dict[int, tuple[type[Mnist37Error], str]] = {
    401: (Unauthenticated, "it wants a login"),
    403: (PermissionDenied, "it does not allow the call"),
    413: (Exhausted, "the message is too large for it; send fewer images, or raise its limit"),
}


def explain(details: str, address: str) -> Mnist37Error | None:
    """Return the exception for gRPC's text about a call that an intermediary ended; or None."""
    if match := HTTP_STATUS.match(details):
        status = int(match[1])
        kind, meaning = HTTP_EXCEPTIONS.get(status, (Unavailable, "it reaches no mnist37 server"))
        error = kind(f"{address}: a web server or proxy answered HTTP {status}: {meaning}")
        if status == 413:
            error.reason = "MESSAGE_TOO_LARGE"
        return error
    if details == NOT_GRPC:
        return Unavailable(f"{address}: a web server or proxy answered, and no mnist37 server")
    if match := RESET.match(details):
        text = f"HTTP/2 error {match[1]}; a proxy with a limit in bytes or seconds does that"
        return Unavailable(f"{address}: the call was reset on its way: {text}")
    return _explain_proxy(details, address)


def _explain_proxy(details: str, address: str) -> Mnist37Error | None:
    """Return the exception for a connection that failed at the proxy of the environment."""
    variable = next((name for name in PROXY_VARIABLES if os.environ.get(name)), None)
    if variable is None:
        return None
    value = os.environ[variable]
    try:
        url = urlsplit(value if "//" in value else f"//{value}")
        proxy = f"{url.hostname}:{url.port or DEFAULT_PROXY_PORT}"  # never its password
    except ValueError:  # the port is no number; gRPC ignores such a proxy
        return None
    # gRPC names the address that it could not reach. The proxy's name may have been resolved.
    names_proxy = proxy in details or re.search(rf":{proxy.rpartition(':')[2]}: ", details)
    # A failed TLS handshake is one with the server, through the proxy.
    if address in details or not names_proxy or re.search("SSL|TLS|security|certificate", details):
        return None
    *_, reason = details.split(": ")
    if match := TUNNEL_REFUSED.match(details):
        reason = f"it answered HTTP {match[1]}"
    return Unavailable(
        f"{address}: no connection through the proxy {proxy}, which {variable} names:"
        f" {reason.rstrip(']')}; no_proxy={address.rpartition(':')[0]} goes around it"
    )
