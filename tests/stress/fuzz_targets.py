"""Fuzz targets: a target takes any bytes, and raises an exception if its property does not hold.

fuzz.py runs each with a million inputs, guided by coverage; test_fuzzing.py runs a few inputs.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status
from mnist37_client import InvalidInput
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.cli.safetensors_file import load_model
from mnist37_client.errors import Mnist37Error
from mnist37_client.images import to_images, to_labels
from mnist37_client.pictures import read_digit
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.access.tokens import Tokens
from mnist37_server.domain.commands.fingerprint import Fingerprinted
from mnist37_server.domain.examples import count_images, view_images
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import CannotStart, Refusal
from mnist37_server.observability import logs
from mnist37_server.rpc.status import CODES, details
from mnist37_server.services import tensors
from mnist37_server.services.messages import requests as request_parsers
from mnist37_server.services.messages.predict_codec import decode
from mnist37_web.errors import HttpError
from mnist37_web.replies.json_replies import error_reply
from mnist37_web.rest import infer_request
from mnist37_web.rest.infer_answer import InferAnswer
from mnist37_web.rpc_json import transcoding
from PIL import Image
from safetensors.numpy import save
from stress.json_recipes import Recipe, Shape, shape_of, write

SNAPSHOT = Snapshot(0, np.linspace(-1, 1, 785, dtype="<f4").tobytes(), 0, Origin.INITIALIZE)


@dataclass(frozen=True)
class Target:
    """A property that must hold for any bytes."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]  # the first inputs, which the fuzzer mutates


def predict(message: bytes) -> None:
    """Assert that Predict's hand-written decoder agrees with protobuf."""
    try:
        expected = pb.PredictRequest.FromString(message)
    except DecodeError:
        expected = None
    try:
        fields = decode(message)
    except DecodeError:
        assert expected is None, "protobuf reads it"
        return
    assert expected is not None, "protobuf refuses it"
    pixels = fields.message[fields.offset : fields.offset + fields.size]
    assert pixels == expected.pixels
    assert fields.version == (expected.version if expected.HasField("version") else None)
    assert fields.floor == request_parsers.parse_floor(expected)
    try:
        count = count_images(fields.size)
    except Refusal as error:
        check_refusal(error, message)
    else:
        found = SNAPSHOT.predict_bytes(fields.message, fields.offset, count)
        assert found == SNAPSHOT.predict(view_images(pixels)).tobytes()


def open_inference(message: bytes) -> None:
    """Assert that ModelInfer's decoder agrees with protobuf; its tensors are valid or refused."""
    try:
        expected = inference.ModelInferRequest.FromString(message)
    except DecodeError:
        expected = None
    try:
        decoded = tensors.decode(message)
    except DecodeError:
        assert expected is None, "protobuf reads it"
        return
    assert expected is not None, "protobuf refuses it"
    raw = list(expected.raw_input_contents)
    assert [bytes(content) for content in decoded.raw] == raw
    for one in (decoded.request, expected):
        del one.raw_input_contents[:]
    assert decoded.request.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    try:
        tensors.check_request(decoded.request)
        images = tensors.parse_images(decoded)
    except Refusal as error:
        check_refusal(error, message)
        return
    assert images.shape[1:] == (784,)
    assert images.dtype in (np.uint8, np.float32)
    answer = tensors.build_response(decoded.request, np.zeros(len(images), np.float32), 1)
    assert answer.id == expected.id


def tokens(content: bytes) -> None:
    """Assert that a file of tokens is valid, or is refused without a word of its content."""
    try:
        table = Tokens(_file(content))
    except CannotStart as error:
        message = str(error).replace(str(_file(content)), "")
        for line in content.decode("latin1").split():
            assert len(line) < 17 or line not in message
    else:
        assert table.role_of(content.decode("latin1")) is None


def fields(content: bytes) -> None:
    """Check messages of almost valid fields, which random bytes hardly ever form."""
    for check, tags in ((predict, PREDICT_TAGS), (open_inference, INFER_TAGS)):
        check(build_message(content, tags))


