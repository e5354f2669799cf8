"""The service of the Open Inference Protocol and of Triton's extensions that read.

It serves the same live model. Each RPC decodes, calls the engine once and encodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from time import perf_counter

import grpc
from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_server.domain.commands.checks import is_tag
from mnist37_server.engine.read_model import ReadModel
from mnist37_server.errors import NotFound, Unavailable, version_not_retained
from mnist37_server.rpc.registration import Codec, register
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import cancellable_unary_handler, log_failure, stream_handler
from mnist37_server.rpc.threads.thread_pools import assign_pool
from mnist37_server.services import tensors, triton_messages
from mnist37_server.services.floor_parameters import add_start, parse_floor
from mnist37_server.services.health import Health
from mnist37_server.services.mnist37_service import Mnist37Servicer

MODEL = "mnist37"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = DESCRIPTOR.full_name
RPCS = {method.name for method in DESCRIPTOR.methods}
SHORT_RPCS = {"ModelInfer"}  # on the threads of the short calls
LONG_RPCS = {"ModelStreamInfer"}  # on the threads of the calls that wait
# Probes call all other methods, which have threads of their own.
# The parameter of an answer in a stream by which Triton's clients know the last one to a request.
FINAL = "triton_final_response"
MESSAGE_MIB_MAX = 64  # by default


class OpenInferenceServicer:
    """The service for one model.

    Args:
        model: the model to read.
        service: the server's own service; both have one count of calls and one limit of streams.
        health: the health service, which says whether the server is shutting down.
        max_message_mib: the size limit of a message, in MiB.
    """

    def __init__(
        self,
        model: ReadModel,
        service: Mnist37Servicer,
        health: Health,
        max_message_mib: int = MESSAGE_MIB_MAX,
    ) -> None:
        self._model = model
        self._in_flight = service.in_flight
        self._streams = service.streams
        self._health = health
        self._config = triton_messages.model_config(MODEL, max_message_mib)
        self._server_version = installed_version("mnist37")

    @cancellable_unary_handler
    def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.ServicerContext
    ) -> pb.ServerLiveResponse:
        """Return that the server is alive: it answers."""
        return pb.ServerLiveResponse(live=True)

    @cancellable_unary_handler
    def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.ServicerContext
    ) -> pb.ServerReadyResponse:
        """Return whether the server is serving."""
        return pb.ServerReadyResponse(ready=self._health.serving)

    @cancellable_unary_handler
    def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Return whether the server is serving; the version must be retained."""
        version = self._parse_version(request.name, request.version)
        if self._health.serving:
            self._model.at(version)
        return pb.ModelReadyResponse(ready=self._health.serving)

    @cancellable_unary_handler
    def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Return the name and the version of the server, and its extensions of Triton's."""
        return pb.ServerMetadataResponse(
            name="mnist37", version=self._server_version, extensions=triton_messages.EXTENSIONS
        )

    @cancellable_unary_handler
    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Return the versions that the server has, and the inputs and outputs of the model."""
        self._model.at(self._parse_version(request.name, request.version))
        return pb.ModelMetadataResponse(
            name=MODEL,
            versions=map(str, self._model.version_numbers()),
            platform=triton_messages.PLATFORM,
            inputs=tensors.INPUTS,
            outputs=tensors.OUTPUTS,
        )

    @cancellable_unary_handler
    def ModelInfer(
        self, fields: tensors.InferFields, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Return the probability that each image is a 3."""
        return self._infer(fields)

    @stream_handler
    def ModelStreamInfer(
        self, requests: Iterator[tensors.InferFields], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Yield the answer to each request, in order; an error is the answer to one request."""
        with self._streams.admit(context):
            yield from map(self._answer, requests)

    @cancellable_unary_handler
    def ModelConfig(
        self, request: pb.ModelConfigRequest, context: grpc.ServicerContext
    ) -> pb.ModelConfigResponse:
        """Return the configuration of the model, which is that of each version."""
        self._model.at(self._parse_version(request.name, request.version))
        return pb.ModelConfigResponse(config=self._config)

    @cancellable_unary_handler
    def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: grpc.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        """Return how much the model has predicted, and how long it took."""
        version = self._parse_version(request.name or MODEL, request.version)
        if request.version not in ("", triton_messages.ALL_VERSIONS):
            self._model.at(version)
        totals = self._model.predictions.read()
        statistics = triton_messages.model_statistics(MODEL, request.version, totals)
        return pb.ModelStatisticsResponse(model_stats=[statistics])

    @cancellable_unary_handler
    def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        """Return the model with its newest version and its state."""
        if request.repository_name:
            name = tensors.shorten(request.repository_name)
            raise NotFound(f"repository_name: there is no {name} here; leave it empty")
        version, reason = "", "" if self._health.serving else "the server is not serving"
        try:
            version = str(self._model.at().snapshot.version)
        except Unavailable as error:  # a follower that has no version, or one that is too old
            reason = str(error)
        if reason and request.ready:
            return pb.RepositoryIndexResponse()
        state = triton_messages.UNAVAILABLE if reason else triton_messages.READY
        return pb.RepositoryIndexResponse(
            models=[{"name": MODEL, "version": version, "state": state, "reason": reason}]
        )

    def _infer(self, fields: tensors.InferFields) -> pb.ModelInferResponse:
        """Predict, and count what the model does not see: refused requests, and conversions."""
        began = perf_counter()
        request = fields.request
        with self._in_flight:
            check_model(request.model_name)  # what is for another model is not counted
            predictions = self._model.predictions
            try:
                version = self._parse_version(request.model_name, request.model_version)
                tensors.check_request(request)
                floor = parse_floor(request.parameters)
                images = tensors.parse_images(fields)
            except Exception:
                predictions.add_failure(perf_counter() - began)
                raise
            parsed = perf_counter()
            probabilities, (start, number) = self._model.predict(images, version, floor)
            predicted = perf_counter()
            response = tensors.build_response(request, probabilities, number)
            add_start(request, response, start)
            predictions.add_conversion(parsed - began, perf_counter() - predicted)
            return response

    def _answer(self, fields: tensors.InferFields) -> pb.ModelStreamInferResponse:
        """Return the answer to a request of a stream, or the text of its error."""
        text = ""
        try:
            response = self._infer(fields)
        except Exception as error:  # noqa: BLE001 - the stream goes on after any exception
            text = log_failure(error, "ModelStreamInfer", fields.request).text
            response = pb.ModelInferResponse(id=fields.request.id)
        response.parameters[FINAL].bool_param = True
        return pb.ModelStreamInferResponse(error_message=text, infer_response=response)

    def _parse_version(self, model: str, version: str) -> int | str | None:
        """Return the version that a request names: its number, or a tag; None means the newest.

        Raises:
            NotFound: the model does not exist, or the text is neither a number nor a tag.
        """
        check_model(model)
        if not version:
            return None
        if version.isascii() and version.isdecimal() and len(version) <= 20:
            return int(version)
        if not is_tag(version):
            raise version_not_retained(tensors.shorten(version), self._model.at().snapshot.version)
        return version


def check_model(name: str) -> None:
    """Raise NotFound unless this is the name of the model."""
    if name != MODEL:
        shown = tensors.shorten(name)
        raise NotFound(f"model: there is no {shown} here; there is {MODEL}", model=shown)


def add_to(
    server: grpc.Server,
    model: ReadModel,
    service: Mnist37Servicer,
    health: Health,
    probes: ThreadPoolExecutor,
    slow_callers: SlowCallers | None = None,
    max_message_mib: int = MESSAGE_MIB_MAX,
) -> None:
    """Add the service to a server, whose own threads run the predictions.

    Args:
        server: the server, not started yet.
        model: the model to read.
        service: the server's own service, on whose threads for long calls the streams run.
        health: the health service.
        probes: the pool for all other calls.
        slow_callers: the limits for callers that are slow to send or to read.
        max_message_mib: the size limit of a message, in MiB.
    """
    servicer = OpenInferenceServicer(model, service, health, max_message_mib)
    assign_pool(service.long_calls, servicer, LONG_RPCS)
    assign_pool(probes, servicer, RPCS - SHORT_RPCS - LONG_RPCS)
    # Without protobuf, which copies the message on its way in.
    codecs = {
        "ModelInfer": Codec(tensors.decode, pb.ModelInferResponse.SerializeToString),
        "ModelStreamInfer": Codec(tensors.decode, pb.ModelStreamInferResponse.SerializeToString),
    }
    register(server, DESCRIPTOR, servicer, slow_callers or SlowCallers(), codecs)
