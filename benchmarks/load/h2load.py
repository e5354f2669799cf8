"""A closed loop by h2load: a fixed number of calls in flight, each response followed by a new call.

h2load is written in C: a call takes it a tenth of the time that it takes a server in Python. To
h2load, a call that failed with a gRPC status is an HTTP response like any other. But such a call
has no response message, so the bytes of the responses are counted.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile

from benchmarks.harness import MissingRequirement

SERVICE = "/mnist37.v1.Mnist37Service"
TIMEOUT_SECONDS = 600  # for the longest measurement


def frame(message: bytes) -> bytes:
    """Return a message in gRPC's framing: the flag "uncompressed", the length, the message."""
    return struct.pack(">BI", 0, len(message)) + message


class Loop:
    """A closed loop of requests with one body.

    Args:
        url: of each request.
        body: of each request.
        answer_bytes: the minimum size of each response's body, in bytes.
        in_flight: the number of requests in flight.
        options: further ones of h2load.

    Raises:
        MissingRequirement: h2load is not installed.
    """

    def __init__(
        self, url: str, body: bytes, answer_bytes: int, in_flight: int, options: tuple[str, ...]
    ) -> None:
        if shutil.which("h2load") is None:
            raise MissingRequirement("needs h2load: apt install nghttp2-client")
        self._body = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed with the object
        self._body.write(body)
        self._body.flush()
        self._answer_bytes = answer_bytes
        self._in_flight = in_flight
        self._rate = 100.0  # requests a second: a guess, then the last measurement
        self._command = ["h2load", *options, f"--data={self._body.name}", url]

    def __call__(self, seconds: float) -> float:
        """Run the loop for about so many seconds and return the requests a second.

        Raises:
            RuntimeError: not all requests were answered.
        """
        # h2load gets a number of calls, not a duration, so that the responses can be counted.
        self._rate = self.run(max(self._in_flight, round(self._rate * seconds)))
        return self._rate

    def run(self, count: int) -> float:
        """Run the loop for `count` requests and return the requests a second.

        Raises:
            RuntimeError: not all requests were answered.
        """
        command = [*self._command, f"--requests={count}"]
        process = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
        )
        report = re.search(
            r"finished in .*?, ([\d.]+) req/s.*?(\d+) succeeded.*?traffic:.*?\((\d+)\) data",
            process.stdout,
            re.DOTALL,
        )
        if report is None or int(report[2]) != count or int(report[3]) < count * self._answer_bytes:
            raise RuntimeError(f"not all of {count} calls were answered:\n{process.stdout}")
        return float(report[1])


class ClosedLoop(Loop):
    """A closed loop of calls of gRPC with one body.

    Args:
        address: HOST:PORT of the server.
        rpc: the method's name.
        body: the body of each call: one frame, or many where the method takes a stream.
        answer_bytes: the minimum size of each response's body, in bytes.
        in_flight: the number of calls in flight.
        headers: further headers, as "name: value".
        connections: which share the calls in flight.

    Raises:
        MissingRequirement: h2load is not installed.
    """

    def __init__(
        self,
        address: str,
        rpc: str,
        body: bytes,
        answer_bytes: int,
        in_flight: int,
        headers: tuple[str, ...] = (),
        connections: int = 1,
    ) -> None:
        headers = ("content-type: application/grpc", "te: trailers", *headers)
        options = (
            f"--clients={connections}",
            f"--max-concurrent-streams={in_flight // connections}",
            *(f"--header={header}" for header in headers),
        )
        super().__init__(f"http://{address}{SERVICE}/{rpc}", body, answer_bytes, in_flight, options)


class KeptConnections(Loop):
    """A closed loop of requests of JSON over HTTP/1.1, over connections that are kept.

    Args:
        url: of each request, an http one.
        body: of each request.
        answer_bytes: the minimum size of each response's body, in bytes.
        in_flight: the number of connections, each with one request in flight.

    Raises:
        MissingRequirement: h2load is not installed.
    """

    def __init__(self, url: str, body: bytes, answer_bytes: int, in_flight: int) -> None:
        options = ("--h1", f"--clients={in_flight}", "--header=content-type: application/json")
        super().__init__(url, body, answer_bytes, in_flight, options)
