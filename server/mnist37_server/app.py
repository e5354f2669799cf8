"""Puts the parts together, runs the server, and ends it in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from mnist37_protos.inference import open_inference_pb2
from mnist37_protos.v1 import mnist37_pb2

from mnist37 import data
from mnist37_server.access import tls
from mnist37_server.access.auth_interceptor import AuthInterceptor
from mnist37_server.access.tokens import Tokens
from mnist37_server.config import Config
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.errors import CannotStart
from mnist37_server.rpc import server as rpc_server
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service, open_inference, reflection
from mnist37_server.storage.store import Store
from mnist37_server.training.device import INSTALL_TORCH, check_name, place_images

CONTRACTS = [
    mnist37_pb2.DESCRIPTOR,
    open_inference_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
]

log = logging.getLogger(__name__)


def run(config: Config, open_store: Callable[[Path | None], Store] = Store) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        config: the settings.
        open_store: opens the folder that keeps the model.

    Raises:
        CannotStart: one of the settings cannot be had; says which and why.
    """
    signals = watch_signals(signal.SIGINT, signal.SIGTERM)
    check_name(config.device)
    auth = create_auth_interceptor(config)
    metrics = None
    if config.metrics_address is not None:
        # Not loaded where it is off.
        from mnist37_server.observability.prometheus import MetricsEndpoint

        metrics = MetricsEndpoint(config.metrics_address, CONTRACTS, auth.refusal if auth else None)
    first = metrics.rpcs if metrics else auth  # the one interceptor, where there is one
    server, port = rpc_server.build(config, tls.credentials(config), [first] if first else [])
    store = open_store(config.state)
    # After the state, which is this server's alone: no second one uses the device of the first.
    datasets, device = place_images(config.device, load_images(config))
    model = LiveModel(datasets, device, store, config.max_pending_writes)
    if metrics:
        metrics.observe(model)
    long_calls = config.max_rpcs or mnist37_service.MAX_RPCS
    service = mnist37_service.add_to(server, model, model, long_calls, config.max_streams)
    probes = ThreadPoolExecutor(long_calls, thread_name_prefix="probe")
    services = [mnist37_service.SERVICE, open_inference.SERVICE]
    health = health_service.add_to(server, services, probes, str(device))
    reflection.add_to(server, [*services, health_service.NAME], probes)
    open_inference.add_to(server, model, service.in_flight, health, probes)
    model.on_device_lost = health.begin_shutdown  # so that what watches it starts another server
    # What is there by now stays. Once in a while Python's collector would look through all of it,
    # the compiler included: 0.2 s in which nobody is answered. So it takes half a millisecond.
    gc.freeze()
    gc.enable()
    server.start()
    print(f"listening on {config.host}:{port}", flush=True)
    if metrics:
        print(f"metrics on {metrics.url}", flush=True)
    version = model.at().version
    print(f"version {version} on {device}", flush=True)
    saved_in = str(config.state or "memory")
    started = {"address": f"{config.host}:{port}", "device": str(device), "state": saved_in}
    log.info("started", extra={**started, "version": version})
    (number,) = os.read(signals, 1)
    log.info("stopping", extra={"signal": signal.Signals(number).name})
    health.begin_shutdown()
    model.stop_writing()
    stopped = server.stop(config.shutdown_grace)  # refuses new calls from now on
    service.in_flight.wait_until_idle(config.shutdown_grace)
    server.stop(0)  # what is left are open streams that nothing comes in by
    # grpcio can lose track of a call that it has ended itself, over a malformed message.
    stopped.wait(1)
    if metrics:
        metrics.close()
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


def create_auth_interceptor(config: Config) -> AuthInterceptor | None:
    """What asks callers for a token; None where anybody may call.

    Raises:
        CannotStart: the file of tokens is not right.
    """
    if not config.loopback and config.missing_protection:
        log.warning("strangers may read along or call; against that: %s", config.missing_protection)
    if config.tokens is None:
        return None
    tokens = Tokens(config.tokens)
    tokens.follow()
    log.info("--tokens: %s", tokens)
    return AuthInterceptor(tokens)


def load_images(config: Config) -> data.Data:
    """The training and the validation images.

    Raises:
        CannotStart: there is no MNIST in the folder that was named, or nothing to read it with.
    """
    try:
        return data.load(config.data_root, download=config.download)
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"--data-root: needs torchvision, which is not installed: {INSTALL_TORCH}"
        ) from error
    except (RuntimeError, OSError) as error:
        raise CannotStart(f"--data-root: no MNIST in {config.data_root}: {error}") from error
