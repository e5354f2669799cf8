"""What the server logs: one event a line on stderr, as text for a terminal or as JSON.

Whoever logs gives a short message and puts what it is about into `extra`: request_id, run, version,
method, code. A message or a value that a caller had a hand in stays on its line, whatever it holds.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from types import TracebackType

from pythonjsonlogger import json as json_logging

# What every record has; the rest is `extra`.
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime"}

log = logging.getLogger(__name__)


def configure(log_format: str, level: str) -> None:
    """Has everything logged from now on, also what would have been printed on stderr instead.

    Args:
        log_format: text or json.
        level: the least that is logged of the server, of libraries warning at least; debug, info,
            warning or error.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(shorten_decoding_error)
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("mnist37_server").setLevel(least)
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = log_uncaught_in_thread


class TextFormatter(logging.Formatter):
    """2026-01-31 12:00:00,123 INFO run started method=Train run=3, and a stack trace indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a stack trace."""
        fields = [f"{key}={quote(value)}" for key, value in event_fields(record).items()]
        words = [self.formatTime(record), record.levelname, escape_unprintable(record.getMessage())]
        lines = [" ".join(words + fields)]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"    {escape_unprintable(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


class JsonFormatter(json_logging.JsonFormatter):
    """{"time": ..., "level": "INFO", "message": "run started", "method": "Train", "run": 3}."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
        super().__init__(["levelname", "message", "name"], rename_fields=names, timestamp="time")

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Without the fields that do not apply, and the time first."""
        given = {key: value for key, value in log_data.items() if value is not None}
        return {"time": given.pop("time"), **given}


def event_fields(record: logging.LogRecord) -> dict[str, object]:
    """What an event is about; without what does not apply."""
    return {
        key: value
        for key, value in vars(record).items()
        if key not in RESERVED and value is not None
    }


def quote(value: object) -> str:
    """A value for key=value: as it is if that is plain, else as a JSON string."""
    text = str(value)
    plain = text.isprintable() and not set(text) & set(' "=') and text != ""
    return text if plain else json.dumps(text)


def escape_unprintable(text: str) -> str:
    """With escapes in the place of line ends and of all else that could deceive a reader."""
    return text if text.isprintable() else "".join(map(escape_character, text))


def escape_character(character: str) -> str:
    """A character, or its escape sequence if it cannot be seen."""
    return character if character.isprintable() else repr(character)[1:-1]


def shorten_decoding_error(record: logging.LogRecord) -> bool:
    """Makes a line of the stack trace that grpcio logs for each message that cannot be decoded."""
    if record.name == "grpc._common" and record.exc_info:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = "a message could not be decoded", None, None
    return True


def log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """In the place of sys.excepthook, which prints a stack trace."""
    log.critical("the server ends by an error", exc_info=(kind, error, trace))


def log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    """In the place of threading.excepthook, which prints a stack trace."""
    name = args.thread.name if args.thread else "?"
    log.critical("a thread ended by an error", exc_info=args.exc_value, extra={"thread_name": name})
