"""Tests of hostile callers: the server answers other callers, and its resources are freed.

One server is the target of all attacks. At the end its log must have no error.
"""

from __future__ import annotations

import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub
from support.scraping import wait_until
from support.vitals import MIB, Vitals, wait_for_vitals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

IMAGES, _ = validation_images()
IMAGE = pb.PredictRequest(pixels=IMAGES[0].tobytes())
TIMEOUT = 20
LEAKS = ("Traceback", "/", "File", "0x", ".py")


@pytest.fixture(scope="module")
def victim() -> Iterator[LocalServer]:
    """Start the server that is attacked, and assert at the end that its log has no error."""
    with LocalServer("--device", "cpu") as server:
        with Client(server.address) as client:
            client.train(20).wait()  # compiles the kernels and starts threads
        yield server
        status, logged = server.stop()
    assert status == 0
    assert "ERROR" not in logged
    assert "Traceback" not in logged
    assert "UserWarning" not in logged


@pytest.fixture
def client(victim: LocalServer) -> Iterator[Client]:
    with Client(victim.address, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
def channel(victim: LocalServer) -> Iterator[Any]:
    with grpc.insecure_channel(victim.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: Any) -> Any:
    return Mnist37ServiceStub(channel)


@pytest.fixture
def unharmed(victim: LocalServer, client: Client) -> Iterator[None]:
    """Assert after the test that the server answers, with about the resources of before."""
    client.predict(IMAGES[0])
    before = Vitals.of(victim.process.pid)
    yield
    began = time.monotonic()
    version = client.step().version  # waits for the end of a run, if there is one
    assert client.predict(IMAGES[0]).version == client.get_model().version == version
    assert client.step().version == version + 1
    assert time.monotonic() - began < 5
    after = wait_for_vitals(victim.process.pid, before.files + 5)
    assert after.files <= before.files + 5
    assert after.memory < before.memory + 640 * MIB, "more than malloc keeps for reuse"
    assert after.threads < 600, "more than there may be waiting calls"


def code_of(call: Any) -> grpc.StatusCode:
    """Return a call's status code, after checking that its details leak no internals."""
    code, details = cast(grpc.StatusCode, call.code()), call.details() or ""
    for leaked in LEAKS:
        assert leaked not in details
    return code


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header as a literal without indexing (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1), which may announce a wrong length."""
    announced = len(payload) if length is None else length
    return announced.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = PREFACE + frame(4, 0, 0, b"")
CALL = b"".join(
    literal(*header)
    for header in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/mnist37.v1.Mnist37Service/Predict"),
        (b":authority", b"a"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
DATA, HEADERS, RESET, PING, CONTINUATION = 0, 1, 3, 6, 9
END_HEADERS, END_STREAM = 4, 1


def streams(count: int) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers of so many streams, each with the HEADERS frame that begins its call."""
    for stream in range(1, 2 * count, 2):
        yield stream, frame(HEADERS, END_HEADERS, stream, CALL)


BAD_BYTES = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "the preface alone": PREFACE,
    "a hello alone": HELLO,
    "half a frame": HELLO + frame(HEADERS, END_HEADERS, 1, CALL)[:20],
    "headers that never end": HELLO + frame(HEADERS, 0, 1, CALL),
    "a call without a message": HELLO + frame(HEADERS, END_HEADERS, 1, CALL),
    "a call that ends at once": HELLO + frame(HEADERS, END_HEADERS | END_STREAM, 1, CALL),
    "a frame longer than what comes": HELLO
    + frame(HEADERS, END_HEADERS, 1, CALL)
    + frame(DATA, 0, 1, b"\0\0\0\3\x10", length=1000),
    "a message longer than what comes": HELLO
    + frame(HEADERS, END_HEADERS, 1, CALL)
    + frame(DATA, 0, 1, b"\0\0\0\3\x10" + bytes(100)),
    "a message that ends too soon": HELLO
    + frame(HEADERS, END_HEADERS, 1, CALL)
    + frame(DATA, END_STREAM, 1, b"\0\0\0\3\x10" + bytes(100)),
    "a message of 4 GiB": HELLO
    + frame(HEADERS, END_HEADERS, 1, CALL)
    + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + bytes(100)),
    "a compressed message that is none": HELLO
    + frame(HEADERS, END_HEADERS, 1, CALL + literal(b"grpc-encoding", b"gzip"))
    + frame(DATA, END_STREAM, 1, b"\1\0\0\0\4abcd"),
    "messages without a call": HELLO + frame(DATA, 0, 1, b"\0\0\0\0\0"),
    "no HTTP/2": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a hello of TLS": bytes.fromhex("16030100c8010000c40303") + bytes(193),
    "noise": bytes(range(256)) * 40,
    "noise after the hello": HELLO + bytes(range(256)) * 40,
    "a frame of a size that is too much": HELLO + frame(DATA, 0, 1, b"", length=2**24 - 1),
    "headers of 100 kB": HELLO
    + frame(HEADERS, 0, 1, CALL)
    + b"".join(frame(CONTINUATION, 0, 1, literal(b"a", b"b" * 100) * 100) for _ in range(10)),
    "2,000 empty continuations": HELLO
    + frame(HEADERS, 0, 1, CALL)
    + frame(CONTINUATION, 0, 1, b"") * 2_000,
    "2,000 pings": HELLO + frame(PING, 0, 0, bytes(8)) * 2_000,
    "1,000 calls, each reset at once": HELLO
    + b"".join(begun + frame(RESET, 0, n, b"\0\0\0\x08") for n, begun in streams(1000)),
    "200 calls that stay": HELLO + b"".join(begun for _, begun in streams(200)),
    "2,000 new settings": HELLO + frame(4, 0, 0, b"\0\4\0\1\0\0") * 2_000,
    "a window beyond what there can be": HELLO + frame(8, 0, 0, b"\x7f\xff\xff\xff"),
}


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT)


