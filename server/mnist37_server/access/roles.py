"""What each role may call: one table for all RPCs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Role(Enum):
    """What a token is for; its words stand in the file of tokens.

    Whoever may train may predict too.
    """

    PREDICT = "predict"
    TRAIN = "train"


# The least role that each RPC needs; None: it needs no token. An RPC that is not listed needs
# train: one that is added later is closed until somebody opens it, and one that does not exist
# looks like one that does.
REQUIRED_ROLES: Mapping[str, Mapping[Role | None, tuple[str, ...]]] = {
    "mnist37.v1.Mnist37Service": {
        Role.PREDICT: (
            "Predict",
            "PredictStream",
            "GetLoss",
            "GetModel",
            "ListVersions",
            "ListRuns",
            "WatchRun",
        ),
        Role.TRAIN: ("Step", "Train", "Initialize", "Restore", "Import"),
    },
    "inference.GRPCInferenceService": {
        Role.PREDICT: (
            "ServerLive",
            "ServerReady",
            "ModelReady",
            "ServerMetadata",
            "ModelMetadata",
            "ModelInfer",
        ),
    },
    # Probes and tools have no token, and find nothing here that is secret.
    "grpc.health.v1.Health": {None: ("Check", "Watch", "List")},
    "grpc.reflection.v1.ServerReflection": {None: ("ServerReflectionInfo",)},
    "grpc.reflection.v1alpha.ServerReflection": {None: ("ServerReflectionInfo",)},
}


def rpcs_of(role: Role | None) -> frozenset[str]:
    """Return the RPCs that need this role, as gRPC names them: /SERVICE/METHOD."""
    return frozenset(
        f"/{service}/{method}"
        for service, needed in REQUIRED_ROLES.items()
        for method in needed.get(role, ())
    )


READS = rpcs_of(Role.PREDICT)
# By their services: to look for a prefix is enough, and methods that do not exist are harmless.
OPEN = tuple(f"/{service}/" for service, needed in REQUIRED_ROLES.items() if set(needed) == {None})
