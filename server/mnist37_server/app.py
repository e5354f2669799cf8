"""Puts the parts together, runs the server, and ends it in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import torch
from mnist37_protos.inference import open_inference_pb2
from mnist37_protos.v1 import mnist37_pb2

from mnist37 import data
from mnist37_server.access import tls
from mnist37_server.access.auth_interceptor import Gate, Tokens
from mnist37_server.config import Config
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.errors import CannotStart
from mnist37_server.rpc.thread_pools import FewThreads
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service, open_inference
from mnist37_server.storage.store import State
from mnist37_server.training.device import place

if TYPE_CHECKING:  # it loads Prometheus' library
    from mnist37_server.observability.rpc_metrics import RpcMetrics

ANSWER_TO_PING = 20  # seconds that a peer has to answer a ping, before its calls end
LEAST_PING_INTERVAL = 10  # seconds between a peer's own pings; who asks more often is cut off
CONTRACTS = [mnist37_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR, *health_service.CONTRACTS]

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        CannotStart: one of the settings cannot be had; says which and why.
    """
    signals = watch_signals(signal.SIGINT, signal.SIGTERM)
    # The bits of a sum depend on how many threads it is split over: on one they never change.
    torch.set_num_threads(1)
    sets, device = place(config.device, load_images(config))
    monitor = None
    if config.metrics_address is not None:
        from mnist37_server.observability.prometheus import (
            Monitor,  # nothing of it is loaded where it is off
        )

        monitor = Monitor(config.metrics_address, CONTRACTS)
    server, port = listen(config, monitor.rpcs if monitor else None)
    state = State(config.state)
    model = LiveModel(sets, device, state, config.max_waiting)
    if monitor:
        monitor.watch(model)
    long_calls = config.max_rpcs or mnist37_service.MAX_RPCS
    service = mnist37_service.add_to(server, model, long_calls, config.max_streams)
    probes = ThreadPoolExecutor(long_calls, thread_name_prefix="probe")
    services = [mnist37_service.SERVICE, open_inference.SERVICE]
    health = health_service.add_to(server, services, probes, str(device))
    open_inference.add_to(server, model, service.activity, health, probes)
    model.when_lost = health.leave  # so that whoever watches the server starts it again
    # What is there by now stays. Once in a while Python's collector would look through all of it,
    # torch included: 0.2 s in which nobody is answered. So it takes half a millisecond.
    gc.freeze()
    gc.enable()
    server.start()
    print(f"listening on {config.host}:{port}", flush=True)
    if monitor:
        print(f"metrics on {monitor.url}", flush=True)
    version = model.at().version
    print(f"version {version} on {device}", flush=True)
    kept = str(config.state or "memory")
    started = {"address": f"{config.host}:{port}", "device": str(device), "state": kept}
    log.info("started", extra={**started, "version": version})
    (number,) = os.read(signals, 1)
    log.info("stopping", extra={"signal": signal.Signals(number).name})
    health.leave()
    model.stop_writing()
    stopped = server.stop(config.grace)  # refuses new calls from now on
    service.activity.settle(config.grace)
    server.stop(0)  # what is left are open streams that nothing comes in by
    # grpcio can lose track of a call that it has ended itself, over a malformed message.
    stopped.wait(1)
    if monitor:
        monitor.close()
    version = model.at().version
    model.close()
    log.info("stopped", extra={"version": version})


def watch_signals(*numbers: signal.Signals) -> int:
    """A file to read the numbers of these signals from, as they come.

    An Event that a handler sets would not do: of two signals at once the system may hand both to
    other threads than the main one, which then sleeps on and never runs a handler.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reading


def listen(config: Config, rpcs: RpcMetrics | None = None) -> tuple[grpc.Server, int]:
    """A server that is not started yet, and the port that it has.

    Args:
        config: where it is to listen, who may call, and how much it takes.
        rpcs: is told of every call.

    Raises:
        CannotStart: the address cannot be listened on, or a file that says who may call is not
            right.
    """
    credentials = tls.credentials(config)
    gate = None
    if config.tokens is not None:
        tokens = Tokens(config.tokens)
        tokens.follow()
        gate = Gate(tokens)
        log.info("--tokens: %s", tokens)
    if not config.loopback and config.lacking:
        log.warning("strangers may read along or call; against that: %s", config.lacking)
    if rpcs is not None:
        rpcs.gate = gate
    first = rpcs or gate  # the one interceptor, where there is one
    server = grpc.server(
        FewThreads(mnist37_service.SHORT_CALLS, "short-call"),  # type: ignore[arg-type]  # it submits
        interceptors=[first] if first else [],
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
    answer = min(keepalive, ANSWER_TO_PING * 1000)
    return [
        ("grpc.max_receive_message_length", config.max_message * 2**20),
        ("grpc.max_send_message_length", config.max_message * 2**20),
        # Connections with calls only: an idle client may sleep for as long as it likes.
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", answer),
        # The core of 1.85 goes by this one, which is a minute unless it is set.
        ("grpc.http2.ping_timeout_ms", answer),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL * 1000),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a port shared
    ]


def load_images(config: Config) -> data.Data:
    """The training and the validation images.

    Raises:
        CannotStart: there is no MNIST in the folder that was named.
    """
    try:
        return data.load(config.data_root, download=config.download)
    except (RuntimeError, OSError) as error:
        raise CannotStart(f"--data-root: no MNIST in {config.data_root}: {error}") from error