@pytest.mark.usefixtures("unharmed")
def test_half_sent_requests_and_noise(victim: LocalServer, client: Client) -> None:
    # The connections of all requests stay open at the same time.
    answers = b""
    with ExitStack() as kept:
        open_ones = []
        for content in BAD_BYTES.values():
            connection = kept.enter_context(connect(victim.address))
            open_ones.append(connection)
            try:
                connection.sendall(content)
            except ConnectionError:
                continue  # the server closed the connection
            assert client.predict(IMAGES[0]).version >= 0
        time.sleep(0.2)
        assert client.step().version > 0
        for connection in open_ones:
            connection.setblocking(False)
            try:
                answers += connection.recv(2**16)
            except (BlockingIOError, ConnectionError):
                continue
    for leaked in (b"Traceback", b".py", b"/home", b"/tmp", b"/usr"):
        assert leaked not in answers


@pytest.mark.usefixtures("unharmed")
def test_2000_idle_connections(victim: LocalServer, client: Client) -> None:
    # Half of the connections have sent the preface and settings of HTTP/2.
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= own[1] < 2500:
        pytest.skip(f"no more than {own[1]} files may be open here")
    before = Vitals.of(victim.process.pid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (own[1], own[1]))
    try:
        with ExitStack() as kept:
            for number in range(2000):
                connection = kept.enter_context(connect(victim.address))
                if number % 2:
                    connection.sendall(HELLO)
            assert client.step().version > 0
            assert client.predict(IMAGES).version > 0
            # The server accepts connections later than they are made, so wait for most of them.
            files_min = before.files + 1500
            assert wait_until(lambda: Vitals.of(victim.process.pid).files > files_min)
            now = Vitals.of(victim.process.pid)
            assert now.threads < before.threads + 20
            assert now.memory < before.memory + 128 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)