def build_message(content: bytes, tags: bytes) -> bytes:
    """Build a message from a recipe of three bytes for each field.

    They are the field's tag (an index into `tags`), the width of its varint in bytes, and the
    number in the varint. If the tag says so, the number is the length of the bytes that follow.
    """
    message = bytearray()
    for tag, width, number in zip(*(content[place::3] for place in range(3)), strict=False):
        message.append(tags[tag % len(tags)])
        digits = [number & 0x7F, number >> 7, *[0] * 9][: width % 11 + 1]
        message += bytes([digit | 0x80 for digit in digits[:-1]]) + bytes(digits[-1:])
        if message[-len(digits) - 1] & 7 == 2:
            message += bytes(number if len(digits) > 1 else number & 0x7F)
    return bytes(message)


def requests(message: bytes) -> None:
    """Assert that a decoded message is a valid request, or is refused with a message that fits."""
    for kind, read in READERS.items():
        try:
            decoded = kind.FromString(message)
        except DecodeError:
            continue
        try:
            request = read(decoded)
        except Refusal as error:
            check_refusal(error, message)
            continue
        again = read(kind.FromString(decoded.SerializeToString()))
        assert request == again
        if hasattr(decoded, "request_id"):
            assert isinstance(request, Fingerprinted)
            assert isinstance(again, Fingerprinted)
            assert request.fingerprint == again.fingerprint


def _with_request_id(read: Callable[..., object]) -> Callable[..., object]:
    def both(message: request_parsers.WriteRequest) -> object:
        request_parsers.parse_request_id(message)
        return read(message)

    return both


READERS: dict[type[Message], Callable[..., object]] = {
    pb.StepRequest: _with_request_id(request_parsers.parse_step),
    pb.TrainRequest: _with_request_id(request_parsers.parse_train),
    pb.InitializeRequest: _with_request_id(request_parsers.parse_initialize),
    pb.RestoreRequest: _with_request_id(request_parsers.parse_restore),
    pb.ImportRequest: _with_request_id(request_parsers.parse_import),
    pb.TagVersionRequest: _with_request_id(request_parsers.parse_tag_version),
    pb.DeleteTagRequest: _with_request_id(request_parsers.parse_delete_tag),
    pb.GetLossRequest: request_parsers.parse_examples,
    pb.GetModelRequest: request_parsers.parse_version,
}


def check_refusal(error: Refusal, message: bytes) -> None:
    """Assert that a refusal has a code, a short text and details, and leaks no internals.

    The text may repeat parts of the request, which are in `message`.
    """
    text = str(error)
    status = Status(code=CODES[type(error)].value[0], message=text)
    for detail in details(error):
        status.details.add().Pack(detail)
    assert len(status.SerializeToString()) < 2000
    for leaked in ("Traceback", ".py", " File"):
        assert leaked not in text or leaked.encode() in message, text


def refusal(trailer: bytes) -> None:
    """Assert that the client translates an error with any details into its own exception."""
    error = FailedCall(grpc.StatusCode.INVALID_ARGUMENT, trailer)
    translated = from_rpc(error, "here")
    assert type(translated) is InvalidInput
    assert isinstance(translated, Mnist37Error)
    assert translated.retry_after is None or 0 <= translated.retry_after < 1e12


class FailedCall(grpc.RpcError):
    """An error as grpc raises it, with some bytes as google.rpc's details."""

    def __init__(self, code: grpc.StatusCode, trailer: bytes) -> None:
        self._code = code
        self._trailer = trailer

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "no"

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._trailer),)


def log_line(content: bytes) -> None:
    """Assert that a caller's text stays on its line, in both formats of the log."""
    text = content.decode("utf-8", "surrogateescape")
    record = logging.LogRecord("mnist37_server", 20, "", 0, text, None, None)
    record.request_id = text
    line = logs.TextFormatter().format(record)
    assert line.isprintable()
    assert logs.JsonFormatter().format(record).count("\n") == 0


def picture_file(content: bytes) -> None:
    """Assert that any file that is given as a picture is read or refused."""
    _read_digit(_with_checksums(content) if content[:8] == PNG else content)


