"""The RPCs of the Open Inference Protocol, over the same live model: decode, one call, encode."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version

import grpc
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_protos.inference import open_inference_pb2_grpc

from mnist37_server.engine.read_model import ReadModel
from mnist37_server.errors import NotFound, version_not_retained
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.rpc.status import cancellable_unary_handler
from mnist37_server.rpc.thread_pools import assign_pool
from mnist37_server.services import tensors
from mnist37_server.services.health import Health

MODEL = "mnist37"
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
RPCS = {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
# A prediction has the short calls' threads. The others are what probes ask, and have theirs.
SHORT = {"ModelInfer"}


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers for one model.

    Args:
        model: is read.
        in_flight: counts the predictions that are being answered.
        health: knows whether the server is about to end.
    """

    def __init__(self, model: ReadModel, in_flight: InFlightCalls, health: Health) -> None:
        self._model = model
        self._in_flight = in_flight
        self._health = health
        self._installed = installed_version("mnist37")

    @cancellable_unary_handler
    def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.ServicerContext
    ) -> pb.ServerLiveResponse:
        """Whoever answers is alive."""
        return pb.ServerLiveResponse(live=True)

    @cancellable_unary_handler
    def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.ServicerContext
    ) -> pb.ServerReadyResponse:
        """Whether more requests are welcome."""
        return pb.ServerReadyResponse(ready=self._health.serving)

    @cancellable_unary_handler
    def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.ServicerContext
    ) -> pb.ModelReadyResponse:
        """The same, for a version that is kept."""
        self._model.at(self._asked(request.name, request.version))
        return pb.ModelReadyResponse(ready=self._health.serving)

    @cancellable_unary_handler
    def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """What server this is."""
        return pb.ServerMetadataResponse(name="mnist37", version=self._installed)

    @cancellable_unary_handler
    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """What goes in and comes out."""
        self._model.at(self._asked(request.name, request.version))
        return pb.ModelMetadataResponse(
            name=MODEL,
            versions=[str(kept.version) for kept in self._model.versions(2**32 - 1)],
            platform="pytorch",
            inputs=tensors.INPUTS,
            outputs=tensors.OUTPUTS,
        )

    @cancellable_unary_handler
    def ModelInfer(
        self, fields: tensors.InferFields, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """The probability, for each image, that it is a 3."""
        request = fields.request
        with self._in_flight:
            version = self._asked(request.model_name, request.model_version)
            tensors.check_outputs(request)
            probabilities, version = self._model.predict(tensors.parse_images(fields), version)
            return tensors.build_response(request, probabilities, version)

    def _asked(self, model: str, version: str) -> int | None:
        """The version that is asked for; None for the newest.

        Raises:
            NotFound: there is no such model, or the version is not a decimal number.
        """
        if model != MODEL:
            shown = tensors.shorten(model)
            raise NotFound(f"model: there is no {shown} here; there is {MODEL}", model=shown)
        if not version:
            return None
        if not (version.isascii() and version.isdecimal() and len(version) <= 20):
            raise version_not_retained(tensors.shorten(version), self._model.at().version)
        return int(version)


def add_to(
    server: grpc.Server,
    model: ReadModel,
    in_flight: InFlightCalls,
    health: Health,
    probes: ThreadPoolExecutor,
) -> None:
    """Puts the service on a server, whose own threads are for the predictions."""
    servicer = OpenInferenceServicer(model, in_flight, health)
    assign_pool(probes, servicer, RPCS - SHORT)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    # In place of the generated handler, whose message is copied on its way in.
    infer = grpc.unary_unary_rpc_method_handler(
        servicer.ModelInfer, tensors.decode, pb.ModelInferResponse.SerializeToString
    )
    server.add_registered_method_handlers(SERVICE, {"ModelInfer": infer})
