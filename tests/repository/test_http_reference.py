"""Tests of the tables in docs/reference/http.md: they agree with the code, row by row."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

from mnist37_front.envoy.routes import local_replies
from mnist37_web.access import bodies
from mnist37_web.access.json_bodies import CHARACTERS, SMALL_BYTES
from mnist37_web.listening import connections
from mnist37_web.openapi import document
from mnist37_web.replies.json_replies import REASONS, STATUSES, describe_error
from mnist37_web.rest import infer_request
from mnist37_web.rpc_json import transcoding
from support.pages import ROOT, plain, table

HTTP = "docs/reference/http.md"
# The functions that pass on a status and a reason that others have chosen.
PASSING = {"reply_to_routing", "_refuse"}


def errors_in_web() -> Iterator[tuple[str, int]]:
    """Yield the reason and the status of each error that web makes, but for those of a table."""
    passing = set()
    for source in (ROOT / "web").rglob("*.py"):
        for function in ast.walk(ast.parse(source.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                match node:
                    case ast.Call(
                        args=[ast.Constant(int(status)), _, ast.Constant(str(reason)), *_]
                    ):
                        yield reason, status
                    case ast.Call(func=ast.Name("HttpError")):
                        passing.add(function.name)
    assert passing == PASSING
    yield from ((reason, status) for status, reason in REASONS.items())
    status, body = describe_error(ValueError())
    yield str(body["reason"]), status


def errors_in_a_front() -> Iterator[str]:
    """Yield the reason of each reply of Envoy to a request of HTTP."""
    for reply in local_replies("127.0.0.1:1"):
        body = reply["body_format_override"]
        if body.get("content_type") == "application/json":
            yield json.loads(body["text_format_source"]["inline_string"])["reason"]


def test_the_reasons_of_web() -> None:
    rows = table(HTTP, "reason of web", "status", "meaning")
    listed = {plain(row["reason of web"]): int(row["status"]) for row in rows}
    assert len(listed) == len(rows)
    of_front = set(errors_in_a_front())
    assert of_front == {"INVALID_REQUEST", "OVERLOADED"}
    assert listed == {**dict(errors_in_web()), "OVERLOADED": 503}
    assert len(set(errors_in_web())) == len(dict(errors_in_web())), "a reason has two statuses"


def test_the_statuses_of_errors() -> None:
    rows = table(HTTP, "status", "when")
    listed = [int(status) for row in rows for status in row["status"].split(", ")]
    of_server = {status for status, _ in STATUSES.values()}
    assert sorted(listed) == sorted({*of_server, *(status for _, status in errors_in_web())})
    # A description of a route's methods says by itself that there are no others.
    assert sorted(document.ERRORS) == sorted(str(status) for status in {*listed} - {405})
    (slow,) = [row["when"] for row in rows if row["status"] == "408"]
    for seconds in (connections.HEADERS_SECONDS, bodies.SECONDS_MAX, bodies.IDLE_SECONDS):
        assert f" {seconds:.0f} s for " in slow


def test_the_limits_of_json() -> None:
    small, large = table(HTTP, "JSON for", "texts", "objects")
    assert plain(small["JSON for"]) == "mnist37.v1"
    assert plain(large["JSON for"]) == f"/v2, from {SMALL_BYTES // 1024} KiB on"
    for row, limits in ((small, transcoding.LIMITS), (large, infer_request.LIMITS)):
        for name, limit in limits._asdict().items():
            column = "commas" if name == "commas" else CHARACTERS[name][2]
            shown = "as many as fit" if limit == bodies.JSON_MAX else f"{limit:,}"
            assert row[column] == shown
