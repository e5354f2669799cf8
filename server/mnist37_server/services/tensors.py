"""Tensors of the Open Inference Protocol to images, and probabilities to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mnist37_protos.inference import open_inference_pb2 as pb
from numpy.typing import NDArray

from mnist37_server.domain.snapshot import Images
from mnist37_server.errors import InvalidArgument
from mnist37_server.services.predict_codec import varint

INPUT, OUTPUT = "pixels", "probability"
SHAPES = ([784], [28, 28])  # of an image
VALUES_PER_CHECK = 8 * 784  # of typed contents: half a millisecond, then other threads get a turn


class Datatype(NamedTuple):
    """How the pixels of one datatype travel."""

    raw: np.dtype[Any]  # in raw_input_contents
    contents: str  # the field of InferTensorContents
    most: int  # what ink is; background is 0


DATATYPES = {
    "UINT8": Datatype(np.dtype(np.uint8), "uint_contents", 255),
    "FP32": Datatype(np.dtype("<f4"), "fp32_contents", 1),
}

INPUTS = [pb.ModelMetadataResponse.TensorMetadata(name=INPUT, datatype="UINT8", shape=[-1, 784])]
OUTPUTS = [pb.ModelMetadataResponse.TensorMetadata(name=OUTPUT, datatype="FP32", shape=[-1])]

# The field of raw data in a message begins with its number and its kind (that it has a length).
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2
FIELDS_MAX = 64  # that are looked at here; who sends more can wait for protobuf


class InferFields(NamedTuple):
    """A ModelInferRequest."""

    request: pb.ModelInferRequest  # whose own raw_input_contents are not looked at
    raw: Sequence[bytes | memoryview]  # these are


def decode(message: bytes) -> InferFields:
    """Reads a ModelInferRequest; its raw data are views of the message.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    view = memoryview(message)
    raw: list[memoryview] = []
    rest: list[memoryview] = []
    place = 0
    try:
        for _ in range(FIELDS_MAX):
            if place == len(message):
                return InferFields(pb.ModelInferRequest.FromString(b"".join(rest)), raw)
            if message[place] & 0x87 != 2:  # no field of ours, each of which has a length
                break
            length, start = varint(message, place + 1)
            end = start + length
            if message[place] == RAW:
                raw.append(view[start:end])
            else:
                rest.append(view[place:end])
            place = end
    except IndexError:
        pass
    request = pb.ModelInferRequest.FromString(message)
    return InferFields(request, request.raw_input_contents)


def parse_images(fields: InferFields) -> Images:
    """The images (N, 784): uint8 of 0..255, not copied where they are raw; or float32 of 0..1.

    Raises:
        InvalidArgument: the input is not what the model takes; says of which field and why.
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
    """Raises InvalidArgument unless there is one, with the right name."""
    if len(tensors) != 1:
        raise InvalidArgument("inputs", f"got {len(tensors):,}", f"must be one, {INPUT}")
    if tensors[0].name != INPUT:
        raise InvalidArgument("inputs", f"got {shorten(tensors[0].name)}", f"must be {INPUT}")
    return tensors[0]


def count_images(shape: list[int]) -> int:
    """How many images have this shape; raises InvalidArgument where no images have it."""
    if shape[1:] not in SHAPES or shape[0] < 1:
        came = f"got {shape}" if len(shape) <= 4 else f"got {len(shape):,} dimensions"
        right = "must be [N, 784] or [N, 28, 28] with N at least 1"
        raise InvalidArgument(f"{INPUT}.shape", came, right)
    return shape[0]


def parse_raw(
    contents: Sequence[bytes | memoryview],
    tensor: pb.ModelInferRequest.InferInputTensor,
    datatype: Datatype,
    size: int,
) -> Images:
    """The pixels in raw_input_contents; raises InvalidArgument unless they are right."""
    field = "raw_input_contents"
    if tensor.contents.ListFields():
        raise InvalidArgument(
            field, f"{INPUT} has contents too", "the data must be in one of the two alone"
        )
    if len(contents) != 1:
        raise InvalidArgument(field, f"got {len(contents):,}", "must be one, for the one input")
    content = contents[0]
    if len(content) != size * datatype.raw.itemsize:
        raise InvalidArgument(
            field,
            f"got {len(content):,} bytes",
            f"must be {size * datatype.raw.itemsize:,} for {tensor.datatype} of shape"
            f" {list(tensor.shape)}",
        )
    values = np.frombuffer(content, datatype.raw)
    if values.dtype == np.uint8:
        return values
    # In a message floats may begin anywhere, but not for the processor.
    return check_values(np.require(values, requirements="A"), datatype)


def parse_typed(
    tensor: pb.ModelInferRequest.InferInputTensor, datatype: Datatype, size: int
) -> Images:
    """The pixels in the input's contents; raises InvalidArgument unless they are right."""
    others = {field.name for field, _ in tensor.contents.ListFields()} - {datatype.contents}
    if others:
        raise InvalidArgument(
            f"{INPUT}.contents",
            f"got {', '.join(sorted(others))}",
            f"{tensor.datatype} must be in {datatype.contents}",
        )
    content = getattr(tensor.contents, datatype.contents)
    if len(content) != size:
        raise InvalidArgument(
            f"{INPUT}.contents.{datatype.contents}",
            f"got {len(content):,} values",
            f"must be {size:,} for shape {list(tensor.shape)}, or as bytes in raw_input_contents",
        )
    values = np.empty(size, np.uint32 if datatype.raw == np.uint8 else np.float32)
    for start in range(0, size, VALUES_PER_CHECK):
        part = slice(start, start + VALUES_PER_CHECK)
        values[part] = content[part]
    return check_values(values, datatype).astype(datatype.raw, copy=False)


def check_values(values: NDArray[Any], datatype: Datatype) -> NDArray[Any]:
    """The same values; raises InvalidArgument unless each is a pixel."""
    if not (values.min() >= 0 and values.max() <= datatype.most):  # false for NaN too
        first = np.flatnonzero(~((values >= 0) & (values <= datatype.most)))[0]
        raise InvalidArgument(
            INPUT,
            f"got {values[first]:g} for pixel {first % 784} of image {first // 784:,}",
            f"must be 0 to {datatype.most}",
        )
    return values


def check_outputs(request: pb.ModelInferRequest) -> None:
    """Raises InvalidArgument where an output is asked for that there is not."""
    for output in request.outputs:
        if output.name != OUTPUT:
            raise InvalidArgument("outputs", f"got {shorten(output.name)}", f"must be {OUTPUT}")


def build_response(
    request: pb.ModelInferRequest, probabilities: NDArray[np.float32], version: int
) -> pb.ModelInferResponse:
    """The answer, its data raw."""
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
    """What came, for the text of an error, which must stay short."""
    return repr(text[:64])
