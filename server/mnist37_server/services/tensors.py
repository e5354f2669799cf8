"""Convert tensors of the Open Inference Protocol to images, and probabilities to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mnist37_protos.inference import open_inference_pb2 as pb
from numpy.typing import NDArray

from mnist37_server.domain.snapshot import Images
from mnist37_server.errors import InvalidArgument
from mnist37_server.services.field_limits import LENGTH_DELIMITED, check_fields
from mnist37_server.services.messages.predict_codec import read_varint

INPUT, OUTPUT = "pixels", "probability"
SHAPES = ([784], [28, 28])  # of one image
# How many values of typed contents to copy at a time. A copy holds the interpreter lock, for about
# half a millisecond; other threads can run between two copies.
VALUES_PER_COPY = 8 * 784


class Datatype(NamedTuple):
    """The format of the pixels of one datatype."""

    raw_dtype: np.dtype[Any]  # in raw_input_contents
    contents_field: str  # the field of InferTensorContents that holds the pixels
    ink: int  # the highest value of a pixel; background is 0


DATATYPES = {
    "UINT8": Datatype(np.dtype(np.uint8), "uint_contents", 255),
    "FP32": Datatype(np.dtype("<f4"), "fp32_contents", 1),
}

INPUTS = [pb.ModelMetadataResponse.TensorMetadata(name=INPUT, datatype="UINT8", shape=[-1, 784])]
OUTPUTS = [pb.ModelMetadataResponse.TensorMetadata(name=OUTPUT, datatype="FP32", shape=[-1])]

# Extensions of Triton's that change what is read or answered. All other parameters are hints, such
# as priority and timeout, and have no effect.
NO_SHARED_MEMORY = "there is no shared memory here; the data must be in the message"
NO_SEQUENCES = "there are no sequences here; each request stands alone"
REFUSED_PARAMETERS = {
    "classification": "there is no class_count here; the output is the probability of a 3",
    "shared_memory_region": NO_SHARED_MEMORY,
    "shared_memory_offset": NO_SHARED_MEMORY,
    "shared_memory_byte_size": NO_SHARED_MEMORY,
    "sequence_id": NO_SEQUENCES,
    "sequence_start": NO_SEQUENCES,
    "sequence_end": NO_SEQUENCES,
}

REQUEST_TYPE = pb.DESCRIPTOR.message_types_by_name["ModelInferRequest"]
# The tag of the field raw_input_contents: its number, and the wire type "length-delimited" (2).
RAW_TAG = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | LENGTH_DELIMITED


class InferFields(NamedTuple):
    """A decoded ModelInferRequest. Its raw data are not copied."""

    request: pb.ModelInferRequest  # the request; its own raw_input_contents are not used
    raw: Sequence[bytes | memoryview]  # the raw_input_contents


def decode(message: bytes) -> InferFields:
    """Return the fields of a serialized ModelInferRequest; its raw data are views of the message.

    Raises:
        MalformedMessage: the message has too many fields.
        google.protobuf.message.DecodeError: the bytes are not a ModelInferRequest.
    """
    check_fields(message, REQUEST_TYPE)
    view = memoryview(message)
    raw: list[memoryview] = []
    other_fields: list[memoryview] = []
    offset = 0
    try:
        while offset < len(message):
            if message[offset] & 0x87 != LENGTH_DELIMITED:  # or the field's number is above 15
                break
            length, start = read_varint(message, offset + 1)
            field_end = start + length
            if message[offset] == RAW_TAG:
                raw.append(view[start:field_end])
            else:
                other_fields.append(view[offset:field_end])
            offset = field_end
        else:
            if offset == len(message):
                return InferFields(pb.ModelInferRequest.FromString(b"".join(other_fields)), raw)
    except IndexError:
        pass
    request = pb.ModelInferRequest.FromString(message)
    return InferFields(request, request.raw_input_contents)


def parse_images(fields: InferFields) -> Images:
    """Return the images (N, 784), as uint8 of 0..255 or float32 of 0..1.

    Raw UINT8 data are not copied.

    Raises:
        InvalidArgument: the model does not accept the input; names the field and says why.
    """
    tensor = find_input(fields.request.inputs)
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise InvalidArgument(
            f"{INPUT}.datatype",
            f"got {shorten(tensor.datatype)}",
            f"must be {' or '.join(DATATYPES)}",
        )
    size = count_images(list(tensor.shape)) * 784
    if fields.raw:
        values = parse_raw(fields.raw, tensor, datatype, size)
    else:
        values = parse_typed(tensor, datatype, size)
    return values.reshape(-1, 784)


def find_input(
    tensors: Sequence[pb.ModelInferRequest.InferInputTensor],
) -> pb.ModelInferRequest.InferInputTensor:
    """Return the only input; raise InvalidArgument unless there is one, with the right name."""
    if len(tensors) != 1:
        raise InvalidArgument("inputs", f"got {len(tensors):,}", f"must be one, {INPUT}")
    if tensors[0].name != INPUT:
        raise InvalidArgument("inputs", f"got {shorten(tensors[0].name)}", f"must be {INPUT}")
    return tensors[0]


def count_images(shape: list[int]) -> int:
    """Return the N of a shape; raise InvalidArgument unless it is [N, 784] or [N, 28, 28]."""
    if shape[1:] not in SHAPES or shape[0] < 1:
        problem = f"got {shape}" if len(shape) <= 4 else f"got {len(shape):,} dimensions"
        expected = "must be [N, 784] or [N, 28, 28] with N at least 1"
        raise InvalidArgument(f"{INPUT}.shape", problem, expected)
    return shape[0]


def parse_raw(
    contents: Sequence[bytes | memoryview],
    tensor: pb.ModelInferRequest.InferInputTensor,
    datatype: Datatype,
    size: int,
) -> Images:
    """Return the pixels in raw_input_contents.

    Args:
        contents: the raw_input_contents.
        tensor: the input.
        datatype: the format of the input.
        size: the number of pixels that its shape has.

    Raises:
        InvalidArgument: the data do not match the input.
    """
    field = "raw_input_contents"
    if tensor.contents.ListFields():
        raise InvalidArgument(
            field, f"{INPUT} has contents too", "the data must be in one of the two alone"
        )
    if len(contents) != 1:
        raise InvalidArgument(field, f"got {len(contents):,}", "must be one, for the one input")
    content = contents[0]
    if len(content) != size * datatype.raw_dtype.itemsize:
        raise InvalidArgument(
            field,
            f"got {len(content):,} bytes",
            f"must be {size * datatype.raw_dtype.itemsize:,} for {tensor.datatype} of shape"
            f" {list(tensor.shape)}",
        )
    values = np.frombuffer(content, datatype.raw_dtype)
    if values.dtype == np.uint8:
        return values
    # In a message, floats can begin at any offset. The kernels need aligned ones.
    return check_values(np.require(values, requirements="A"), datatype)


def parse_typed(
    tensor: pb.ModelInferRequest.InferInputTensor, datatype: Datatype, size: int
) -> Images:
    """Return the pixels in the contents of the input.

    Args:
        tensor: the input.
        datatype: the format of the input.
        size: the number of pixels that its shape has.

    Raises:
        InvalidArgument: the contents do not match the input.
    """
    other_fields = {field.name for field, _ in tensor.contents.ListFields()} - {
        datatype.contents_field
    }
    if other_fields:
        raise InvalidArgument(
            f"{INPUT}.contents",
            f"got {', '.join(sorted(other_fields))}",
            f"{tensor.datatype} must be in {datatype.contents_field}",
        )
    content = getattr(tensor.contents, datatype.contents_field)
    if len(content) != size:
        raise InvalidArgument(
            f"{INPUT}.contents.{datatype.contents_field}",
            f"got {len(content):,} values",
            f"must be {size:,} for shape {list(tensor.shape)}, or as bytes in raw_input_contents",
        )
    values = np.empty(size, np.uint32 if datatype.raw_dtype == np.uint8 else np.float32)
    for start in range(0, size, VALUES_PER_COPY):
        chunk = slice(start, start + VALUES_PER_COPY)
        values[chunk] = content[chunk]
    return check_values(values, datatype).astype(datatype.raw_dtype, copy=False)


def check_values(values: NDArray[Any], datatype: Datatype) -> NDArray[Any]:
    """Return the values unchanged; raise InvalidArgument unless each is a pixel."""
    if not (values.min() >= 0 and values.max() <= datatype.ink):  # false for NaN too
        first = np.flatnonzero(~((values >= 0) & (values <= datatype.ink)))[0]
        raise InvalidArgument(
            INPUT,
            f"got {values[first]:g} for pixel {first % 784} of image {first // 784:,}",
            f"must be 0 to {datatype.ink}",
        )
    return values


def check_request(request: pb.ModelInferRequest) -> None:
    """Raise InvalidArgument if the request asks for more than the probabilities.

    It may name an output that the model does not have, or have a parameter of REFUSED_PARAMETERS.
    """
    check_parameters("parameters", request.parameters)
    for tensor in request.inputs:
        check_parameters(f"{INPUT}.parameters", tensor.parameters)
    for output in request.outputs:
        if output.name != OUTPUT:
            raise InvalidArgument("outputs", f"got {shorten(output.name)}", f"must be {OUTPUT}")
        check_parameters(f"{OUTPUT}.parameters", output.parameters)


def check_parameters(field: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    """Raise InvalidArgument if one of the parameters would give another answer."""
    for name in parameters:
        if name in REFUSED_PARAMETERS:
            raise InvalidArgument(field, f"got {name}", REFUSED_PARAMETERS[name])


def build_response(
    request: pb.ModelInferRequest, probabilities: NDArray[np.float32], version: int
) -> pb.ModelInferResponse:
    """Return the response, with the probabilities as raw data."""
    output = pb.ModelInferResponse.InferOutputTensor(
        name=OUTPUT, datatype="FP32", shape=[len(probabilities)]
    )
    return pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(version),
        id=request.id,
        outputs=[output],
        raw_output_contents=[probabilities.astype("<f4", copy=False).tobytes()],
    )


def shorten(text: str) -> str:
    """Return a text from a request for an error message, cut to 64 characters and quoted."""
    return repr(text[:64])
