"""A request for a prediction: JSON, with the pixels in it or as bytes behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mnist37_client.images import PIXELS
from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_web.access.bodies import JSON_MAX
from mnist37_web.access.json_bodies import Limits, check_members, check_names, load_object, show
from mnist37_web.errors import HttpError, bad_request
from mnist37_web.rest.pixels import INPUT, parse_shape, to_bytes, to_floats

OUTPUT = "probability"
VALUE_BYTES = {"UINT8": 1, "FP32": 4}  # of a pixel, for each datatype
# 8 MiB hold 5,349 images at most, with 29 lists each if they are nested.
LIMITS = Limits(commas=JSON_MAX, lists=200_000)
# KServe's client sends the model's name here too; that in the path counts.
NAMES = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
INPUT_NAMES = ("name", "shape", "datatype", "parameters", "data")
OUTPUT_NAMES = ("name", "parameters")
DIGITS_MAX = 12  # of a number of bytes; of 4,300 and more, Python makes no number
ENTRIES_MAX = 64  # outputs, or parameters of one object
# These say how the tensors travel, and end here: the server gets all tensors as bytes.
BINARY_OUTPUT, BINARY, BINARY_SIZE = "binary_data_output", "binary_data", "binary_data_size"


@dataclass(slots=True)
class InferRequest:
    """A request for a prediction.

    Attributes:
        id: that comes back with the answer, if the caller gave one.
        datatype: of the pixels: UINT8 or FP32.
        shape: of the pixels.
        pixels: their bytes, as many as the shape says.
        is_binary: whether the answer has the probabilities as bytes.
        message: of the rest, if the server has to see it: outputs and parameters.
    """

    id: str | None
    datatype: str
    shape: list[int]
    pixels: bytes | memoryview
    is_binary: bool
    message: pb.ModelInferRequest | None


def parse(body: bytes, json_size: str | None) -> InferRequest:
    """Return the request in a body.

    Args:
        body: JSON, or JSON with bytes behind it, or the bytes of UINT8 images alone.
        json_size: the header that says how many bytes of it are JSON, if there is one.

    Raises:
        HttpError: the body is no such request; names the field and says why.
    """
    if json_size is None:
        return parse_json(body, None)
    is_number = json_size.isascii() and json_size.isdecimal() and len(json_size) <= DIGITS_MAX
    if not is_number or int(json_size) > len(body):
        raise bad_request(
            f"Inference-Header-Content-Length: got {json_size[:64]!r}; must be a number of bytes up"
            f" to that of the body, {len(body):,}"
        )
    size = int(json_size)
    if size == 0:
        return parse_images(body)
    if size > JSON_MAX:
        raise HttpError(
            413,
            f"Inference-Header-Content-Length: got {size:,}; must be at most {JSON_MAX:,}",
            "MESSAGE_TOO_LARGE",
        )
    return parse_json(body[:size], memoryview(body)[size:])


def parse_images(body: bytes) -> InferRequest:
    """Return the request for UINT8 images, 784 bytes each, without any JSON."""
    count, rest = divmod(len(body), PIXELS)
    if rest or not count:
        raise bad_request(
            f"the body has {len(body):,} bytes; without JSON it must be images of 784 bytes"
        )
    return InferRequest(None, "UINT8", [count, PIXELS], body, False, None)


def parse_json(text: bytes, tail: memoryview | None) -> InferRequest:
    """Return the request in a JSON text.

    Args:
        text: the JSON.
        tail: the bytes behind it, if it is a binary request.
    """
    content = load_object(text, LIMITS)
    check_names("", content, NAMES)
    tensor = find_input(content.get("inputs"))
    check_names(f"{INPUT}.", tensor, INPUT_NAMES)
    request_id = content.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise bad_request(f"id: got {show(request_id)}; must be a text")
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in VALUE_BYTES:
        got = "missing" if datatype is None else f"got {show(datatype)}"
        raise bad_request(f"{INPUT}.datatype: {got}; must be {' or '.join(VALUE_BYTES)}")
    shape = parse_shape(tensor.get("shape"))

    message = pb.ModelInferRequest()
    parameters = parse_parameters("parameters", content.get("parameters"))
    is_binary = take_flag("parameters", parameters, BINARY_OUTPUT)
    put_parameters("parameters", parameters, message.parameters)
    parameters = parse_parameters(f"{INPUT}.parameters", tensor.get("parameters"))
    pixels: bytes | memoryview
    if BINARY_SIZE in parameters:
        size = parameters.pop(BINARY_SIZE)
        pixels = take_bytes(size, tail, tensor, datatype, shape)
    else:
        if tail:
            raise bad_request(
                f"the body has {len(tail):,} bytes behind its JSON; {INPUT}.parameters must have"
                f" {BINARY_SIZE}"
            )
        if datatype == "UINT8":
            has_words = b"true" in text or b"false" in text
            pixels = to_bytes(tensor.get("data"), shape, has_words)
        else:
            pixels = to_floats(tensor.get("data"), shape)
    put_parameters(f"{INPUT}.parameters", parameters, message.inputs.add().parameters)
    is_binary = parse_outputs(content.get("outputs"), is_binary, message)
    check_members(text, count_members(content))
    is_plain = not (
        message.parameters
        or message.inputs[0].parameters
        or any(output.name != OUTPUT or output.parameters for output in message.outputs)
    )
    return InferRequest(
        request_id, datatype, shape, pixels, is_binary, None if is_plain else message
    )


def find_input(inputs: object) -> dict[str, Any]:
    """Return the only input; raise HttpError unless there is one, with the right name."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        got = "missing" if inputs is None else f"got {show(inputs)}"
        raise bad_request(f"inputs: {got}; must be a list of one object, {INPUT}")
    if (name := inputs[0].get("name")) != INPUT:
        raise bad_request(f"inputs: got {show(name)}; must be {INPUT}")
    tensor: dict[str, Any] = inputs[0]
    return tensor


