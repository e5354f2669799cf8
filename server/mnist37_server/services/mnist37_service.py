"""The service mnist37.v1.Mnist37Service: each RPC decodes, calls the engine once and encodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TypeVar

import grpc
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37.kernels import PIXELS
from mnist37_server.domain.commands.commands import Request
from mnist37_server.domain.examples import count_images
from mnist37_server.domain.results import StepResult, WriteResult, progress_of
from mnist37_server.engine.read_model import ReadModel, WriteModel
from mnist37_server.engine.writes.subscription import ResultT, Subscription
from mnist37_server.errors import CallerCancelled, InvalidArgument
from mnist37_server.rpc.admission import StreamLimit
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.rpc.registration import Codec, register
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import (
    cancellable_unary_handler,
    check_caller_waits,
    remaining_seconds,
    stream_handler,
    unary_handler,
)
from mnist37_server.rpc.threads.elastic_pool import READ_THREADS, ElasticThreadPool
from mnist37_server.rpc.threads.thread_pools import LifoThreadPool, assign_pool
from mnist37_server.services.follow import follow
from mnist37_server.services.messages import requests, responses
from mnist37_server.services.messages.predict_codec import PredictFields, decode, encode
from mnist37_server.services.messages.run_pages import list_runs
from mnist37_server.services.messages.watched_runs import watch_run

RPCS_MAX = 2048  # calls at a time, by default
STREAMS_MAX = 256  # of these, streams of predictions and WatchRuns

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Mnist37Service"]
SERVICE = DESCRIPTOR.full_name
RPCS = {method.name for method in DESCRIPTOR.methods}
SHORT_RPCS = {"Predict", "GetModel"}  # they run on the server's own threads
# They take longer, and wait for the disk alone.
READ_RPCS = {"GetLoss", "ListVersions", "ListTags", "ListRuns", "ListFollowers"}

# Bytes of pixels, those of 64 images. Up to this size a prediction takes no longer than the check
# whether the caller still waits, so there is no check.
UNCHECKED_BYTES_MAX = 64 * PIXELS

# Without protobuf, which copies the messages on their way in and out.
CODECS = {"Predict": Codec(decode, None), "PredictStream": Codec(decode, None)}

M = TypeVar("M", bound=requests.WriteRequest)


class Mnist37Servicer:
    """The service for one model.

    Args:
        model: the model to read.
        writes: the model to write to.
        long_calls: the pool for the calls that wait.
        max_streams: how many streams of predictions and WatchRuns can be open at a time.

    Attributes:
        in_flight, streams, long_calls: the count of the calls in flight, the limit of the open
            streams, and the pool; the server's other service shares them.
    """

    def __init__(
        self,
        model: ReadModel,
        writes: WriteModel,
        long_calls: LifoThreadPool,
        max_streams: int = STREAMS_MAX,
    ) -> None:
        self._model = model
        self._writes = writes
        self.streams = StreamLimit(max_streams, "streams")
        # The queue bounds the callers of runs, but a caller that reads nothing stays after its run.
        self._runs = StreamLimit(max_streams, "streams of runs")
        self.in_flight = InFlightCalls()
        self.long_calls = long_calls

    @unary_handler
    def Predict(self, request: PredictFields, context: grpc.ServicerContext) -> bytes:
        """Return the probability that each image is a 3."""
        if request.size > UNCHECKED_BYTES_MAX:
            check_caller_waits(context)
        return self._predict(request)

    @stream_handler
    def PredictStream(
        self, requests: Iterator[PredictFields], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Yield the prediction for each request, in order."""
        with self.streams.admit(context):
            yield from map(self._predict, requests)

    def _predict(self, fields: PredictFields) -> bytes:
        message, offset, size, version, floor = fields
        with self.in_flight:
            try:
                count = count_images(size)
            except InvalidArgument:
                self._model.predictions.add_failure(0.0)
                raise
            return encode(*self._model.predict_bytes(message, offset, count, version, floor))

    @cancellable_unary_handler
    def GetLoss(
        self, request: pb.GetLossRequest, context: grpc.ServicerContext
    ) -> pb.GetLossResponse:
        """Return the mean loss and the accuracy on a resident set or a batch."""
        with self.in_flight:
            evaluation, (start, version) = self._model.evaluate(
                requests.parse_examples(request),
                requests.parse_version(request),
                requests.parse_floor(request),
            )
        return pb.GetLossResponse(**asdict(evaluation), version=version, start=start)

    @cancellable_unary_handler
    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        """Return the parameters of a version."""
        snapshot, start = self._model.at(
            requests.parse_version(request), requests.parse_floor(request)
        )
        return responses.model_message(snapshot, start, str(self._model.device))

    @unary_handler
    def Step(self, request: pb.StepRequest, context: grpc.ServicerContext) -> pb.StepResponse:
        """Do one step of SGD."""
        answer = self._update(StepResult, requests.parse_step, request, context)
        return pb.StepResponse(loss=answer.loss, version=answer.version, start=self._model.start)

    @stream_handler
    def Train(
        self, request: pb.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TrainResponse]:
        """Do a run, and yield its epochs as they are committed.

        A message is for one epoch or, with `coalesce`, for all that were committed together.
        """
        with self._runs.admit(context), self.in_flight:
            caller = self._write(requests.parse_train, request, context)
            yield from responses.progress_messages(
                map(progress_of, caller.coalesced()), request.coalesce, self._model.start
            )

    @unary_handler
    def Initialize(
        self, request: pb.InitializeRequest, context: grpc.ServicerContext
    ) -> pb.InitializeResponse:
        """Replace the parameters by random ones."""
        answer = self._update(WriteResult, requests.parse_initialize, request, context)
        return pb.InitializeResponse(version=answer.version, start=self._model.start)

    @unary_handler
    def Restore(
        self, request: pb.RestoreRequest, context: grpc.ServicerContext
    ) -> pb.RestoreResponse:
        """Replace the parameters by those of a retained version."""
        answer = self._update(WriteResult, requests.parse_restore, request, context)
        return pb.RestoreResponse(version=answer.version, start=self._model.start)

    @unary_handler
    def Import(self, request: pb.ImportRequest, context: grpc.ServicerContext) -> pb.ImportResponse:
        """Replace the parameters by the given ones."""
        answer = self._update(WriteResult, requests.parse_import, request, context)
        return pb.ImportResponse(version=answer.version, start=self._model.start)

    @unary_handler
    def TagVersion(
        self, request: pb.TagVersionRequest, context: grpc.ServicerContext
    ) -> pb.TagVersionResponse:
        """Point a tag to a version."""
        answer = self._update(WriteResult, requests.parse_tag_version, request, context)
        return pb.TagVersionResponse(version=answer.version, start=self._model.start)

    @unary_handler
    def DeleteTag(
        self, request: pb.DeleteTagRequest, context: grpc.ServicerContext
    ) -> pb.DeleteTagResponse:
        """Delete a tag."""
        answer = self._update(WriteResult, requests.parse_delete_tag, request, context)
        return pb.DeleteTagResponse(version=answer.version, start=self._model.start)

    @cancellable_unary_handler
    def ListTags(
        self, request: pb.ListTagsRequest, context: grpc.ServicerContext
    ) -> pb.ListTagsResponse:
        """Return the tags of callers and those of the server."""
        return pb.ListTagsResponse(tags=map(responses.tag_message, self._model.tags()))

    @cancellable_unary_handler
    def ListVersions(
        self, request: pb.ListVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListVersionsResponse:
        """Return the retained versions, newest first."""
        limit = requests.field_or_default(request, "limit", 2**32 - 1)
        return pb.ListVersionsResponse(
            versions=map(responses.version_message, self._model.versions(limit))
        )

    @cancellable_unary_handler
    def ListRuns(
        self, request: pb.ListRunsRequest, context: grpc.ServicerContext
    ) -> pb.ListRunsResponse:
        """Return a page of the retained runs and of those that wait, newest first."""
        return list_runs(self._model, request)

    @stream_handler
    def Follow(
        self, request: pb.FollowRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FollowResponse]:
        """Yield the newest version, and then each committed version as it comes."""
        yield from follow(self._writes.followers, request, context)

    @cancellable_unary_handler
    def ListFollowers(
        self, request: pb.ListFollowersRequest, context: grpc.ServicerContext
    ) -> pb.ListFollowersResponse:
        """Return the connected followers, in the order in which they came."""
        return pb.ListFollowersResponse(
            followers=map(responses.follower_message, self._writes.followers.records())
        )

    @stream_handler
    def WatchRun(
        self, request: pb.WatchRunRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRunResponse]:
        """Yield the state of a run, its curve and, if asked for, its further epochs."""
        number = request.run if request.HasField("run") else None
        with self.streams.admit(context), closing(self._model.watch(number)) as watch:
            if not context.add_callback(watch.close):
                raise CallerCancelled("the caller left")
            yield from watch_run(watch, request)

    def _update(
        self,
        result_type: type[ResultT],
        parse: Callable[[M], Request],
        message: M,
        context: grpc.ServicerContext,
    ) -> ResultT:
        with self.in_flight:
            return self._write(parse, message, context).only(result_type)

    def _write(
        self,
        parse: Callable[[M], Request],
        message: M,
        context: grpc.ServicerContext,
    ) -> Subscription:
        subscription = Subscription(time.monotonic() + remaining_seconds(context))
        request, request_id = parse(message), requests.parse_request_id(message)
        # The callback comes before the submit, so that no cancellation is missed. add_callback
        # returns False if the call has already ended.
        if not context.add_callback(partial(self._writes.cancel, subscription)):
            raise CallerCancelled("the caller left")
        return self._writes.submit(request, request_id, subscription)


def add_to(
    server: grpc.Server,
    model: ReadModel,
    writes: WriteModel,
    max_rpcs: int = RPCS_MAX,
    max_streams: int = STREAMS_MAX,
    slow_callers: SlowCallers | None = None,
) -> Mnist37Servicer:
    """Add the service to a server, whose own threads run the short calls.

    Args:
        server: the server, not started yet.
        model: the model to read.
        writes: the model to write to.
        max_rpcs: how many calls the server accepts at a time.
        max_streams: how many streams of predictions and WatchRuns can be open at a time.
        slow_callers: the limits for callers that are slow to send or to read.

    Returns:
        The service.
    """
    # Calls that wait: for their turn, for a run, for the next request. Each has a thread.
    long_calls = LifoThreadPool(max_rpcs, "long-call")
    servicer = Mnist37Servicer(model, writes, long_calls, max_streams)
    assign_pool(ElasticThreadPool(READ_THREADS, "read"), servicer, READ_RPCS)
    assign_pool(long_calls, servicer, RPCS - SHORT_RPCS - READ_RPCS)
    register(server, DESCRIPTOR, servicer, slow_callers or SlowCallers(), CODECS)
    return servicer
