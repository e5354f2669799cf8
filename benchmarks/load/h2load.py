"""A closed loop by h2load: so many calls in flight, each answer followed by the next call at once.

h2load is written in C and takes a tenth of the time a call that a server in Python takes. To it a
call that failed with a gRPC status is an HTTP response like any other; but such a call has no
answer, so the bytes of the answers are counted.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile

from benchmarks.harness import MissingRequirement

SERVICE = "/mnist37.v1.Mnist37Service"
TIMEOUT_SECONDS = 600  # seconds, for the longest measurement


def frame(message: bytes) -> bytes:
    """A message as gRPC sends it: uncompressed, its length, itself."""
    return struct.pack(">BI", 0, len(message)) + message


class ClosedLoop:
    """Calls with one and the same body, over one connection.

    Args:
        address: HOST:PORT of the server.
        rpc: the method's name.
        body: of each call: one frame, or many where the method takes a stream.
        answer: how many bytes the body of each answer has, at least.
        in_flight: how many calls are under way at a time.
        headers: further ones, as "name: value".

    Raises:
        MissingRequirement: there is no h2load here.
    """

    def __init__(
        self,
        address: str,
        rpc: str,
        body: bytes,
        answer: int,
        in_flight: int,
        headers: tuple[str, ...] = (),
    ) -> None:
        if shutil.which("h2load") is None:
            raise MissingRequirement("needs h2load: apt install nghttp2-client")
        self._body = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed with the object
        self._body.write(body)
        self._body.flush()
        self._answer = answer
        self._in_flight = in_flight
        self._rate = 100.0  # calls a second, as far as is known
        given = ("content-type: application/grpc", "te: trailers", *headers)
        self._command = [
            *("h2load", "--clients=1", f"--max-concurrent-streams={in_flight}"),
            *(f"--header={header}" for header in given),
            *(f"--data={self._body.name}", f"http://{address}{SERVICE}/{rpc}"),
        ]

    def __call__(self, seconds: float) -> float:
        """Calls a second, over about so many seconds.

        Raises:
            RuntimeError: not all calls were answered.
        """
        # By number, not by time, so that what comes back can be counted.
        self._rate = self.times(max(self._in_flight, round(self._rate * seconds)))
        return self._rate

    def times(self, count: int) -> float:
        """Calls a second, over so many calls; raises as above."""
        command = [*self._command, f"--requests={count}"]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
        )
        found = re.search(
            r"finished in .*?, ([\d.]+) req/s.*?(\d+) succeeded.*?traffic:.*?\((\d+)\) data",
            ended.stdout,
            re.DOTALL,
        )
        if found is None or int(found[2]) != count or int(found[3]) < count * self._answer:
            raise RuntimeError(f"not all of {count} calls were answered:\n{ended.stdout}")
        return float(found[1])
