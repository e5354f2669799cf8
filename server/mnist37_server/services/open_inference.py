"""The service of the Open Inference Protocol, for the same live model.

Each RPC decodes, calls the engine once and encodes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version

import grpc
from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_server.domain.commands.checks import is_tag
from mnist37_server.engine.read_model import ReadModel
from mnist37_server.errors import NotFound, version_not_retained
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.rpc.registration import Codec, register
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import cancellable_unary_handler
from mnist37_server.rpc.threads.thread_pools import assign_pool
from mnist37_server.services import tensors
from mnist37_server.services.floor_parameters import add_start, parse_floor
from mnist37_server.services.health import Health

MODEL = "mnist37"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = DESCRIPTOR.full_name
RPCS = {method.name for method in DESCRIPTOR.methods}
# These run on the threads of the short calls. Probes call the others, which have their own threads.
SHORT_RPCS = {"ModelInfer"}


class OpenInferenceServicer:
    """The service for one model.

    Args:
        model: the model to read.
        in_flight: the counter of the calls in flight; predictions are added to it.
        health: the health service, which says whether the server is shutting down.
    """

    def __init__(self, model: ReadModel, in_flight: InFlightCalls, health: Health) -> None:
        self._model = model
        self._in_flight = in_flight
        self._health = health
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
        """Return the name and the version of the server."""
        return pb.ServerMetadataResponse(name="mnist37", version=self._server_version)

    @cancellable_unary_handler
    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Return the versions that the server has, and the inputs and outputs of the model."""
        self._model.at(self._parse_version(request.name, request.version))
        return pb.ModelMetadataResponse(
            name=MODEL,
            versions=map(str, self._model.version_numbers()),
            platform="pytorch",
            inputs=tensors.INPUTS,
            outputs=tensors.OUTPUTS,
        )

    @cancellable_unary_handler
    def ModelInfer(
        self, fields: tensors.InferFields, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Return the probability that each image is a 3."""
        request = fields.request
        with self._in_flight:
            version = self._parse_version(request.model_name, request.model_version)
            tensors.check_request(request)
            floor = parse_floor(request.parameters)
            probabilities, (start, number) = self._model.predict(
                tensors.parse_images(fields), version, floor
            )
            return add_start(request, tensors.build_response(request, probabilities, number), start)

    def _parse_version(self, model: str, version: str) -> int | str | None:
        """Return the version that a request names: its number, or a tag; None means the newest.

        Raises:
            NotFound: the model does not exist, or the text is neither a number nor a tag.
        """
        if model != MODEL:
            name = tensors.shorten(model)
            raise NotFound(f"model: there is no {name} here; there is {MODEL}", model=name)
        if not version:
            return None
        if version.isascii() and version.isdecimal() and len(version) <= 20:
            return int(version)
        if not is_tag(version):
            raise version_not_retained(tensors.shorten(version), self._model.at().snapshot.version)
        return version


def add_to(
    server: grpc.Server,
    model: ReadModel,
    in_flight: InFlightCalls,
    health: Health,
    probes: ThreadPoolExecutor,
    slow_callers: SlowCallers | None = None,
) -> None:
    """Add the service to a server, whose own threads run the predictions.

    Args:
        server: the server, not started yet.
        model: the model to read.
        in_flight: the counter of the calls in flight.
        health: the health service.
        probes: the pool for all other calls.
        slow_callers: the limits for callers that are slow to send or to read.
    """
    servicer = OpenInferenceServicer(model, in_flight, health)
    assign_pool(probes, servicer, RPCS - SHORT_RPCS)
    # Without protobuf, which copies the message on its way in.
    codecs = {"ModelInfer": Codec(tensors.decode, pb.ModelInferResponse.SerializeToString)}
    register(server, DESCRIPTOR, servicer, slow_callers or SlowCallers(), codecs)
