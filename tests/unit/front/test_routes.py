"""Tests of the replies that Envoy makes itself."""

from __future__ import annotations

import base64
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from mnist37_front.envoy.routes import local_replies


def statuses(replies: list[Any]) -> list[Status]:
    """Return the statuses of calls of gRPC among the replies."""
    found = []
    for reply in replies:
        headers = {
            each["header"]["key"]: each["header"]["value"] for each in reply["headers_to_add"]
        }
        if "grpc-status-details-bin" in headers:
            content = headers["grpc-status-details-bin"]
            found.append(Status.FromString(base64.b64decode(content + "=" * (-len(content) % 4))))
    return found


def test_each_status_has_the_details_of_all_errors() -> None:
    found = statuses(local_replies("owner:1"))
    reasons = []
    for status in found:
        info, retry = ErrorInfo(), RetryInfo()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert (info.domain, retry.retry_delay.seconds) == ("mnist37", 1)
        reasons.append((info.reason, dict(info.metadata)))
    assert reasons[0] == ("OWNER_UNREACHABLE", {"owner": "owner:1"})
    assert reasons[1:] == [("OVERLOADED", {})] * 2
