"""The routes of Envoy, and what it replies or asks itself before a call has one."""

from __future__ import annotations

import base64
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from mnist37_server.errors import Reason

Config = dict[str, Any]

EXTENSIONS = "type.googleapis.com/envoy.extensions."
OWNER, SELF = "owner", "self"  # the names of the clusters
AUTHORIZE = "/-/authorize"  # before the path of a call: whether it may be passed on
# The methods that the front answers itself.
OWN_PATHS = (
    "/mnist37.v1.Mnist37Service/Predict",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStatistics",  # of these predictions
)
HEALTH = "/grpc.health.v1.Health/"


def routes(asks_for_tokens: bool) -> list[Config]:
    """Return the routes: the front's own methods, then those of the owner, then HTTP."""

    def without(*filters: str) -> Config:
        disabled = {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": True,
        }
        return {"typed_per_filter_config": dict.fromkeys(filters, disabled)} if filters else {}

    # A route has a cluster; the application answers before that.
    own: Config = {"route": {"cluster": OWNER}}
    own |= without(*(["authorization"] if asks_for_tokens else []))
    passed_on = {
        "cluster": OWNER,
        "timeout": "0s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
    }
    return [
        *({"match": {"path": path}, **own} for path in OWN_PATHS),
        {"match": {"prefix": HEALTH}, **own},
        {"match": {"prefix": "/", "grpc": {}}, "route": passed_on, **without("pyvoy")},
        {"match": {"prefix": "/"}, **own},
    ]


def authorization() -> Config:
    """Return the filter that asks the application whether a call may be passed on.

    So a call without a valid token never reaches the owner.
    """

    def named(*names: str) -> Config:
        return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}

    return {
        "name": "authorization",
        "typed_config": {
            "@type": f"{EXTENSIONS}filters.http.ext_authz.v3.ExtAuthz",
            "allowed_headers": named("authorization"),
            "http_service": {
                "server_uri": {"uri": "http://front", "cluster": SELF, "timeout": "5s"},
                "path_prefix": AUTHORIZE,
                "authorization_response": {
                    "allowed_client_headers": named("grpc-status-details-bin")
                },
            },
        },
    }


def local_replies() -> list[Config]:
    """Return the replies that Envoy makes itself, as the contract has them.

    A call that cannot be passed on fails with UNAVAILABLE and says when to try again.
    """
    text = "the front cannot reach the owner of the model; try again"
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=text)
    info = ErrorInfo(reason=Reason.OWNER_UNREACHABLE.name, domain="mnist37")
    status.details.add().Pack(info)
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=1)))
    encoded = base64.b64encode(status.SerializeToString()).rstrip(b"=").decode()
    return [
        {
            "filter": {"response_flag_filter": {"flags": ["UF", "UH", "UC", "UO", "LR", "URX"]}},
            "body_format_override": {"text_format_source": {"inline_string": text}},
            "headers_to_add": [
                {
                    "header": {"key": "grpc-status-details-bin", "value": encoded},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        }
    ]
