"""A process of `mnist37 web` on this machine, and requests to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mnist37_client.processes.local_web import LocalWeb as LocalPage


class Reply(NamedTuple):
    """A reply of web."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Return the JSON of the body."""
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """Return the JSON of each line of the body."""
        return [json.loads(line) for line in self.body.splitlines()]


class WebCaller:
    """Requests to the page and the HTTP API.

    Attributes:
        address: HOST:PORT.

    Args:
        url: SCHEME://HOST:PORT.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = url.partition("://")[2]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | object | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
    ) -> Reply:
        """Send a request and return the reply.

        Args:
            method: of HTTP.
            path: of the route.
            body: bytes, or what becomes JSON.
            headers: further headers; the type of a body is JSON by default.
            token: of the caller.
        """
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        all_headers = {} if body is None else {"Content-Type": "application/json"}
        if token is not None:
            all_headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, content, {**all_headers, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Reply:
        """Send a GET and return the reply."""
        return self.request("GET", path, **options)

    def post(self, path: str, body: bytes | object, **options: Any) -> Reply:
        """Send a POST and return the reply."""
        return self.request("POST", path, body, **options)

    def call(self, method: str, body: object = None, **options: Any) -> Reply:
        """Make a call of mnist37.v1 as JSON and return the reply."""
        content = {} if body is None else body
        return self.post(f"/mnist37.v1.Mnist37Service/{method}", content, **options)


class LocalWeb(LocalPage, WebCaller):
    """A process of `mnist37 web` on a free port, ready when the constructor returns.

    Args:
        server: HOST:PORT of the server that it calls.
        options: further options of `mnist37 web`.

    Raises:
        Unavailable: web did not start; the message has its log.
    """

    def __init__(self, server: str, *options: str) -> None:
        LocalPage.__init__(self, server, *options)
        WebCaller.__init__(self, self.address)
