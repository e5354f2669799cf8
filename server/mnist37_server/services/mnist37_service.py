"""The RPCs of mnist37.v1.Mnist37Service: decode, one call, encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import grpc
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

from mnist37.kernels import PIXELS
from mnist37_server.domain.commands import Request
from mnist37_server.domain.examples import count_images
from mnist37_server.domain.results import StepResult, WriteResult, progress_of
from mnist37_server.engine.read_model import ReadModel, WriteModel
from mnist37_server.engine.subscription import A, Subscription
from mnist37_server.errors import CallerCancelled
from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.rpc.status import (
    cancellable_unary_handler,
    check_caller_waits,
    remaining_seconds,
    stream_handler,
    unary_handler,
)
from mnist37_server.rpc.thread_pools import LifoThreadPool, assign_pool
from mnist37_server.services import converters
from mnist37_server.services.predict_codec import PredictFields, decode, encode

MAX_RPCS = 2048  # calls at a time, unless it is told otherwise
MAX_STREAMS = 256  # of them, PredictStreams and WatchRuns

SERVICE = pb.DESCRIPTOR.services_by_name["Mnist37Service"].full_name
RPCS = {method.name for method in pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods}
SHORT = {"Predict", "GetModel"}

# Bytes of images: up to these, to predict takes no longer than to ask whether a caller still waits.
SOON_DONE = 64 * PIXELS

M = TypeVar("M", bound=converters.WriteRequest)


class Mnist37Servicer(mnist37_pb2_grpc.Mnist37ServiceServicer):
    """Answers for one model.

    Args:
        model: is read.
        writes: takes the writes.
        max_streams: PredictStreams and WatchRuns open at a time.
    """

    def __init__(
        self, model: ReadModel, writes: WriteModel, max_streams: int = MAX_STREAMS
    ) -> None:
        self._model = model
        self._writes = writes
        self._streams = StreamLimit(max_streams, "streams")
        self.in_flight = InFlightCalls()

    @unary_handler
    def Predict(self, request: PredictFields, context: grpc.ServicerContext) -> bytes:
        """The probability, for each image, that it is a 3."""
        if request.size > SOON_DONE:
            check_caller_waits(context)
        return self._predict(request)

    @stream_handler
    def PredictStream(
        self, requests: Iterator[PredictFields], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Predict, for one request after the other."""
        with self._streams:
            yield from map(self._predict, requests)

    def _predict(self, fields: PredictFields) -> bytes:
        message, start, size, version = fields
        with self.in_flight:
            count = count_images(size)
            return encode(*self._model.predict_bytes(message, start, count, version))

    @cancellable_unary_handler
    def GetLoss(
        self, request: pb.GetLossRequest, context: grpc.ServicerContext
    ) -> pb.GetLossResponse:
        """The mean loss and the accuracy on some images."""
        with self.in_flight:
            found, version = self._model.evaluate(
                converters.parse_examples(request), converters.parse_version(request)
            )
        return pb.GetLossResponse(**asdict(found), version=version)

    @cancellable_unary_handler
    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        """The parameters."""
        snapshot = self._model.at(converters.parse_version(request))
        return pb.GetModelResponse(
            weights=snapshot.content[:-4],
            bias=snapshot.parameters[-1],
            version=snapshot.version,
            digest=snapshot.digest,
            device=str(self._model.device),
        )

    @unary_handler
    def Step(self, request: pb.StepRequest, context: grpc.ServicerContext) -> pb.StepResponse:
        """One step of SGD."""
        answer = self._update(StepResult, converters.parse_step, request, context)
        return pb.StepResponse(loss=answer.loss, version=answer.version)

    @stream_handler
    def Train(
        self, request: pb.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TrainResponse]:
        """A run, with a message after each epoch, or of all that were committed together."""
        with self.in_flight:
            caller = self._write(converters.parse_train, request, context)
            yield from converters.progress_messages(
                map(progress_of, caller.coalesced()), request.coalesce
            )

    @unary_handler
    def Initialize(
        self, request: pb.InitializeRequest, context: grpc.ServicerContext
    ) -> pb.InitializeResponse:
        """Fresh random parameters."""
        answer = self._update(WriteResult, converters.parse_initialize, request, context)
        return pb.InitializeResponse(version=answer.version)

    @unary_handler
    def Restore(
        self, request: pb.RestoreRequest, context: grpc.ServicerContext
    ) -> pb.RestoreResponse:
        """An old version's parameters again."""
        answer = self._update(WriteResult, converters.parse_restore, request, context)
        return pb.RestoreResponse(version=answer.version)

    @unary_handler
    def Import(self, request: pb.ImportRequest, context: grpc.ServicerContext) -> pb.ImportResponse:
        """Parameters from elsewhere."""
        answer = self._update(WriteResult, converters.parse_import, request, context)
        return pb.ImportResponse(version=answer.version)

    @cancellable_unary_handler
    def ListVersions(
        self, request: pb.ListVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListVersionsResponse:
        """The versions that are kept."""
        limit = converters.field_or_default(request, "limit", 2**32 - 1)
        return pb.ListVersionsResponse(
            versions=map(converters.version_message, self._model.versions(limit))
        )

    @cancellable_unary_handler
    def ListRuns(
        self, request: pb.ListRunsRequest, context: grpc.ServicerContext
    ) -> pb.ListRunsResponse:
        """The runs that are kept."""
        return pb.ListRunsResponse(
            runs=[converters.run_message(*found) for found in self._model.runs()]
        )

    @stream_handler
    def WatchRun(
        self, request: pb.WatchRunRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRunResponse]:
        """A run as it stands, and as it goes on."""
        number = request.run if request.HasField("run") else None
        with self._streams, closing(self._model.watch(number)) as watch:
            context.add_callback(watch.close)
            stands = watch.record()
            if stands is not None:
                yield pb.WatchRunResponse(run=converters.run_message(*stands))
            for progress in converters.progress_messages([watch.curve()], request.coalesce):
                yield pb.WatchRunResponse(progress=progress)
            if request.follow:
                for progress in converters.progress_messages(watch.follow(), request.coalesce):
                    yield pb.WatchRunResponse(progress=progress)
                ended = watch.record()
                if ended is not None:
                    yield pb.WatchRunResponse(run=converters.run_message(*ended))

    def _update(
        self,
        kind: type[A],
        request_of: Callable[[M], Request],
        message: M,
        context: grpc.ServicerContext,
    ) -> A:
        """A write that has one answer, of this kind."""
        with self.in_flight:
            return self._write(request_of, message, context).only(kind)

    def _write(
        self,
        request_of: Callable[[M], Request],
        message: M,
        context: grpc.ServicerContext,
    ) -> Subscription:
        caller = Subscription(time.monotonic() + remaining_seconds(context))
        request, request_id = request_of(message), converters.parse_request_id(message)
        # First, so that whoever leaves from now on is noticed; who has left already gets a False.
        if not context.add_callback(partial(self._writes.cancel, caller)):
            raise CallerCancelled("the caller left")
        return self._writes.submit(request, request_id, caller)


def add_to(
    server: grpc.Server,
    model: ReadModel,
    writes: WriteModel,
    max_rpcs: int = MAX_RPCS,
    max_streams: int = MAX_STREAMS,
) -> Mnist37Servicer:
    """Puts the service on a server, whose own threads are for the short calls.

    Args:
        server: not started yet.
        model: what it reads.
        writes: what takes the writes.
        max_rpcs: calls that the server takes at a time.
        max_streams: PredictStreams and WatchRuns open at a time.
    """
    long_calls = LifoThreadPool(max_rpcs, "long-call")
    servicer = Mnist37Servicer(model, writes, max_streams)
    assign_pool(long_calls, servicer, RPCS - SHORT)
    mnist37_pb2_grpc.add_Mnist37ServiceServicer_to_server(servicer, server)
    # In place of the generated handlers, whose messages are copied on their way in and out.
    server.add_registered_method_handlers(
        SERVICE,
        {
            "Predict": grpc.unary_unary_rpc_method_handler(servicer.Predict, decode),
            "PredictStream": grpc.stream_stream_rpc_method_handler(servicer.PredictStream, decode),
        },
    )
    return servicer