def take_bytes(
    size: object,
    tail: memoryview | None,
    tensor: dict[str, Any],
    datatype: str,
    shape: list[int],
) -> memoryview:
    """Return the pixels behind the JSON; raise HttpError unless they are as many as needed."""
    field = f"{INPUT}.parameters.{BINARY_SIZE}"
    if "data" in tensor:
        raise bad_request(f"{INPUT}.data: there is {BINARY_SIZE} too; the data must be there once")
    expected = shape[0] * PIXELS * VALUE_BYTES[datatype]
    if type(size) is not int or size != expected:
        raise bad_request(
            f"{field}: got {show(size)}; must be {expected:,} for {datatype} of shape {shape}"
        )
    if tail is None:
        raise bad_request(
            f"{field}: the header Inference-Header-Content-Length is missing; it must say where the"
            " JSON ends"
        )
    if len(tail) != size:
        raise bad_request(
            f"{field}: got {size:,}, but {len(tail):,} bytes are behind the JSON; must be as many"
        )
    return tail


def parse_outputs(outputs: object, is_binary: bool, message: pb.ModelInferRequest) -> bool:
    """Add the requested outputs to a message; return whether the output is to be binary.

    Args:
        outputs: of the request.
        is_binary: what holds for outputs that do not say.
        message: to add to.
    """
    if outputs is None:
        return is_binary
    if not isinstance(outputs, list) or len(outputs) > ENTRIES_MAX:
        raise bad_request(f"outputs: got {show(outputs)}; must be a list of one object, {OUTPUT}")
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise bad_request(f"outputs: got {show(output)}; must be an object with a name")
        check_names("outputs.", output, OUTPUT_NAMES)
        field = f"{OUTPUT}.parameters"
        parameters = parse_parameters(field, output.get("parameters"))
        is_binary = take_flag(field, parameters, BINARY, is_binary)
        requested = message.outputs.add()
        requested.name = output["name"]
        put_parameters(field, parameters, requested.parameters)
    return is_binary


def parse_parameters(field: str, parameters: object) -> dict[str, Any]:
    """Return parameters, which may be left out; raise HttpError unless they are an object."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or len(parameters) > ENTRIES_MAX:
        raise bad_request(f"{field}: got {show(parameters)}; must be an object")
    return dict(parameters)


def take_flag(field: str, parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    """Remove a parameter that is true or false, and return it."""
    value = parameters.pop(name, default)
    if not isinstance(value, bool):
        raise bad_request(f"{field}.{name}: got {show(value)}; must be true or false")
    return value


def put_parameters(field: str, parameters: dict[str, Any], target: Any) -> None:  # noqa: ANN401
    """Copy parameters into a message; raise HttpError if a value is none of a parameter."""
    for name, value in parameters.items():
        parameter = target[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            kind = "int64_param" if value < 2**63 else "uint64_param"
            setattr(parameter, kind, value)
        elif isinstance(value, float):
            parameter.double_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        else:
            raise bad_request(
                f"{field}.{name[:64]}: got {show(value)}; must be a text, a number, true or false"
            )


def count_members(content: dict[str, Any]) -> int:
    """Return how many names a request has in all its objects."""
    objects = [content, *content["inputs"], *(content.get("outputs") or ())]
    parameters = [each["parameters"] for each in objects if each.get("parameters")]
    return sum(map(len, [*objects, *parameters]))