def picture(content: bytes) -> None:
    """Assert that a picture of any mode and size is read or refused."""
    if len(content) < 4:
        return
    mode = MODES[content[0] % len(MODES)]
    size = content[1] % 64 + 1, content[2] % 64 + 1
    needed = len(Image.new(mode, size).tobytes())
    pixels = (content[4:] * needed or bytes(needed))[:needed]
    made, file = Image.frombytes(mode, size, pixels), io.BytesIO()
    exif = Image.Exif()
    exif[274] = content[3]  # the orientation
    jpeg = mode in ("L", "RGB", "CMYK") and content[3] & 128
    made.save(file, "JPEG" if jpeg or mode == "CMYK" else "PNG", exif=exif)
    _read_digit(file.getvalue())


def safetensors(content: bytes) -> None:
    """Assert that any file of parameters is read or refused."""
    try:
        weights, bias = load_model(_file(content))
    except InvalidInput:
        return
    assert weights.shape == (784,)
    assert weights.dtype == bias.dtype == np.float32


def arrays(content: bytes) -> None:
    """Assert that any array is converted to images or labels, or is refused."""
    if len(content) < 2:
        return
    dtype = np.dtype(DTYPES[content[0] % len(DTYPES)])
    whole = len(content[2:]) // dtype.itemsize * dtype.itemsize
    flat = np.frombuffer(content[2 : 2 + whole], dtype)
    if content[1] & 1:
        flat = np.resize(flat, 784 * (content[1] >> 4)) if len(flat) else flat
    shape = SHAPES[content[1] >> 1 & 7]
    array = flat
    with suppress(ValueError):
        array = flat.reshape(shape)
    for convert in (to_images, to_labels):
        with np.errstate(all="ignore"):
            try:
                made = convert(array)
            except InvalidInput:
                continue
        if not isinstance(made, bytes):
            assert made.dtype == np.uint8
            assert made.shape[1:] == (784,)
            assert made.size == array.size


def _read_digit(content: bytes) -> None:
    try:
        image = read_digit(_file(content))
    except InvalidInput:
        return
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    assert image.any(), "there is no ink in it"


PREDICT_TAGS = bytes([0x0A, 0x10, 0x12, 0x08, 0x18])  # pixels, version, and unknown fields
INFER_TAGS = bytes([0x3A, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x02, 0x10])  # raw contents first
PNG = b"\x89PNG\r\n\x1a\n"
MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK")
DTYPES = ("u1", "i1", "?", "f4", "f8", "f2", "i8", "u8", "<u2", "c8", "S4", "U1", "M8[s]", "g")
SHAPES = ((-1,), (-1, 784), (-1, 28, 28), (28, 28), (-1, 1), (1, -1), (-1, 2), (1, 1, -1))


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder


def _file(content: bytes) -> Path:
    path = _folder() / "input"
    path.write_bytes(content)
    return path


def _with_checksums(png: bytes) -> bytes:
    """Return a PNG with the right checksum for each chunk, so that Pillow reads the chunks."""
    whole, place = bytearray(png), len(PNG)
    while place + 12 <= len(whole):
        (length,) = struct.unpack_from(">I", whole, place)
        end = place + 8 + length
        if end + 4 > len(whole):
            break
        struct.pack_into(">I", whole, end, zlib.crc32(whole[place + 4 : end]))
        place = end + 4
    return bytes(whole)


def _pictures() -> Iterator[bytes]:
    digit = np.zeros((9, 7), np.uint8)
    digit[2:7, 3] = 200
    grey = Image.fromarray(digit)
    for mode in MODES:
        for kind in ("PNG", "JPEG"):
            file = io.BytesIO()
            try:
                grey.convert(mode).save(file, kind)
            except (OSError, ValueError):
                continue
            yield file.getvalue()


def _trailers() -> Iterator[bytes]:
    status = Status(code=3, message="no")
    for detail in (
        ErrorInfo(reason="INVALID_FIELD", domain="mnist37", metadata={"a": "b"}),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="x", description="y")]),
        RetryInfo(retry_delay={"seconds": 1}),
    ):
        status.details.add().Pack(detail)
    trailer: Any = to_status(status).trailing_metadata
    yield trailer[0][1]