@pytest.mark.usefixtures("unharmed")
def test_callers_that_never_read(victim: LocalServer, client: Client, stub: Any) -> None:
    # A run of thousands of epochs has a caller and watchers that never read, and so have streams of
    # predictions. gRPC buffers tens of MB of such a stream, not all of it.
    stop = threading.Event()

    def many() -> Iterator[pb.PredictRequest]:
        batch = pb.PredictRequest(pixels=IMAGES.tobytes())
        while not stop.is_set():
            yield batch

    before = Vitals.of(victim.process.pid)
    with ExitStack() as leave:
        leave.callback(stop.set)
        run = stub.Train(pb.TrainRequest(epochs=1_000_000))
        leave.callback(run.cancel)
        version = client.get_model().version
        while client.get_model().version == version:
            time.sleep(0.01)
        calls = [stub.WatchRun(pb.WatchRunRequest(follow=True)) for _ in range(20)]
        calls += [stub.PredictStream(many()) for _ in range(2)]
        for call in calls:
            leave.callback(call.cancel)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            began = time.monotonic()
            assert client.predict(IMAGES[:5]).version >= version
            assert time.monotonic() - began < 2
            time.sleep(0.02)
        assert client.get_model().version > version
        assert Vitals.of(victim.process.pid).memory < before.memory + 640 * MIB


@pytest.mark.usefixtures("unharmed")
def test_a_flood_of_cancelled_calls_loses_no_update(client: Client, stub: Any) -> None:
    # Steps are cancelled at different times. Each is done once, although it is sent again.
    before = client.get_model().version
    steps = [pb.StepRequest(request_id=f"flood-{number}") for number in range(300)]
    began = [(stub.Step.future(step, timeout=TIMEOUT), step) for step in steps]
    for _ in range(1000):
        stub.Predict.future(IMAGE, timeout=TIMEOUT).cancel()
    for place, (call, _) in enumerate(began):
        if place % 7:
            call.cancel()
    answered = {
        step.request_id: call.result().version
        for call, step in began
        if not call.cancelled() and code_of(call) is grpc.StatusCode.OK
    }
    again = {step.request_id: stub.Step(step, timeout=TIMEOUT).version for step in steps}
    assert again.items() >= answered.items()
    assert sorted(again.values()) == list(range(before + 1, before + 301))
    assert client.get_model().version == before + 300


@contextmanager
def endless_run(stub: Any) -> Iterator[Any]:
    """Start a run, which all writes wait for, and cancel it at the end."""
    run = stub.Train(pb.TrainRequest(epochs=1_000_000))
    next(run)
    yield run
    run.cancel()


def silent_requests(first: pb.PredictRequest | None = None) -> Iterator[pb.PredictRequest]:
    """Yield at most one request, and then leave the stream open for 2 seconds."""
    if first is not None:
        yield first
    time.sleep(2)


def unary_ok(stub: Any) -> None:
    assert stub.Predict(IMAGE, timeout=TIMEOUT).version >= 0
    version = stub.Step(pb.StepRequest(), timeout=TIMEOUT).version
    assert stub.Restore(pb.RestoreRequest(version=version)).version == version + 1


def unary_cancel(stub: Any) -> None:
    with endless_run(stub):
        calls = [stub.Step.future(pb.StepRequest(), timeout=TIMEOUT) for _ in range(5)]
        calls += [stub.GetLoss.future(pb.GetLossRequest(split=pb.SPLIT_TRAIN)) for _ in range(5)]
        for call in calls:
            call.cancel()
            assert code_of(call) in (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK)


def unary_timeout(stub: Any) -> None:
    with endless_run(stub):
        calls = [stub.Step.future(pb.StepRequest(), timeout=0.1) for _ in range(5)]
        for call in calls:
            assert code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED


