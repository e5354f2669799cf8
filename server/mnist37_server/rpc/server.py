"""A gRPC server without services: its address, its limits and its threads."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from mnist37_server.config import Config
from mnist37_server.errors import CannotStart
from mnist37_server.rpc.thread_pools import SHORT_CALL_THREADS, ElasticThreadPool

# A peer that does not answer a ping for this long is given up: its calls end.
PING_TIMEOUT_SECONDS = 20
# A peer may send its own pings this often. gRPC closes the connection of one that sends more.
PING_INTERVAL_MIN_SECONDS = 10


def build(
    config: Config,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> tuple[grpc.Server, int]:
    """Return a server that is not started yet, and its port.

    Args:
        config: the address to listen on, and the limits.
        credentials: for TLS; without them, connections are plain text.
        interceptors: called for each RPC, before the service.

    Raises:
        CannotStart: the server cannot listen on the address.
    """
    server = grpc.server(
        ElasticThreadPool(SHORT_CALL_THREADS, "short-call"),  # type: ignore[arg-type]  # it has submit
        interceptors=list(interceptors),
        options=options(config),
        maximum_concurrent_rpcs=config.max_rpcs or None,
    )
    try:
        if credentials is None:
            return server, server.add_insecure_port(config.address)
        return server, server.add_secure_port(config.address, credentials)
    except RuntimeError as error:
        raise CannotStart(
            f"--address: cannot listen on {config.address}; is the port in use? Name another"
            " HOST:PORT, or port 0 for a free one"
        ) from error


def options(config: Config) -> list[tuple[str, int]]:
    """Return the options of gRPC's core: its message limits, and when it gives up a silent peer."""
    keepalive_ms = round(config.keepalive * 1000)
    ping_timeout_ms = min(keepalive_ms, PING_TIMEOUT_SECONDS * 1000)
    return [
        ("grpc.max_receive_message_length", config.max_message_mib * 2**20),
        ("grpc.max_send_message_length", config.max_message_mib * 2**20),
        # Applies only to connections with calls: an idle client may sleep without a limit.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # grpcio 1.85 obeys this option instead of the one above; its default is a minute.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_SECONDS * 1000),
        ("grpc.so_reuseport", 0),  # a port in use is an error; it is not shared
    ]
