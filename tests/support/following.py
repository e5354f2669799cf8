"""Servers of both roles, called as the contract says, without the client's retries."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Self, cast

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from mnist37_client.local_server import LocalServer
from mnist37_client.processes.local_process import LocalProcess
from mnist37_protos.inference import open_inference_pb2_grpc
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.scraping import Scrape, wait_until

TIMEOUT = 10
SERVING = health_pb2.HealthCheckResponse.SERVING


class FailedCall(Exception):
    """The status with which a call ended, with its details."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast(grpc.Call, error)
        self.code = call.code()
        self.text = call.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.retry_after: float | None = None
        status = rpc_status.from_call(call)
        for detail in status.details if status is not None else ():
            info, retry = ErrorInfo(), RetryInfo()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        super().__init__(f"{self.code.name} {self.reason}: {self.text}")


class Server(LocalServer):
    """A server process with a channel to it."""

    @cached_property
    def channel(self) -> Any:
        # A connection of its own, also to a server that was started again at the same address.
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    def __exit__(self, *failure: Any) -> None:
        if "channel" in vars(self):
            self.channel.close()
        super().__exit__(*failure)

    def call(self, rpc: str, request: Message, timeout: float = TIMEOUT) -> Any:
        """Return the answer of Mnist37Service, a list for a stream; raise FailedCall."""
        method = getattr(mnist37_pb2_grpc.Mnist37ServiceStub(self.channel), rpc)
        streams = pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods_by_name[rpc]
        try:
            answer = method(
                iter([request]) if streams.client_streaming else request, timeout=timeout
            )
            return list(answer) if streams.server_streaming else answer
        except grpc.RpcError as error:
            raise FailedCall(error) from None

    def infer(self, request: Message | Iterator[Message], rpc: str = "ModelInfer") -> Any:
        """Return the answer of the Open Inference Protocol, a list for a stream; or FailedCall."""
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        try:
            answer = getattr(stub, rpc)(request, timeout=TIMEOUT)
            return list(answer) if isinstance(request, Iterator) else answer
        except grpc.RpcError as error:
            raise FailedCall(error) from None

    def train(self, epochs: int = 1) -> int:
        """Train; return the version."""
        version: int = self.call("Train", pb.TrainRequest(epochs=epochs))[-1].version
        return version

    def step(self) -> int:
        """Do a step; return the version."""
        version: int = self.call("Step", pb.StepRequest()).version
        return version

    def model(self, **fields: Any) -> pb.GetModelResponse:
        """Return the answer of GetModel."""
        answer: pb.GetModelResponse = self.call("GetModel", pb.GetModelRequest(**fields))
        return answer

    def health(self, service: str = "") -> int:
        """Return the status of a service."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = stub.Check(request, timeout=TIMEOUT).status
        return status

    def wait_until_serving(self) -> Self:
        """Wait until the server has a version to answer from."""
        assert wait_until(lambda: self.health() == SERVING, TIMEOUT)
        return self

    def wait_for(self, version: int) -> None:
        """Wait until the server's newest version is this one, or a later one."""
        assert wait_until(lambda: self.model().version >= version, TIMEOUT)

    @cached_property
    def metrics_url(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("metrics on ")
        return line.split()[-1]

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the present value of a metric."""
        return Scrape(self.metrics_url).value(name, **labels)

    @property
    def log_so_far(self) -> str:
        """Return the log of the running server."""
        return log_so_far(self)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def log_so_far(process: LocalProcess) -> str:
    """Return the log of a running process."""
    # The process writes at the position of the same open file, which must stay.
    return os.pread(process._log.fileno(), 2**20, 0).decode()


def refusal(server: Server, rpc: str, request: Message, timeout: float = TIMEOUT) -> FailedCall:
    """Return how a call is refused."""
    try:
        answer = server.call(rpc, request, timeout)
    except FailedCall as refused:
        return refused
    raise AssertionError(f"{rpc} is answered: {answer}")
