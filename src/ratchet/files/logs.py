"""Log lines that say only what this program says: one record is one line, whatever it quotes.

What is logged quotes names of models, users, files and headers, and errors of other servers. A
line break in one of them would begin a line that looks like another record. So records are made
harmless where they are made, before any handler, also one of Prefect or uvicorn, words them.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

from ratchet.files.text import shown_line

_INDENT = "  | "


def harmless_logs() -> None:
    """Have every record of this process escaped; entry points call it once."""
    if not isinstance(logging.getLogRecordFactory(), _Harmless):
        logging.setLogRecordFactory(_Harmless(logging.getLogRecordFactory()))


Format = Literal["text", "json"]


def log_handler(form: Format, text: str = "%(levelname)s %(name)s %(message)s") -> logging.Handler:
    """Return what writes records to standard error, as lines of text or of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(text))
    return handler


class JsonLines(logging.Formatter):
    """Words a record as one line of JSON.

    It has `time` (UTC), `level`, `logger`, `message`, `process`, `exception` where there is one,
    and what was logged beside the message as `extra={"fields": {...}}`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            said["exception"] = record.exc_text
        return json.dumps(said | getattr(record, "fields", {}), default=str)


class _Harmless:
    """Makes a record by the factory that was there, then escapes its message and its traceback."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *values: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*values, **named)
        try:
            record.msg, record.args = shown_line(record.getMessage()), None
        except Exception:  # arguments that do not fit are told of by the handler, as ever
            return record
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_text = "\n".join(_INDENT + shown_line(line) for line in told.split("\n"))
        return record
