"""A health check of a server by grpc.health.v1, the protocol of probes.

A probe runs again and again, so this module loads gRPC and nothing else: it takes a third of what
a Client takes.
"""

from __future__ import annotations

import grpc

from mnist37_client._rpc.address import check_address, to_loopback
from mnist37_client._rpc.channel import ConnectionSettings, Pem
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.errors import Unavailable

CHECK = "/grpc.health.v1.Health/Check"
# The two messages of this call are so small that the module encodes them without protobuf.
REQUEST = b""  # the service "": the server as a whole
SERVING = b"\x08\x01"
DEVICE_KEY = "mnist37-device"  # the key of the metadata that names the server's device
TIMEOUT_SECONDS = 5.0


def check(
    address: str,
    *,
    tls_ca: Pem | None = None,
    tls_cert: Pem | None = None,
    tls_key: Pem | None = None,
    tls_server_name: str | None = None,
) -> str | None:
    """Return the device of a server that is serving, as torch prints it.

    The call needs no token. The arguments are those of mnist37_client.Client.

    Returns:
        The device, or None if the server does not name it.

    Raises:
        InvalidInput: an argument is not valid.
        Unavailable: the server is shutting down or has lost its device, or does not listen.
        Mnist37Error: the call failed for another reason.
    """
    address = to_loopback(check_address(address))
    settings = ConnectionSettings(
        address, None, tls_ca, tls_cert, tls_key, tls_server_name, None, False
    )
    with settings.channel(grpc.insecure_channel, grpc.secure_channel, []) as channel:
        health_check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        try:
            response, call = health_check.with_call(REQUEST, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc(error, address) from error
    if response != SERVING:
        raise Unavailable(f"{address} is not serving")
    metadata = dict(call.trailing_metadata() or ())
    device = metadata.get(DEVICE_KEY)
    return device if isinstance(device, str) and device.isprintable() else None