def _infer_requests() -> Iterator[bytes]:
    for datatype, field, item in (("UINT8", "uint_contents", 1), ("FP32", "fp32_contents", 4)):
        for shape in ([1, 784], [2, 28, 28]):
            count = shape[0] * 784
            typed = inference.ModelInferRequest(model_name="mnist37", id="a")
            tensor = typed.inputs.add(name="pixels", datatype=datatype, shape=shape)
            typed.outputs.add(name="probability")
            typed.parameters["a"].bool_param = True
            raw = inference.ModelInferRequest()
            raw.CopyFrom(typed)
            raw.raw_input_contents.append(bytes(count * item))
            yield raw.SerializeToString()
            getattr(tensor.contents, field).extend([1] * count)
            yield typed.SerializeToString()


def rest(content: bytes) -> None:
    """Assert that the body of a prediction is valid, or is refused with a text that fits.

    The first byte says how many of the bytes behind it are JSON: all, 0, or twice that number.
    """
    sizes = {0: None, 1: "0"}
    first, body = content[:1], content[1:]
    try:
        request = infer_request.parse(
            body, sizes.get(first[0], str(2 * first[0])) if first else None
        )
    except HttpError as error:
        check_http_error(error)
        return
    count = request.shape[0] * 784
    assert request.shape[1:] in ([784], [28, 28])
    assert len(request.pixels) == count * infer_request.VALUE_BYTES[request.datatype]
    message = request.message or inference.ModelInferRequest()
    assert inference.ModelInferRequest.FromString(message.SerializeToString()) == message
    answer = InferAnswer("mnist37", "1", np.zeros(1, np.float32))
    headers, reply = answer.reply(request.id, request.is_binary)
    size = int(dict(headers).get(b"inference-header-content-length", len(reply)))
    assert json.loads(reply[:size]).get("id") == request.id


def transcoder(content: bytes) -> None:
    """Assert that JSON becomes a message which keeps its value as JSON, or is refused."""
    for kind in JSON_KINDS:
        _transcode(kind, content)


def _transcode(kind: type[Message], content: bytes) -> None:
    try:
        message = transcoding.parse(kind, content)
    except HttpError as error:
        check_http_error(error)
        return
    again = transcoding.parse(kind, transcoding.write(kind, message))
    assert kind.FromString(again) == kind.FromString(message) or b"nan" in content.lower()


def json_fields(content: bytes) -> None:
    """Check JSON of almost valid fields; the first byte chooses the message."""
    kind = JSON_KINDS[content[0] % len(JSON_KINDS) if content else 0]
    text = write(shape_of(kind.DESCRIPTOR), Recipe(content[1:]))
    _transcode(kind, text.encode("utf-8", "surrogatepass"))


def rest_fields(content: bytes) -> None:
    """Check the JSON of a prediction whose fields are almost valid."""
    text = write(INFER_SHAPE, Recipe(content))
    rest(b"\0" + text.encode("utf-8", "surrogatepass"))


def check_http_error(error: HttpError) -> None:
    """Assert that an error of web has one line that is not long, and nothing of Python's."""
    assert error.status in (400, 413)
    text = json.loads(bytes(error_reply(error).body))["error"]
    assert 0 < len(text) < 2_200
    assert "\n" not in text
    assert not PYTHONS_WORDS.search(text), text


JSON_KINDS = [
    GetMessageClass(method.input_type)
    for method in pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods
]
PYTHONS_WORDS = re.compile(r"Error\b|Exception\b|Traceback|object at|<class|\bNoneType|_By|\b0x")
_pixels = b",".join([b"9"] * 784)
_numbers = _pixels.decode()
_parameters: Shape = {
    "binary_data": ("true", "false"),
    "binary_data_size": ("784",),
    "start": ("1",),
}
INFER_SHAPE: Shape = {
    "inputs": [
        {
            "name": ('"pixels"',),
            "shape": ("[1, 784]", "[1, 28, 28]", "[2, 784]"),
            "datatype": ('"UINT8"', '"FP32"'),
            "data": (f"[{_numbers}]", f"[[{_numbers}]]", f"[{_numbers},{_numbers}]", "[[1], [2]]"),
            "parameters": _parameters,
        }
    ],
    "id": ('"a"',),
    "parameters": _parameters,
    "outputs": [{"name": ('"probability"',), "parameters": _parameters}],
}
_tensor = b'{"name":"pixels","shape":[1,784],"datatype":"%b","data":[%b]}'
_batch = pb.Batch(pixels=bytes(784), labels=b"\1")
_tensors = {"weight": np.zeros((1, 784), np.float32), "bias": np.zeros(1, np.float32)}

