"""The gRPC server before any service is on it: its address, its limits, its threads."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from mnist37_server.config import Config
from mnist37_server.errors import CannotStart
from mnist37_server.rpc.thread_pools import SHORT_CALL_THREADS, ElasticThreadPool

PING_TIMEOUT_SECONDS = 20  # seconds that a peer has to answer a ping, before its calls end
PING_INTERVAL_MIN_SECONDS = (
    10  # seconds between a peer's own pings; more often, and it is hung up on
)


def build(
    config: Config,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> tuple[grpc.Server, int]:
    """Return a server that is not started yet, and the port that it has.

    Args:
        config: where it is to listen, and how much it takes.
        credentials: for TLS; without, connections are plain text.
        interceptors: see each call first.

    Raises:
        CannotStart: the address cannot be listened on.
    """
    server = grpc.server(
        ElasticThreadPool(SHORT_CALL_THREADS, "short-call"),  # type: ignore[arg-type]  # it submits
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
    """What gRPC's core is told: what it is to refuse by itself, and when to give a peer up."""
    keepalive = round(config.keepalive * 1000)
    answer = min(keepalive, PING_TIMEOUT_SECONDS * 1000)
    return [
        ("grpc.max_receive_message_length", config.max_message_mib * 2**20),
        ("grpc.max_send_message_length", config.max_message_mib * 2**20),
        # Connections with calls only: an idle client may sleep for as long as it likes.
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", answer),
        # The core of 1.85 goes by this one, which is a minute unless it is set.
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_SECONDS * 1000),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a port shared
    ]
