"""The assembly of the server: it creates the parts, serves, and shuts down in order."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from mnist37_protos.inference import open_inference_pb2
from mnist37_protos.v1 import mnist37_pb2

from mnist37_server.access import certificates, tls
from mnist37_server.access.auth_interceptor import AuthInterceptor
from mnist37_server.access.tokens import Tokens
from mnist37_server.assembly.role import Role, ServedModel
from mnist37_server.config import Config
from mnist37_server.domain.address import Address
from mnist37_server.observability import handshakes
from mnist37_server.observability.background_stream import announce
from mnist37_server.rpc import process
from mnist37_server.rpc import server as rpc_server
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.rpc.memory_trim import start_trimming
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.threads.elastic_pool import PROBE_THREADS, ElasticThreadPool
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service, open_inference, reflection
from mnist37_server.training.device import check_name

if TYPE_CHECKING:  # a follower does not load SQLite
    from mnist37_server.storage.store import Store

CONTRACTS = [
    mnist37_pb2.DESCRIPTOR,
    open_inference_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
]

# Of the services that need no token: how long a caller may be slow, and how many may be.
OPEN_TIMEOUT_SECONDS = 10.0
OPEN_CALLS_MAX = 16

log = logging.getLogger(__name__)


def run(config: Config, open_store: Callable[[Path | None], Store] | None = None) -> None:
    """Serve until a signal ends the server.

    Args:
        config: the settings.
        open_store: opens the store in the state folder of an owner, None for one in memory.

    Raises:
        CannotStart: the server cannot start with one of the settings; the text names the setting
            and the cause.
    """
    signals = process.prepare()
    check_name(config.device)
    auth = create_auth_interceptor(config)
    metrics = None
    if config.parsed_metrics_address is not None:
        # Imported only here: without metrics, prometheus-client is not loaded.
        from mnist37_server.observability.prometheus import MetricsEndpoint

        metrics = MetricsEndpoint(
            config.parsed_metrics_address, CONTRACTS, auth.authorize if auth else None
        )
    interceptor = metrics.rpcs if metrics else auth  # at most one: metrics.rpcs calls auth
    server, address = rpc_server.build(
        config, tls.credentials(config), [interceptor] if interceptor else []
    )
    role = create_role(config, address, open_store)
    certificate = certificates.check_all(config)
    if metrics:
        metrics.observe(role.collector())
        metrics.observe_tls(certificate.ends if certificate else None, handshakes.FAILED)
    health, in_flight = add_services(server, config, role.model, serving=role.is_ready)
    role.begin(health)
    # The objects that exist now are never freed. Without freeze, a full garbage collection would
    # scan all of them, the compiler's included: now and then 0.2 s in which no call is answered.
    # With it, a full collection takes half a millisecond.
    gc.freeze()
    gc.enable()
    start_trimming()
    signals.begin_serving()
    serving = start_serving(server)
    # Should it end, nothing else would notice: the process would live on, and answer no call.
    threading.Thread(target=signals.report_end, args=(serving,), name="watch", daemon=True).start()
    fields = {"address": str(address), "device": str(role.model.device)}
    log.info("started", extra={**fields, **role.describe()})
    announce(
        f"listening on {address}",
        *([f"metrics on {metrics.url}"] if metrics else []),
        role.summary(),
    )
    signal_number = signals.wait()
    has_failed = signal_number == process.SERVING_ENDED
    if has_failed:
        log.critical("gRPC's serving thread has ended; the server stops, for it answers no call")
    else:
        log.info("stopping", extra={"signal": signal.Signals(signal_number).name})
    health.begin_shutdown()
    role.stop()
    termination = server.stop(config.shutdown_grace)  # refuses new calls from now on
    in_flight.wait_until_idle(config.shutdown_grace, signals.hurry)
    server.stop(0)  # cancels what remains: open streams that wait for their callers
    # With a limit: a call whose connection takes nothing any more does not end.
    termination.wait(1)
    if metrics:
        metrics.close()
    end = role.describe()
    role.close()
    log.info("stopped", extra={"version": end["version"]})
    if has_failed:
        sys.exit(1)


def create_role(
    config: Config, address: Address, open_store: Callable[[Path | None], Store] | None
) -> Role:
    """Return the owner of a model or, with --follow, a follower.

    Raises:
        CannotStart: the role cannot be had with one of the settings.
    """
    # Imported only here: neither loads what only the other one needs.
    if config.following is not None:
        from mnist37_server.assembly.follower import Follower

        return Follower(config.following, address, config.max_followers)
    from mnist37_server.assembly.owner import Owner

    return Owner(config, open_store)


def add_services(
    server: grpc.Server, config: Config, model: ServedModel, *, serving: bool
) -> tuple[health_service.Health, InFlightCalls]:
    """Add all services to a server; return the health service and the counter of calls."""
    max_calls = config.max_rpcs or mnist37_service.RPCS_MAX
    slow_callers = SlowCallers(config.message_timeout, max_calls // 4)
    service = mnist37_service.add_to(
        server, model, model, max_calls, config.max_streams, slow_callers
    )
    probe_pool = ElasticThreadPool(PROBE_THREADS, "probe")
    # The open services, whose callers nobody knows: a message of theirs has a few bytes.
    slow_strangers = SlowCallers(
        min(OPEN_TIMEOUT_SECONDS, config.message_timeout), OPEN_CALLS_MAX, grace_seconds=0.25
    )
    services = [mnist37_service.SERVICE, open_inference.SERVICE]
    health = health_service.add_to(
        server, services, probe_pool, str(model.device), slow_strangers, serving
    )
    reflection.add_to(server, [*services, health_service.NAME], probe_pool, slow_strangers)
    open_inference.add_to(
        server, model, service, health, probe_pool, slow_callers, config.max_message_mib
    )
    return health, service.in_flight


def start_serving(server: grpc.Server) -> threading.Thread:
    """Start a server; return the one thread in which grpcio takes in its calls."""
    before = set(threading.enumerate())
    server.start()
    started = set(threading.enumerate()) - before
    return next(thread for thread in started if thread.name.endswith("(_serve)"))


def create_auth_interceptor(config: Config) -> AuthInterceptor | None:
    """Return the interceptor that checks tokens, or None without --tokens.

    Raises:
        CannotStart: the token file cannot be read, or is invalid.
    """
    if not config.parsed_address.is_loopback and config.missing_protection:
        log.warning("strangers may read along or call; against that: %s", config.missing_protection)
    if config.tokens is None:
        return None
    tokens = Tokens(config.tokens)
    tokens.start_refreshing()
    log.info("--tokens: %s", tokens)
    return AuthInterceptor(tokens)
