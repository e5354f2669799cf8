"""Tests of the RPC metrics, on a real port, with a service whose calls end in every way."""

from __future__ import annotations

import socket
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from mnist37_server.domain.address import Address, parse
from mnist37_server.errors import CannotStart
from mnist37_server.observability.prometheus import MetricsEndpoint
from mnist37_server.observability.rpc_metrics import RpcMetrics
from support.scraping import Scrape, wait_until

SERVICE = "probe.v1.Probe"
RPCS_MAX = 16  # calls at a time
KINDS = {
    "Unary": (False, False),
    "Upload": (True, False),
    "Download": (False, True),
    "Chat": (True, True),
}

LOCAL = Address("127.0.0.1", 0)


def contract() -> FileDescriptor:
    """Return a .proto file of a service with a method of each kind."""
    file = FileDescriptorProto(name="probe.proto", package="probe.v1", syntax="proto3")
    file.message_type.add(name="Empty")
    service = file.service.add(name="Probe")
    for name, (client, server) in KINDS.items():
        service.method.add(
            name=name,
            input_type=".probe.v1.Empty",
            output_type=".probe.v1.Empty",
            client_streaming=client,
            server_streaming=server,
        )
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName("probe.proto")


class Probe:
    """A service that does what a request says, and records the threads of its handlers."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self._answer(next(requests), context)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.threads.add(threading.current_thread().name)
        match request:
            case b"abort":
                context.abort(grpc.StatusCode.NOT_FOUND, "")
            case b"raise":
                raise RuntimeError("probing")
            case b"set code":
                context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            case b"odd code":
                context.set_code(5)  # type: ignore[arg-type]
            case b"wait":
                gone = threading.Event()
                context.add_callback(gone.set)
                gone.wait(5)
        return b""

    def upload(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        return b"".join(requests)

    def download(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        request = next(requests)
        yield b"1"
        self._answer(request, context)
        while request == b"go on":
            yield b"2"

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield self._answer(request, context)


def handlers(probe: Probe, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """Return the service's handlers: the requests of each are a stream, as in rpc/registration."""
    probe.unary.__func__.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return {
        "Unary": grpc.stream_unary_rpc_method_handler(probe.unary),
        "Upload": grpc.stream_unary_rpc_method_handler(probe.upload),
        "Download": grpc.stream_stream_rpc_method_handler(probe.download),
        "Chat": grpc.stream_stream_rpc_method_handler(probe.chat),
        "Unlisted": grpc.stream_unary_rpc_method_handler(probe.unary),
    }


class SelectiveAuthorizer:
    """An authorizer that refuses calls with the metadata `refuse: me`."""

    def authorize(self, call: grpc.HandlerCallDetails) -> Any:
        if ("refuse", "me") not in call.invocation_metadata:
            return None
        return grpc.stream_stream_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
        )


@pytest.fixture
def port() -> Iterator[SimpleNamespace]:
    """Start a server with the service, and connect a channel to it."""
    monitor = MetricsEndpoint(LOCAL, [contract()], SelectiveAuthorizer().authorize)
    probe = Probe()
    with ThreadPoolExecutor(4, "others") as others, ThreadPoolExecutor(4, "own") as own:
        interceptors: list[grpc.ServerInterceptor] = [monitor.rpcs]
        server = grpc.server(others, interceptors=interceptors, maximum_concurrent_rpcs=RPCS_MAX)
        server.add_registered_method_handlers(SERVICE, handlers(probe, own))
        number = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
            yield SimpleNamespace(channel=channel, probe=probe, url=monitor.url)
        server.stop(0).wait()
        monitor.close()


