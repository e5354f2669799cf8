"""A server process on this machine, for demonstrations and tests."""

from __future__ import annotations

from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess

# MNIST37_TOKENS in this environment, for example, is for another server: the callers of a local one
# have no token.
UNWANTED_VARIABLES = {
    f"MNIST37_{option}"
    for option in (
        *("TLS_CERT", "TLS_KEY", "CLIENT_CA", "TOKENS", "METRICS_ADDRESS"),
        *("FOLLOW", "FOLLOW_TLS_CA", "FOLLOW_TLS_CERT", "FOLLOW_TLS_KEY", "FOLLOW_TLS_SERVER_NAME"),
        *("FOLLOW_TOKEN_FILE", "ADVERTISE", "MAX_AGE"),
    )
}


class LocalServer(LocalProcess):
    """A process of `mnist37 serve` on a free port, ready when the constructor returns.

    A subclass may set another `command`.

    Args:
        options: further options of `mnist37 serve`. Without --state, a server that owns its model
            keeps it in memory.

    Raises:
        Unavailable: the server did not start; the message has the server's log.
    """

    command: tuple[str, ...] = python_process.command("mnist37_server")

    def __init__(self, *options: str) -> None:
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        needs_state = {"--state", "--follow"}.isdisjoint(options)
        state = ("--state", ":memory:") if needs_state else ()
        command = (*self.command, *address, *state, *options)
        super().__init__("the server", command, UNWANTED_VARIABLES)
