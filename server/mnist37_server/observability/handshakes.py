"""TLS handshakes of callers that fail: a line of the log, and a count.

gRPC's core tells nobody of them but its own trace on stderr. Here stderr becomes a pipe, from which
a thread takes the trace; the server's log has the old stderr. Without TLS nothing of this happens.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import sys
import threading
import time

TRACE = {"GRPC_VERBOSITY": "INFO", "GRPC_TRACE": "handshaker"}
RECORD = re.compile(rb"^(?=[IWEF][0-9]{4} [0-9:.]+ )", re.MULTILINE)  # before each record
FAILURE = re.compile(
    rb"CallNextHandshakerLocked: error=(?!OK)(?:[A-Z_]+: )?([^\n]+).*"
    rb"endpoint_peer_address=(?:ipv[46]:)?([^,}]+)",
    re.DOTALL,
)
# Of a connection that this process opens, as a follower: the loop that follows logs its failure.
OUTGOING = re.compile(rb"endpoint_peer_address=[^}]*grpc\.server_uri=")
# By what the core says; for what OpenSSL says, its name is the key.
REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no certificate",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "HTTP_REQUEST": "the peer does not speak TLS",
    "Handshake read failed (Socket closed)": "the peer closed the connection; it may not trust the"
    " server's certificate",
}
LOG_INTERVAL_SECONDS = 10.0  # between two lines with the same reason
REASONS_MAX = 64  # that are remembered; there are some dozens
CHUNK_BYTES, RECORD_BYTES_MAX = 65_536, 1_000_000

log = logging.getLogger(__name__)


class FailedHandshakes:
    """The handshakes that failed since the start.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        self.count = 0
        self._next_lines: dict[str, float] = {}  # when a reason is logged again
        self._unlogged: dict[str, int] = {}

    def follow(self) -> None:
        """Take over stderr, and log failures from now on; call it before gRPC is imported.

        Whoever sets one of the variables of TRACE gets the core's own lines on stderr instead.
        """
        if TRACE.keys() & os.environ.keys():
            return
        os.environ.update(TRACE)
        stderr = os.dup(2)
        read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)  # the core loses lines, where it would wait for the thread
        os.dup2(write_fd, 2)
        os.close(write_fd)
        sys.stderr = open(  # noqa: SIM115, PTH123 - for the whole process
            stderr, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
        )
        faulthandler.enable(sys.stderr)  # what the core says when it aborts is lost
        threading.Thread(target=self._read, args=(read_fd,), name="handshakes", daemon=True).start()

    def _read(self, read_fd: int) -> None:
        rest = b""
        while chunk := os.read(read_fd, CHUNK_BYTES):
            # The last record may be incomplete; the core writes another one after each failure.
            *records, rest = RECORD.split(rest + chunk)
            for record in records:
                self._take(record)
            if not RECORD.match(rest) or len(rest) > RECORD_BYTES_MAX:
                for line in rest.decode(errors="replace").splitlines():  # not of the core
                    log.warning("%s", line)
                rest = b""

    def _take(self, record: bytes) -> None:
        failure = FAILURE.search(record)
        if failure is not None and not OUTGOING.search(record):
            text, peer = (part.decode(errors="replace") for part in failure.groups())
            self.record(peer, explain(text))

    def record(self, peer: str, reason: str) -> None:
        """Count a failure, and log it unless its reason was logged a moment ago."""
        self.count += 1
        now = time.monotonic()
        if now < self._next_lines.get(reason, 0.0):
            self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
            return
        if len(self._next_lines) >= REASONS_MAX:
            self._next_lines.clear()
            self._unlogged.clear()
        self._next_lines[reason] = now + LOG_INTERVAL_SECONDS
        fields = {"peer": peer, "reason": reason, "more": self._unlogged.pop(reason, None)}
        log.warning("a TLS handshake failed", extra=fields)


def explain(text: str) -> str:
    """Return the reason of a failure in plain words, as far as the core's text has one."""
    _, is_openssl, failure = text.partition("OPENSSL_internal:")
    if not is_openssl:
        return REASONS.get(text, text)
    name, _, details = failure.removesuffix(": OK").partition(": ")
    if name == "CERTIFICATE_VERIFY_FAILED":
        return f"the peer's certificate: {details}"
    return REASONS.get(name) or name.lower().replace("_", " ")


FAILED = FailedHandshakes()  # of this process, which has one stderr