def code(call: Callable[[], object]) -> str:
    """Make a call and return the name of its status code."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_unary_calls_by_how_they_end(port: SimpleNamespace) -> None:
    unary = port.channel.unary_unary(f"/{SERVICE}/Unary")
    ends = {
        b"": "OK",
        b"abort": "NOT_FOUND",
        b"raise": "UNKNOWN",
        b"set code": "FAILED_PRECONDITION",
        b"odd code": "UNKNOWN",
    }
    for request, expected in ends.items():
        assert code(partial(unary, request)) == expected
    assert code(lambda: unary(b"wait", timeout=0.2)) == "DEADLINE_EXCEEDED"
    waiting = unary.future(b"wait")
    left = Scrape(port.url)
    assert left.total("grpc_server_started_total", grpc_method="Unary") >= 6
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Unary"}
    assert wait_until(lambda: Scrape(port.url).value("mnist37_rpcs_in_progress", **labels) == 1)
    waiting.cancel()
    assert code(lambda: unary(b"", metadata=[("refuse", "me")])) == "UNAUTHENTICATED"
    assert code(lambda: unary(b"")) == "OK"
    assert wait_until(
        lambda: (
            Scrape(port.url).codes("Unary")
            == {
                "OK": 2,
                "NotFound": 1,
                "Unknown": 2,
                "FailedPrecondition": 1,
                "DeadlineExceeded": 1,
                "Canceled": 1,
                "Unauthenticated": 1,
            }
        )
    ), Scrape(port.url).codes("Unary")
    now = Scrape(port.url)
    assert now.value("grpc_server_started_total", **labels) == 9
    assert now.value("grpc_server_handling_seconds_count", **labels) == 9
    seconds = now.value("grpc_server_handling_seconds_sum", **labels)
    assert seconds is not None
    assert 0.2 < seconds < 5
    assert now.value("grpc_server_handling_seconds_bucket", **labels, le="0.1") in {7, 8}
    assert now.value("grpc_server_handling_seconds_bucket", **labels, le="+Inf") == 9
    assert {name.split("_")[0] for name in port.probe.threads} == {"own"}, "its own thread pool"


def test_streams_by_how_they_end(port: SimpleNamespace) -> None:
    channel = port.channel
    assert code(lambda: channel.stream_unary(f"/{SERVICE}/Upload")(iter([b"1", b"2"]))) == "OK"
    download = channel.unary_stream(f"/{SERVICE}/Download")
    for request in (b"", b"abort", b"raise"):
        code(partial(list, download(request)))
    endless = download(b"go on")
    next(endless)
    endless.cancel()
    chat = channel.stream_stream(f"/{SERVICE}/Chat")
    assert code(lambda: list(chat(iter([b"", b""])))) == "OK"
    assert code(lambda: list(chat(iter([b"", b"abort"])))) == "NOT_FOUND"
    assert wait_until(lambda: sum(Scrape(port.url).codes("Download").values()) == 4)
    now = Scrape(port.url)
    assert now.codes("Download") == {"OK": 1, "NotFound": 1, "Unknown": 1, "Canceled": 1}
    assert now.codes("Chat") == {"OK": 1, "NotFound": 1}
    assert now.codes("Upload") == {"OK": 1}
    for method, kind in (
        ("Upload", "client_stream"),
        ("Download", "server_stream"),
        ("Chat", "bidi_stream"),
    ):
        labels = {"grpc_type": kind, "grpc_service": SERVICE, "grpc_method": method}
        started = now.value("grpc_server_started_total", **labels)
        assert started
        assert started == now.value("grpc_server_handling_seconds_count", **labels)


def test_calls_that_grpc_refuses_itself_are_counted_as_started(port: SimpleNamespace) -> None:
    unary = port.channel.unary_unary(f"/{SERVICE}/Unary")
    waiting = [unary.future(b"wait") for _ in range(RPCS_MAX)]
    labels = {"grpc_method": "Unary"}
    assert wait_until(
        lambda: Scrape(port.url).total("grpc_server_started_total", **labels) == RPCS_MAX
    )
    assert wait_until(lambda: Scrape(port.url).total("mnist37_rpcs_in_progress", **labels) == 4)
    assert code(partial(unary, b"")) == "RESOURCE_EXHAUSTED"
    for call in waiting:
        call.cancel()
    assert wait_until(lambda: Scrape(port.url).total("mnist37_rpcs_in_progress") == 0)
    now = Scrape(port.url)
    assert now.total("grpc_server_started_total", **labels) == RPCS_MAX + 1
    assert set(now.codes("Unary")) == {"Canceled"}


def test_calls_that_arrive_in_several_threads_are_all_counted() -> None:
    # As in a front, whose event loops share one interceptor.
    metrics = RpcMetrics([contract()])
    handler: Any = grpc.stream_unary_rpc_method_handler(lambda *_: b"")
    call: Any = SimpleNamespace(method=f"/{SERVICE}/Unary", invocation_metadata=())

    def arrive() -> None:
        for _ in range(50_000):
            metrics.intercept_service(lambda _: handler, call)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(arrive) for _ in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)
    (started,) = [
        sample.value
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name == "grpc_server_started_total" and sample.labels["grpc_method"] == "Unary"
    ]
    assert started == 200_000


def test_no_caller_can_make_up_labels(port: SimpleNamespace) -> None:
    before = len(Scrape(port.url).samples)
    for number in range(50):
        call = port.channel.unary_unary(f"/made.up/M{number}")
        assert code(partial(call, b"")) == "UNIMPLEMENTED"
        assert code(partial(call, b"", metadata=[("refuse", "me")])) == "UNAUTHENTICATED"
    assert code(lambda: port.channel.unary_unary(f"/{SERVICE}/Unlisted")(b"")) == "OK"
    now = Scrape(port.url)
    assert now.codes("unknown") == {"Unimplemented": 50, "Unauthenticated": 50, "OK": 1}
    assert "made.up" not in now.text
    assert "Unlisted" not in now.text
    assert len(now.samples) < before + 50


def test_an_address_that_cannot_be_used_is_refused() -> None:
    first = MetricsEndpoint(LOCAL, [])
    taken = first.url.removeprefix("http://").removesuffix("/metrics")
    with pytest.raises(CannotStart, match=f"--metrics-address: cannot listen on {taken}: .*use"):
        MetricsEndpoint(parse("--metrics-address", taken), [])
    first.close()
    with pytest.raises(CannotStart, match=r"there is no host 'nowhere\.invalid'"):
        MetricsEndpoint(Address("nowhere.invalid", 0), [])
    with pytest.raises(urllib.error.URLError):
        Scrape(first.url)


def test_silent_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist37_server.observability.prometheus.SILENT_SCRAPER_SECONDS", 0.2)
    monitor = MetricsEndpoint(LOCAL, [])
    host, _, port = monitor.url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(20)]
    silent[0].sendall(b"GET /metr")
    assert all(connection.recv(1) == b"" for connection in silent), "the server must close them"
    assert Scrape(monitor.url).value("process_open_fds")
    for connection in silent:
        connection.close()
    monitor.close()


def test_ipv6() -> None:
    try:
        monitor = MetricsEndpoint(Address("::1", 0), [])
    except CannotStart:
        pytest.skip("this machine has no IPv6")
    assert monitor.url.startswith("http://[::1]:")
    assert Scrape(monitor.url).value("process_open_fds")
    monitor.close()
