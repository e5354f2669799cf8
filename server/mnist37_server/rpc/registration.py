"""Register methods so that grpcio neither decodes their requests nor loses their calls.

grpcio keeps a call's state for ever if its deserializer raises, and it has no limits for slow
callers. So each method is registered as one whose requests are a stream of bytes. It reads and
decodes its request itself, on its own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mnist37_server.errors import MalformedMessage, Refusal
from mnist37_server.rpc.handlers import Handler
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.status import refuse

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


class Codec(NamedTuple):
    """A decoder of a method's requests and an encoder of its responses."""

    decode: Decode
    encode: Encode | None  # None: the method returns bytes


def register(
    server: grpc.Server,
    service: ServiceDescriptor,
    servicer: object,
    slow_callers: SlowCallers,
    codecs: Mapping[str, Codec] | None = None,
    name: str | None = None,
    *,
    prompt_streams: bool = False,
) -> None:
    """Register the methods that a servicer has of a service.

    Args:
        server: the server, not started yet.
        service: the descriptor of the service.
        servicer: the object with the methods, whose exceptions are statuses already.
        slow_callers: the limits for callers that are slow to send or to read.
        codecs: the codecs of some methods; those of the other methods are protobuf's.
        name: the name of the service, if it is not the descriptor's.
        prompt_streams: whether each request of a stream of requests must come in time, and not
            only the one request of other methods.
    """
    codecs = codecs or {}
    handlers = {
        method.name: make_handler(
            method,
            getattr(servicer, method.name),
            codecs.get(method.name) or protobuf_codec(method),
            slow_callers,
            prompt_streams,
        )
        for method in service.methods
        if hasattr(servicer, method.name)
    }
    server.add_registered_method_handlers(name or service.full_name, handlers)


def protobuf_codec(method: MethodDescriptor) -> Codec:
    """Return the codec of a method that uses the generated classes."""
    return Codec(
        GetMessageClass(method.input_type).FromString,
        GetMessageClass(method.output_type).SerializeToString,
    )


def make_handler(
    method: MethodDescriptor,
    behavior: Callable[..., Any],
    codec: Codec,
    slow_callers: SlowCallers,
    prompt_streams: bool,
) -> Handler:
    """Return grpcio's handler of a method."""
    decode = refuse_malformed(method.input_type.full_name, codec.decode)
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(
            receive_stream(behavior, decode, slow_callers, prompt_streams), None, codec.encode
        )
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(
            receive_one_answer_stream(behavior, decode, slow_callers), None, codec.encode
        )
    return grpc.stream_unary_rpc_method_handler(
        receive_one(behavior, decode, slow_callers), None, codec.encode
    )


def refuse_malformed(message_name: str, decode: Decode) -> Decode:
    """Return a decoder that raises MalformedMessage for bytes that are no such message."""

    def decode_or_refuse(message: bytes) -> object:
        try:
            return decode(message)
        except DecodeError:
            raise MalformedMessage(
                f"the message is not a serialized {message_name}", message=message_name
            ) from None

    return decode_or_refuse


def receive_one(
    behavior: Callable[..., Any], decode: Decode, slow_callers: SlowCallers
) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
    """Return a behavior that receives its one request, and returns its one response."""

    @wraps(behavior)  # with the thread pool that grpcio looks for on it
    def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> object:
        try:
            try:
                request = decode(slow_callers.receive(requests, context))
            except Refusal as error:
                refuse(context, error, behavior.__name__)
            return behavior(request, context)
        finally:
            slow_callers.watch_answer(context)

    return call


def receive_one_answer_stream(
    behavior: Callable[..., Iterator[Any]], decode: Decode, slow_callers: SlowCallers
) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[Any]]:
    """Return a behavior that receives its one request, and yields its responses."""

    @wraps(behavior)
    def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            try:
                request = decode(slow_callers.receive(requests, context))
            except Refusal as error:
                refuse(context, error, behavior.__name__)
            yield from behavior(request, context)
        finally:
            slow_callers.watch_answer(context)

    return call


def receive_stream(
    behavior: Callable[..., Iterator[Any]],
    decode: Decode,
    slow_callers: SlowCallers,
    prompt_streams: bool,
) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[Any]]:
    """Return a behavior that receives requests as they come, and yields its responses."""

    @wraps(behavior)
    def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            if prompt_streams:
                requests = slow_callers.receive_all(requests, context)
            yield from behavior(map(decode, requests), context)
        finally:
            slow_callers.watch_answer(context)

    return call