def unary_error(stub: Any) -> None:
    calls = [
        stub.Predict.future(pb.PredictRequest(pixels=b"abc"), timeout=TIMEOUT),
        stub.Predict.future(pb.PredictRequest(pixels=IMAGE.pixels, version=2**63)),
        stub.Step.future(pb.StepRequest(learning_rate=-1), timeout=TIMEOUT),
        stub.Restore.future(pb.RestoreRequest(version=2**64 - 1), timeout=TIMEOUT),
        stub.GetModel.future(pb.GetModelRequest(version=2**63 - 1), timeout=TIMEOUT),
        stub.Import.future(pb.ImportRequest(weights=b"", bias=1), timeout=TIMEOUT),
    ]
    for call in calls:
        assert code_of(call) in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def stream_ok(stub: Any) -> None:
    assert len(list(stub.PredictStream(iter([IMAGE] * 3), timeout=TIMEOUT))) == 3
    assert len(list(stub.Train(pb.TrainRequest(epochs=3), timeout=TIMEOUT))) == 3
    assert len(list(stub.WatchRun(pb.WatchRunRequest(follow=True), timeout=TIMEOUT))) >= 4


def stream_cancel(stub: Any) -> None:
    with endless_run(stub) as run:
        calls = [stub.WatchRun(pb.WatchRunRequest(follow=True)) for _ in range(3)]
        calls += [stub.PredictStream(silent_requests(IMAGE)) for _ in range(3)]
        for call in calls:
            next(call)
        for call in [*calls, run]:
            call.cancel()
            assert code_of(call) is grpc.StatusCode.CANCELLED


def stream_timeout(stub: Any) -> None:
    calls = [
        stub.Train(pb.TrainRequest(epochs=1_000_000), timeout=0.3),
        stub.PredictStream(silent_requests(IMAGE), timeout=0.3),
        stub.PredictStream(silent_requests(), timeout=0.3),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError):
            list(call)
        assert code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED


def stream_error(stub: Any) -> None:
    calls = [
        stub.Train(pb.TrainRequest(epochs=0), timeout=TIMEOUT),
        stub.Train(pb.TrainRequest(), timeout=TIMEOUT),
        stub.WatchRun(pb.WatchRunRequest(run=2**63 - 1), timeout=TIMEOUT),
        stub.WatchRun(pb.WatchRunRequest(run=2**64 - 1), timeout=TIMEOUT),
        stub.PredictStream(iter([IMAGE, pb.PredictRequest(pixels=b"abc")]), timeout=TIMEOUT),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError):
            list(call)
        assert code_of(call) in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


MATRIX: list[Callable[[Any], None]] = [
    unary_ok,
    unary_cancel,
    unary_timeout,
    unary_error,
    stream_ok,
    stream_cancel,
    stream_timeout,
    stream_error,
]


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("attack", MATRIX, ids=[attack.__name__ for attack in MATRIX])
def test_calls_of_every_end_leave_the_server_unharmed(
    attack: Callable[[Any], None], stub: Any
) -> None:
    for _ in range(3):
        attack(stub)


def test_shutting_down_ends_every_call_and_keeps_every_answered_update(tmp_path: Path) -> None:
    state = ("--device", "cpu", "--state", str(tmp_path))
    with ExitStack() as leave:
        server = leave.enter_context(LocalServer("--shutdown-grace", "1", *state))
        channel = leave.enter_context(grpc.insecure_channel(server.address))
        stub: Any = Mnist37ServiceStub(channel)
        run = stub.Train(pb.TrainRequest(epochs=1_000_000))
        answered = next(run).version
        unary = [stub.Step.future(pb.StepRequest()) for _ in range(10)]
        streams = [stub.WatchRun(pb.WatchRunRequest(follow=True)) for _ in range(5)]
        streams += [stub.PredictStream(silent_requests(IMAGE)) for _ in range(5)]
        for call in streams:
            next(call)
        began = time.monotonic()
        server.process.terminate()
        for progress in read_to_end(run):
            answered = progress.version
        status, logged = server.stop()
        assert status == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in logged
        for call in streams:
            list(read_to_end(call))
        for call in [run, *unary]:
            assert code_of(call) is grpc.StatusCode.UNAVAILABLE
        ended = (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert all(code_of(call) in ended for call in streams)
    with LocalServer(*state) as server, Client(server.address) as client:
        assert client.get_model().version >= answered


def read_to_end(call: Any) -> Iterator[Any]:
    """Yield a call's answers until its end, whether it succeeds or fails."""
    try:
        yield from call
    except grpc.RpcError:
        return
