"""The stub of the service, with answers as bytes."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import grpc.aio
from mnist37_protos.v1 import mnist37_pb2_grpc


def make_stub(channel: grpc.Channel | grpc.aio.Channel) -> mnist37_pb2_grpc.Mnist37ServiceStub:
    """Return a stub whose calls return the answers' bytes; _rpc/messages/responses decodes them."""
    return mnist37_pb2_grpc.Mnist37ServiceStub(_BytesChannel(channel))


class _BytesChannel:
    """A channel whose calls do not decode their answers, whatever decoder the stub asks for."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, kind: str) -> Callable[..., object]:
        """Return the channel's method that makes calls of a kind: unary_unary for example."""
        make = getattr(self._channel, kind)

        def make_call(method: str, **options: object) -> object:
            return make(method, **{**options, "response_deserializer": None})

        return make_call
