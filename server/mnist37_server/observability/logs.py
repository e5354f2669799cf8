"""The server's logs: one event a line on stderr, as text for a terminal or as JSON.

A log call has a short message; its details are fields in `extra`: request_id, run, version, method,
code. A message or a value that contains a caller's text stays on one line: it is escaped.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from pythonjsonlogger import json as json_logging

from mnist37_server.observability.background_stream import BackgroundStream

# The attributes of every record; all others come from `extra`.
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime"}

HEADER_LOG_INTERVAL_SECONDS = 10.0
DRAIN_SECONDS = 2.0  # how long the end of the process waits for the log's reader

log = logging.getLogger(__name__)


def configure(log_format: str, level: str, packages: Iterable[str] = ("mnist37_server",)) -> None:
    """Set up logging on stderr, warnings and uncaught exceptions included.

    Args:
        log_format: text or json.
        level: the lowest level that is logged of the packages: debug, info, warning or error. Of
            libraries, nothing below warning is logged.
        packages: the project's own.
    """
    handler = BackgroundHandler(BackgroundStream(sys.stderr))
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(HeaderFilter())
    min_level = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(min_level, logging.WARNING), handlers=[handler], force=True)
    for package in packages:
        logging.getLogger(package).setLevel(min_level)
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = log_uncaught_in_thread


class BackgroundHandler(logging.StreamHandler[BackgroundStream]):
    """A handler that at the end of the process waits until its lines are written."""

    def close(self) -> None:
        """Wait until all lines are written, or DRAIN_SECONDS; logging.shutdown() calls it."""
        self.stream.drain(DRAIN_SECONDS)
        super().close()


class TextFormatter(logging.Formatter):
    """A formatter of text lines; a stack trace follows its line, indented.

    Example: 2026-01-31 12:00:00,123 INFO run started method=Train run=3
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and the lines of its stack trace if it has one."""
        fields = [f"{key}={quote(value)}" for key, value in event_fields(record).items()]
        words = [self.formatTime(record), record.levelname, escape_unprintable(record.getMessage())]
        lines = [" ".join(words + fields)]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {escape_unprintable(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class JsonFormatter(json_logging.JsonFormatter):
    """A formatter of JSON lines.

    Example: {"time": ..., "level": "INFO", "message": "run started", "method": "Train", "run": 3}
    """

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
        super().__init__(["levelname", "message", "name"], rename_fields=names, timestamp="time")

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Return the record's fields without empty ones, the time first."""
        fields = {key: value for key, value in log_data.items() if value is not None}
        return {"time": fields.pop("time"), **fields}


def event_fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of `extra` that are not None."""
    return {
        key: value
        for key, value in vars(record).items()
        if key not in RESERVED and value is not None
    }


def quote(value: object) -> str:
    """Return a value for key=value: unchanged if it is plain, else as a JSON string."""
    text = str(value)
    is_plain = text.isprintable() and not set(text) & set(' "=') and text != ""
    return text if is_plain else json.dumps(text)


def escape_unprintable(text: str) -> str:
    """Escape line ends and every other character that could deceive a reader of the log."""
    return text if text.isprintable() else "".join(map(escape_character, text))


def escape_character(character: str) -> str:
    """Return a printable character unchanged, or the escape sequence of another one."""
    return character if character.isprintable() else repr(character)[1:-1]


class HeaderFilter(logging.Filter):
    """A filter that replaces what gRPC logs of a header that is not UTF-8.

    gRPC logs the header's bytes, which may be a token, and a stack trace. Any client can cause it,
    so there is at most one line in HEADER_LOG_INTERVAL_SECONDS.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_time = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record; remove the bytes of callers from it."""
        if record.name != "grpc._cython.cygrpc":
            return True
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = "a call's metadata could not be decoded"
        record.args = record.exc_info = record.exc_text = None
        now = time.monotonic()
        if now < self._next_time:
            return False
        self._next_time = now + HEADER_LOG_INTERVAL_SECONDS
        return True


def log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log an uncaught exception; it replaces sys.excepthook, which prints a stack trace."""
    log.critical("the server ends by an error", exc_info=(kind, error, trace))


def log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    """Log a thread's uncaught exception; it replaces threading.excepthook, which prints it."""
    name = args.thread.name if args.thread else "?"
    log.critical("a thread ended by an error", exc_info=args.exc_value, extra={"thread_name": name})
