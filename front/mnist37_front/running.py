"""The launcher of a front: it starts Envoy, says where it listens, and ends it in order."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mnist37_server.access import certificates, tls
from mnist37_server.access.tokens import Tokens
from mnist37_server.domain.address import join
from mnist37_server.errors import CannotStart
from mnist37_server.observability import logs
from mnist37_server.observability.background_stream import announce
from mnist37_server.rpc import process
from mnist37_server.rpc.listening import check_socket_file, find_port

from mnist37_front.envoy.process import START_SECONDS, Envoy
from mnist37_front.owner import OwnerProcess, OwnerTokens
from mnist37_front.private_folder import private_folder
from mnist37_front.settings import LOGGED, FrontSettings

PAUSE_SECONDS = 0.1

log = logging.getLogger(__name__)


def run(settings: FrontSettings, owner_command: tuple[str, ...] = ()) -> int:
    """Serve until a signal ends the front; return the exit status.

    Args:
        settings: of the front.
        owner_command: starts the server that owns the model; empty if it runs already.

    Raises:
        CannotStart: the front cannot start with one of the settings.
        OwnerRefused: the server did not start, and has said why.
    """
    signals = process.prepare()
    logs.configure(settings.log_format, settings.log_level, LOGGED)
    check_files(settings)
    with private_folder() as folder:
        settings = replace(with_ports(settings), folder=folder).absolute()
        signals.begin_serving()
        owner = None
        if owner_command:
            socket = folder / "owner.sock"
            tokens = None if settings.tokens is None else OwnerTokens(settings.tokens, folder)
            owner = OwnerProcess(owner_command, socket, tokens)
            token_file = None if tokens is None else tokens.token_file
            settings = replace(settings, owner=f"unix:{socket}", owner_token_file=token_file)
        try:
            if owner is not None:
                owner.wait_until_ready(lambda: signals.has_come)
            return 0 if signals.has_come else serve(settings, owner, signals)
        finally:
            if owner is not None:
                owner.stop(signals.hurry.is_set)


def serve(settings: FrontSettings, owner: OwnerProcess | None, signals: process.StopSignals) -> int:
    """Serve until a signal comes, or a process ends by itself; return the exit status."""
    envoy = Envoy(settings)
    try:
        envoy.wait_until_ready(lambda: signals.has_come)
        if owner is not None:
            wait_until_serving(settings, envoy, signals)
        if not signals.has_come:
            log.info("started", extra={"address": settings.address, "owner": settings.owner})
            announce(f"listening on {settings.address}", *further_lines(settings, owner))
        while not signals.has_come:
            if envoy.process.poll() is not None:
                log.critical("Envoy has ended with status %s", envoy.process.returncode)
                return 1
            if owner is not None and owner.process.poll() is not None:
                log.critical("the server has ended with status %s", owner.process.returncode)
                return 1
            if owner is not None and owner.tokens is not None:
                owner.tokens.refresh()
            time.sleep(PAUSE_SECONDS)
        log.info("stopping")
    finally:
        envoy.begin_end()
        if owner is not None:
            # Before Envoy, through which its callers get their last messages.
            owner.stop(signals.hurry.is_set)
        status = envoy.end(signals.hurry.is_set)
    log.info("stopped")
    return status


def with_ports(settings: FrontSettings) -> FrontSettings:
    """Return the settings with free ports in place of port 0.

    Raises:
        CannotStart: a host is none of this machine, or a port or the socket file is in use.
    """
    address, metrics = settings.parsed_address, settings.server_config().parsed_metrics_address
    if address.path is not None:
        check_socket_file(address.path)
    else:
        _, port = find_port("--address", address)
        settings = replace(settings, address=join(address.host, port))
    if metrics is not None:
        _, port = find_port("--metrics-address", metrics)
        settings = replace(settings, metrics_address=join(metrics.host, port))
    return settings


def further_lines(settings: FrontSettings, owner: OwnerProcess | None) -> list[str]:
    """Return what stdout gets after where the front listens: where metrics are, and the version."""
    if owner is not None:  # the metrics are its own
        return owner.announced
    if settings.metrics_address is None:
        return []
    return [f"metrics on http://{settings.metrics_address}/metrics"]


def wait_until_serving(settings: FrontSettings, envoy: Envoy, signals: process.StopSignals) -> None:
    """Wait until the front has the first version of its owner, which it can only miss at first.

    Raises:
        CannotStart: the first version does not come in time.
    """
    deadline = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(f"unix:{settings.internal_socket}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        while not signals.has_come and envoy.process.poll() is None:
            with suppress(grpc.RpcError):
                answer = check(health_pb2.HealthCheckRequest(), timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            if time.monotonic() > deadline:
                raise CannotStart(f"no version came from the server in {START_SECONDS:.0f} seconds")
            time.sleep(PAUSE_SECONDS / 5)


def check_files(settings: FrontSettings) -> None:
    """Raise CannotStart if a file of the settings cannot be used: Envoy's own words are hard."""
    config = settings.server_config()
    if config.tokens is not None:
        Tokens(config.tokens)
    tls.credentials(config)
    certificates.check_all(config)
    assert config.following is not None
    tls.check_token_file(config.following)
    tls.owner_credentials(config.following)
