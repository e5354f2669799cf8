"""The routes of Envoy, and what it replies or asks itself before a call has one."""

from __future__ import annotations

import base64
import json
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from mnist37_server.errors import Reason
from mnist37_web.access.boundary import SECURITY_HEADERS

Config = dict[str, Any]

EXTENSIONS = "type.googleapis.com/envoy.extensions."
OWNER, SELF = "owner", "self"  # the names of the clusters
AUTHORIZE = "/-/authorize"  # before the path of a call: whether it may be passed on
PROTOCOL = "x-mnist37-protocol"  # the header by which routes tell HTTP/2, set by Envoy alone
OVERLOADED = "OVERLOADED"  # the reason where the front itself has too much to do
RETRY_SECONDS = 1
# The methods that the front answers itself.
OWN_PATHS = (
    "/mnist37.v1.Mnist37Service/Predict",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStatistics",  # of these predictions
)
HEALTH = "/grpc.health.v1.Health/"
# A path with ASCII alone, also behind its percent signs, and the query. No route has other
# characters, and pyvoy fails at bytes that are not UTF-8: such a call would never be answered.
ASCII_PATH = r"([!-$&-~]|%[^89A-Fa-f])*%?(\?.*)?"


def routes(asks_for_tokens: bool, is_internal: bool) -> list[Config]:
    """Return the routes: the front's own methods, then those of the owner, then HTTP.

    Args:
        asks_for_tokens: whether calls need a token.
        is_internal: whether they are those of the listener for the front itself.
    """

    def without(*filters: str) -> Config:
        disabled = {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": True,
        }
        return {"typed_per_filter_config": dict.fromkeys(filters, disabled)} if filters else {}

    # A route has a cluster; the application answers before that.
    own: Config = {"route": {"cluster": OWNER}}
    tokens = ["authorization"] if asks_for_tokens else []
    own |= without(*tokens)
    passed_on = {
        "cluster": OWNER,
        "timeout": "0s",
        # The owner takes so many calls of a connection, and has not begun a call that it refuses.
        "retry_policy": {"retry_on": "refused-stream", "num_retries": 3},
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
    }
    not_ascii = {
        "name": ":path",
        "string_match": {"safe_regex": {"regex": ASCII_PATH}},
        "invert_match": True,
    }
    # By HTTP/1.1, a page in a browser could send calls past what keeps foreign pages out.
    by_http2 = {"name": PROTOCOL, "string_match": {"exact": "HTTP/2"}}
    refused: list[tuple[Config, int]] = [({"prefix": "/", "headers": [not_ascii]}, 400)]
    if not is_internal:
        refused.append(({"prefix": AUTHORIZE}, 404))
    return [
        *({"match": {"path": path}, **own} for path in OWN_PATHS),
        *(
            {"match": match, "direct_response": {"status": status}, **without("pyvoy", *tokens)}
            for match, status in refused
        ),
        {"match": {"prefix": HEALTH}, **own},
        {
            "match": {"prefix": "/", "grpc": {}, "headers": [by_http2]},
            "route": passed_on,
            "request_headers_to_remove": [PROTOCOL],
            **without("pyvoy"),
        },
        {"match": {"prefix": "/"}, **own},
    ]


def protocol_header() -> Config:
    """Return the extension that sets PROTOCOL before a request gets its route."""
    kind = "http.early_header_mutation.header_mutation"
    append = {
        "header": {"key": PROTOCOL, "value": "%PROTOCOL%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "name": f"envoy.{kind}",
        "typed_config": {
            "@type": f"{EXTENSIONS}{kind}.v3.HeaderMutation",
            "mutations": [{"append": append}],
        },
    }


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
            "status_on_error": {"code": "ServiceUnavailable"},  # the application has too much to do
            "http_service": {
                "server_uri": {"uri": "http://front", "cluster": SELF, "timeout": "5s"},
                "path_prefix": AUTHORIZE,
                "authorization_response": {
                    "allowed_client_headers": named("grpc-status-details-bin")
                },
            },
        },
    }


def local_replies(owner: str) -> list[Config]:
    """Return the replies that Envoy makes itself, as the contract has them.

    A call that cannot be passed on fails with UNAVAILABLE and says when to try again. To a request
    of HTTP, an error is JSON with the headers that all replies of the HTTP API have.

    Args:
        owner: the address of the owner, as callers are told it.
    """
    is_http: Config = {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": {"prefix": "application/grpc"},
                "invert_match": True,
                "treat_missing_header_as_empty": True,
            }
        }
    }
    is_overload: Config = {
        "status_code_filter": {
            "comparison": {"op": "EQ", "value": {"default_value": 503, "runtime_key": "none"}}
        }
    }
    away = unavailable(
        "the front cannot reach the owner of the model; try again",
        Reason.OWNER_UNREACHABLE.name,
        owner=owner,
    )
    busy = unavailable("the front has too many calls; try again", OVERLOADED)
    return [
        {
            "filter": {"and_filter": {"filters": [is_http, is_overload]}},
            **error_of_http("the front has too many requests; try again", OVERLOADED),
            "headers_to_add": headers((b"retry-after", b"1"), *SECURITY_HEADERS),
        },
        {
            "filter": is_http,
            **error_of_http("the request is refused: %RESPONSE_CODE_DETAILS%", "INVALID_REQUEST"),
            "headers_to_add": headers(*SECURITY_HEADERS),
        },
        {
            "filter": {"response_flag_filter": {"flags": ["UF", "UH", "UC", "UR", "LR", "URX"]}},
            **away,
        },
        {
            # Too many calls are passed on, or Envoy's memory is full.
            "filter": {"response_flag_filter": {"flags": ["UO", "OM"]}},
            **busy,
        },
        {"filter": is_overload, **busy},  # too many tokens are being verified
    ]


def unavailable(text: str, reason: str, **metadata: str) -> Config:
    """Return the status of a call of gRPC that may succeed a moment later."""
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=text)
    status.details.add().Pack(ErrorInfo(reason=reason, domain="mnist37", metadata=metadata))
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=RETRY_SECONDS)))
    encoded = base64.b64encode(status.SerializeToString()).rstrip(b"=")
    return {
        "body_format_override": {"text_format_source": {"inline_string": text}},
        "headers_to_add": headers((b"grpc-status-details-bin", encoded)),
    }


def error_of_http(text: str, reason: str) -> Config:
    """Return the body of an error."""
    content = json.dumps({"error": text, "reason": reason})
    source = {"text_format_source": {"inline_string": content}}
    return {"body_format_override": {**source, "content_type": "application/json"}}


def headers(*pairs: tuple[bytes, bytes]) -> list[Config]:
    """Return the headers that a reply gets."""
    return [
        {
            "header": {"key": name.decode(), "value": value.decode()},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for name, value in pairs
    ]
