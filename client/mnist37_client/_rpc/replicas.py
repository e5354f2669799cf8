"""The followers of a client: where they are, and how gRPC spreads the reads over them."""

from __future__ import annotations

import ipaddress
import json
import reprlib
from collections.abc import Iterable
from typing import NamedTuple

from mnist37_client._rpc.address import check_address
from mnist37_client.errors import InvalidInput, one_line

DNS = "dns:///"
OWNERS_LIST = "owner"  # in the place of addresses: those of the owner's list

# The time limit of one attempt at a follower. A follower may wait 250 ms for a version.
ATTEMPT_SECONDS = 0.5
ATTEMPTS = 2  # each at another follower, mostly; after them the client asks the owner

RETRY = {
    "maxAttempts": ATTEMPTS,
    # Not 1 ms: where chance makes that less, grpcio 1.85 never makes the second attempt.
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
SERVICE_CONFIG = {
    "loadBalancingConfig": [
        {
            # A follower that was paused or is lost is skipped for a time: by then most of its
            # answers of an interval have failed.
            "outlier_detection_experimental": {
                "interval": "0.5s",
                "baseEjectionTime": "2s",
                "maxEjectionTime": "10s",
                # One follower stays at least: its refusals say what is wrong.
                "maxEjectionPercent": 50,
                "failurePercentageEjection": {
                    "threshold": 50,
                    "enforcementPercentage": 100,
                    "minimumHosts": 2,
                    "requestVolume": 2,
                },
                "childPolicy": [{"round_robin": {}}],
            }
        }
    ],
    # A follower that is shutting down says so before it refuses calls.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{"service": "mnist37.v1.Mnist37Service"}],
            "retryPolicy": {**RETRY, "perAttemptRecvTimeout": f"{ATTEMPT_SECONDS}s"},
        },
        {
            # A caller's stream may have nothing to send for any time.
            "name": [{"service": "mnist37.v1.Mnist37Service", "method": "PredictStream"}],
            "retryPolicy": RETRY,
        },
    ],
}
CHANNEL_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.experimental.enable_hedging", 1),  # without it gRPC ignores perAttemptRecvTimeout
    ("grpc.service_config_disable_resolution", 1),  # no TXT record of the name replaces it
]


class Replicas(NamedTuple):
    """The followers, as gRPC finds them."""

    target: str  # of a channel
    addresses: tuple[str, ...]  # HOST:PORT of each, or of the name that stands for all

    def __str__(self) -> str:
        return ", ".join(self.addresses)

    @property
    def hosts(self) -> set[str]:
        """Return the different hosts: a certificate has to name each."""
        return {address.rpartition(":")[0] for address in self.addresses}


def parse_replicas(replicas: str | Iterable[str]) -> Replicas:
    """Return the followers that a caller names: addresses, or one name in the DNS.

    A name is allowed in `dns:///NAME:PORT` alone: gRPC then looks it up again when a follower is
    lost, and finds those that came since. The names of a list would be looked up once.

    Raises:
        InvalidInput: it is neither.
    """
    if isinstance(replicas, str):
        if replicas.startswith(DNS):
            address = check_address(replicas.removeprefix(DNS))
            if not address.startswith("unix:"):
                return Replicas(replicas, (address,))
        replicas = [part.strip() for part in replicas.split(",")]
    try:
        addresses = tuple(dict.fromkeys(map(check_address, replicas)))
    except InvalidInput as error:
        raise InvalidInput(f"replicas: {one_line(str(error))}") from error
    except Exception as error:  # what is no list may raise anything
        raise _invalid(f"got {one_line(reprlib.repr(replicas))}") from error
    versions = {_ip_version(address) for address in addresses}
    if len(versions) != 1:
        raise _invalid("got none" if not addresses else "got IPv4 and IPv6 addresses in one list")
    return Replicas(f"ipv{versions.pop()}:{','.join(addresses)}", addresses)


def parse_listed(addresses: Iterable[str]) -> Replicas | None:
    """Return those of an owner's list of followers that gRPC can be given together.

    These are the addresses with an IP address, of the same version as the first one.

    Raises:
        InvalidInput: there are followers, and none has an IP address.
    """
    usable: dict[str, int] = {}
    unusable = []
    for address in addresses:
        try:
            usable[check_address(address)] = _ip_version(address)
        except InvalidInput:
            unusable.append(address)
    if not usable:
        if not unusable:
            return None
        raise InvalidInput(
            f"replicas: the owner's list has no follower with an IP address, but"
            f" {one_line(reprlib.repr(unusable[0]))}; start the followers with --advertise IP:PORT"
        )
    version = next(iter(usable.values()))
    chosen = sorted(address for address, each in usable.items() if each == version)
    return Replicas(f"ipv{version}:{','.join(chosen)}", tuple(chosen))


def _ip_version(address: str) -> int:
    host, _, _ = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        hint = f"; {DNS}{address} looks a name up" if not address.startswith("unix:") else ""
        raise _invalid(f"got {address!r}{hint}") from None


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(
        f"replicas: {problem}; must be a list of IP:PORT, dns:///NAME:PORT for all addresses of a"
        f" name, or {OWNERS_LIST!r} for the owner's list of its followers"
    )
