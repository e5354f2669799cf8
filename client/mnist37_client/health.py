"""Whether a server is serving, asked as any probe asks: grpc.health.v1.

A probe comes again and again, so it loads gRPC and nothing else: a third of what a Client takes.
"""

from __future__ import annotations

import grpc

from mnist37_client._rpc.channel import ConnectionSettings, Pem
from mnist37_client._rpc.status import from_rpc
from mnist37_client.errors import Unavailable

CHECK = "/grpc.health.v1.Health/Check"
# The two messages of this call are so small that they need no library: of the server as a whole,
# and that it is serving.
REQUEST = b""
SERVING = b"\x08\x01"
DEVICE = "mnist37-device"  # the metadata in which the server names its device
TIMEOUT = 5.0  # seconds


def check(
    address: str,
    *,
    tls_ca: Pem | None = None,
    tls_cert: Pem | None = None,
    tls_key: Pem | None = None,
    tls_server_name: str | None = None,
) -> str | None:
    """Return the device of a server that is serving, as torch prints it.

    Health needs no token; the arguments are those of mnist37_client.Client.

    Returns:
        The device, or None where the server does not name it.

    Raises:
        Unavailable: it is shutting down, has lost its device, or nobody listens there.
        Mnist37Error: it cannot be asked.
    """
    access = ConnectionSettings(address, tls_ca, tls_cert, tls_key, tls_server_name, None, False)
    with access.channel(grpc.insecure_channel, grpc.secure_channel, []) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        try:
            answer, call = ask.with_call(REQUEST, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise from_rpc(error, address) from error
    if answer != SERVING:
        raise Unavailable(f"{address} is not serving")
    about = dict(call.trailing_metadata() or ())
    device = about.get(DEVICE)
    return device if isinstance(device, str) and device.isprintable() else None