TARGETS = {
    "predict": Target(
        predict,
        [
            pb.PredictRequest(pixels=b"abc").SerializeToString(),
            pb.PredictRequest(pixels=bytes(784), version=2**63).SerializeToString(),
        ],
    ),
    "fields": Target(
        fields, [bytes([0, 0, 3, 1, 0, 7]), bytes([0, 1, 200]), bytes([0, 5, 3]), bytes([2, 0, 1])]
    ),
    "open_inference": Target(open_inference, list(_infer_requests())),
    "tokens": Target(
        tokens,
        [
            b"# who may call\npredict " + b"a1" * 32 + b"  # ours\n\ntrain\t" + b"0F" * 32,
            b"predict " + b"a1" * 32 + b"\r\ntrain " + b"a1" * 32,
        ],
    ),
    "requests": Target(
        requests,
        [
            message.SerializeToString()
            for message in (
                pb.StepRequest(learning_rate=0.5, request_id="a"),
                pb.StepRequest(batch=_batch),
                pb.TrainRequest(epochs=3, learning_rate=1, batch_size=7, seed=1, request_id="b"),
                pb.InitializeRequest(seed=1, std=2, request_id="c"),
                pb.RestoreRequest(version=3, request_id="d"),
                pb.ImportRequest(weights=bytes(3136), bias=1, request_id="e"),
                pb.GetLossRequest(split=pb.SPLIT_TRAIN, version=4),
                pb.GetLossRequest(batch=_batch),
            )
        ],
    ),
    "refusal": Target(refusal, list(_trailers())),
    "log_line": Target(log_line, [b"a\nb=\xff\x1b[0m \xe2\x80\xa8 \xed\xa0\x80"]),
    "picture_file": Target(picture_file, list(_pictures())),
    "picture": Target(picture, [bytes([mode, 9, 20, 1]) + bytes(range(99)) for mode in range(8)]),
    "safetensors": Target(safetensors, [save(_tensors), save({}), save(_tensors, {"a": "b"})]),
    "arrays": Target(arrays, [bytes([kind, 19]) + bytes(range(64)) for kind in range(14)]),
    "rest": Target(
        rest,
        [
            b'\0{"inputs":[' + _tensor % (b"UINT8", _pixels) + b'],"id":"a"}',
            b'\0{"inputs":[' + _tensor % (b"FP32", _pixels.replace(b"9", b"0.5")) + b"]}",
            b'\0{"inputs":[' + _tensor % (b"UINT8", b"[" + _pixels + b"]") + b"]}",
            b"\1" + bytes(784),
            bytes([64])
            + (
                b'{"inputs":[{"name":"pixels","shape":[1,784],"datatype":"UINT8","parameters":'
                b'{"binary_data_size":784}}]}'
            ).ljust(128)
            + bytes(784),
            b'\0{"inputs":['
            + _tensor % (b"UINT8", _pixels)
            + b'],"parameters":{"start":1,"a":"b"},'
            b'"outputs":[{"name":"probability","parameters":{"binary_data":true}}]}',
        ],
    ),
    "json": Target(
        transcoder,
        [
            b'{"split":"SPLIT_VALID","version":"3","tag":"a"}',
            b'{"epochs":3,"learningRate":1e-3,"seed":"1","schedule":"SCHEDULE_LINEAR"}',
            b'{"batch":{"pixels":"AAAA","labels":"AQ=="},"requestId":"\\u00e4"}',
            b'{"states":["RUN_STATE_FINISHED",2],"pageSize":1,"pageToken":null}',
            b'{"position":{"start":"1","version":2},"minInterval":"0.5s"}',
            b'{"weights":"AAAA","bias":"NaN"}',
        ],
    ),
    "json_fields": Target(json_fields, [bytes([kind]) for kind in range(len(JSON_KINDS))]),
    "rest_fields": Target(rest_fields, [b"", bytes(40), bytes([0, 3, 0, 1])]),
}
