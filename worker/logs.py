"""What a worker writes down: one line for each thing that happened, as text or as JSON, and nothing of patients."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

FIELDS = "fields"
"""The attribute of a log record that holds what a line says, by name."""

QUIET = {
    "alembic": logging.WARNING,
    "celery": logging.ERROR,
    "celery.app.trace": logging.CRITICAL,
    "kombu": logging.ERROR,
    "multiprocessing": logging.WARNING,
}
"""What Celery says of each message is in our own lines, without their identifiers."""


def set_up_logs(log_format: str) -> None:
    """Lets all that is logged in this process go to standard error, `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    handler.addFilter(_in_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


def _in_a_line(record: logging.LogRecord) -> bool:
    """Celery's own lines, without the tracebacks of what it lives through."""
    if record.name.partition(".")[0] in ("celery", "kombu"):
        record.msg, record.args, record.exc_info = record.getMessage().strip().partition("\n")[0], None, None
    return True


def say(log: logging.Logger, message: str, **fields: Any) -> None:
    """Logs what happened; in JSON the fields are there by name, as text they follow the message."""
    log.info(message, extra={FIELDS: fields})


class TextLines(logging.Formatter):
    """2026-01-31 12:00:00 INFO chunk scored: job 1, chunk 3, …"""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{name} {value}" for name, value in getattr(record, FIELDS, {}).items())
        said = f"{record.getMessage()}: {fields}" if fields else record.getMessage()
        lines = [f"{_time(record):%Y-%m-%d %H:%M:%S} {record.levelname} {said}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)


class JsonLines(logging.Formatter):
    """{"time": …, "level": …, "message": …} and what else the line says, by name."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record).isoformat(), "level": record.levelname.lower(), "process": record.process}
        line |= {"message": record.getMessage(), **getattr(record, FIELDS, {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
