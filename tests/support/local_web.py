"""A process of `mnist37 web` on this machine, and requests to it."""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from mnist37_client import python_process

LISTENING = "listening on "


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


class LocalWeb:
    """A process of `mnist37 web` on a free port, ready when the constructor returns.

    A subclass may set another `command`.

    Args:
        server: HOST:PORT of the server that it calls.
        options: further options of `mnist37 web`.

    Raises:
        RuntimeError: web did not start; the message has its log.
    """

    command: tuple[str, ...] = python_process.command("mnist37_web")

    def __init__(self, server: str, *options: str) -> None:
        self._result: tuple[int, str] | None = None  # exit status and log
        environment = {
            name: value
            for name, value in python_process.environment().items()
            if not name.startswith("MNIST37_")
        }
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when web has ended
        self.process = subprocess.Popen(
            [*self.command, "--server", server, *address, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(LISTENING):
            raise RuntimeError(f"web did not start: {self._wait()[1].strip()}")
        self.url = line.removeprefix(LISTENING).strip()
        self.address = self.url.partition("://")[2]

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

    def stop(self) -> tuple[int, str]:
        """Shut web down and return its exit status and its log."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._wait()

    def _wait(self) -> tuple[int, str]:
        if not self._result:
            self.process.communicate(timeout=30)
            with self._log:
                self._log.seek(0)
                self._result = self.process.returncode, self._log.read()
        return self._result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
