"""The floor of a ModelInfer and the start of its answer, which are parameters of the protocol."""

from __future__ import annotations

from collections.abc import Mapping

from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_server.domain.position import Floor
from mnist37_server.errors import InvalidArgument

START, MIN_VERSION = "start", "min_version"


def parse_floor(parameters: Mapping[str, pb.InferParameter]) -> Floor | None:
    """Return the floor of a request; None if it has none.

    A start of 0 means any: with it a caller asks for the start of the answer.

    Raises:
        InvalidArgument: a parameter is not a number.
    """
    start = _parse_number(START, parameters) or None
    version = _parse_number(MIN_VERSION, parameters)
    return None if start is None and version is None else Floor(start, version)


def add_start(
    request: pb.ModelInferRequest, response: pb.ModelInferResponse, start: int
) -> pb.ModelInferResponse:
    """Return the response, with the server's start if the request has the parameter `start`."""
    if START in request.parameters:
        response.parameters[START].int64_param = start
    return response


def _parse_number(name: str, parameters: Mapping[str, pb.InferParameter]) -> int | None:
    if name not in parameters:
        return None
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, kind) if kind else None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise InvalidArgument(
            f"parameters.{name}",
            f"got {str(value)[:64]!r}",
            "must be an integer from 0 to 2**64 - 1",
        )
    return value
