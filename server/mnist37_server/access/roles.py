"""The roles of tokens, and one table of the role that each RPC needs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Role(Enum):
    """A token's role; the token file contains its value.

    The roles are nested: each also allows all that the one before it allows.
    """

    PREDICT = "predict"
    FOLLOW = "follow"
    TRAIN = "train"


# The lowest role that each RPC needs; None: it needs no token. An RPC that is not listed needs
# train. So an RPC that is added later is closed until it is listed, and a caller without that role
# cannot find out which RPCs exist.
REQUIRED_ROLES: Mapping[str, Mapping[Role | None, tuple[str, ...]]] = {
    "mnist37.v1.Mnist37Service": {
        Role.PREDICT: (
            "Predict",
            "PredictStream",
            "GetLoss",
            "GetModel",
            "ListVersions",
            "ListTags",
            "ListRuns",
            "WatchRun",
        ),
        Role.FOLLOW: ("Follow", "ListFollowers"),
        Role.TRAIN: (
            "Step",
            "Train",
            "Initialize",
            "Restore",
            "Import",
            "TagVersion",
            "DeleteTag",
        ),
    },
    "inference.GRPCInferenceService": {
        Role.PREDICT: (
            "ServerLive",
            "ServerReady",
            "ModelReady",
            "ServerMetadata",
            "ModelMetadata",
            "ModelInfer",
            "ModelStreamInfer",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
        ),
    },
    # Probes and tools have no token. These services reveal nothing secret.
    "grpc.health.v1.Health": {None: ("Check", "Watch", "List")},
    "grpc.reflection.v1.ServerReflection": {None: ("ServerReflectionInfo",)},
    "grpc.reflection.v1alpha.ServerReflection": {None: ("ServerReflectionInfo",)},
}


def rpcs_of(role: Role | None) -> frozenset[str]:
    """Return the RPCs that need this role, as gRPC names them: /SERVICE/METHOD."""
    return frozenset(
        f"/{service}/{method}"
        for service, rpcs in REQUIRED_ROLES.items()
        for method in rpcs.get(role, ())
    )


READS = rpcs_of(Role.PREDICT)
FOLLOWS = rpcs_of(Role.FOLLOW)
# What a role may call, beside the open services. The role train may call everything, also what does
# not exist.
ALLOWED = {Role.PREDICT: READS, Role.FOLLOW: READS | FOLLOWS}
# The services that need no token, as prefixes of their RPCs. A prefix is enough: a method that does
# not exist is harmless.
OPEN = tuple(f"/{service}/" for service, rpcs in REQUIRED_ROLES.items() if set(rpcs) == {None})
