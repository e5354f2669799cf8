"""Tests of the page's stream of events while the server says what the contract does not allow."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
import pytest
from support.liar import Liar
from support.local_web import LocalWeb

SECONDS = 30


def events(web: LocalWeb) -> Iterator[tuple[str, Any]]:
    """Yield the kind and the value of each event that a browser gets, for a time."""
    connection = http.client.HTTPConnection(web.address, timeout=SECONDS)
    headers = {"Content-Type": "application/json", "Origin": web.url}
    deadline = time.monotonic() + SECONDS
    try:
        connection.request("POST", "/page/events", b"{}", headers)
        response = connection.getresponse()
        assert response.status == 200
        kind = ""
        while time.monotonic() < deadline:  # without news there is a comment every 15 s
            name, _, value = response.readline().decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)
    finally:
        connection.close()


def deny(_request: object, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token's role is predict")


@pytest.mark.parametrize("method", ["Follow", "GetModel"])
def test_an_answer_that_cannot_be_decoded_is_shown_and_asked_for_again(method: str) -> None:
    with Liar() as liar:
        liar.say("Import", b"")
        liar.say("WatchRun")
        if method == "GetModel":  # as web asks where it may not follow
            liar.answers["Follow"] = deny
        asked = 0

        def nonsense(_request: object, _context: object) -> list[bytes]:
            nonlocal asked
            asked += 1
            return [b"\xff"]

        liar.answers[method] = nonsense
        with LocalWeb(liar.address) as web:
            problems = (
                value["problem"]
                for kind, value in events(web)
                if kind == "server" and not value["reachable"]
            )
            assert "cannot be decoded" in next(problems, "")
            deadline = time.monotonic() + SECONDS
            while asked < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            problems.close()
