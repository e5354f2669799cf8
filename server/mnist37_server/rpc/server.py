"""A gRPC server without services: its address, its limits and its threads."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import suppress

import grpc

from mnist37_server.config import Config
from mnist37_server.domain.address import Address
from mnist37_server.rpc.listening import listen
from mnist37_server.rpc.threads.elastic_pool import SHORT_CALL_THREADS, ElasticThreadPool

# A peer that does not answer a ping for this long is given up: its calls end.
PING_TIMEOUT_SECONDS = 20
# A peer may send its own pings this often, also without calls. gRPC closes the connection of one
# that sends more. Clients ping every 10 s at most, and a ping may come a little early.
PING_INTERVAL_MIN_SECONDS = 5
# A connection without calls is closed after this long; a client opens another one when it calls.
IDLE_CONNECTION_SECONDS = 60
# Each connection takes an open file and some 20 KiB.
CONNECTIONS_MAX = 10_000
# Open files that connections never use up: those of the database, the log, the metrics.
RESERVED_FILES = 100
# Calls that have arrived and wait for grpcio's serving thread. gRPC's core would refuse calls at
# random, with a bare CANCELLED, where more than 1,000 wait.
ARRIVED_CALLS_MAX = 8_192
# Calls of one connection. A client queues more; a few of a burst are refused with UNAVAILABLE.
CONNECTION_CALLS_MAX = 1_024
IDENTITY = 1  # the set of compressions, as bits, that has no compression alone


def build(
    config: Config,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> tuple[grpc.Server, Address]:
    """Return a server that is not started yet, and its address with the port.

    Args:
        config: the address to listen on, and the limits.
        credentials: for TLS; without them, connections are plain text.
        interceptors: called for each RPC, before the service.

    Raises:
        CannotStart: the server cannot listen on the address.
    """
    server = grpc.server(
        ElasticThreadPool(SHORT_CALL_THREADS, "short-call"),
        interceptors=list(interceptors),
        options=options(config),
        maximum_concurrent_rpcs=config.max_rpcs or None,
    )
    return server, listen(server, config.parsed_address, credentials)


def options(config: Config) -> list[tuple[str, int]]:
    """Return the options of gRPC's core: its message limits, and when it gives up a silent peer."""
    keepalive_ms = round(config.keepalive * 1000)
    ping_timeout_ms = min(keepalive_ms, PING_TIMEOUT_SECONDS * 1000)
    connection_age = []
    if config.max_connection_age is not None:
        # The client opens another connection at once; the calls on the old one may end.
        connection_age = [
            ("grpc.max_connection_age_ms", round(config.max_connection_age * 1000)),
            ("grpc.max_connection_age_grace_ms", round(config.message_timeout * 1000)),
        ]
    return [
        *connection_age,
        ("grpc.max_receive_message_length", config.max_message_mib * 2**20),
        ("grpc.max_send_message_length", config.max_message_mib * 2**20),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # grpcio 1.85 obeys this option instead of the one above; its default is a minute.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        # Without it, gRPC allows a peer without calls one ping in two hours.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", IDLE_CONNECTION_SECONDS * 1000),
        ("grpc.max_allowed_incoming_connections", connections_max()),
        ("grpc.server.max_pending_requests", ARRIVED_CALLS_MAX),
        ("grpc.server.max_pending_requests_hard_limit", ARRIVED_CALLS_MAX),
        # 64 kB can be inflated to 64 MiB, in the core's threads, before anybody is known.
        # What a connection that is not read has in its buffers is bounded by that alone.
        ("grpc.max_concurrent_streams", CONNECTION_CALLS_MAX),
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY),
        ("grpc.so_reuseport", 0),  # a port in use is an error; it is not shared
    ]


def connections_max() -> int:
    """Raise the soft limit of open files to the hard one; return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems have a lower limit than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, soft - RESERVED_FILES))
