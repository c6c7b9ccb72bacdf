"""Records as JSON: one line each, whatever they quote."""

from __future__ import annotations

import json
import logging
from datetime import datetime

from ratchet.files.logs import JsonLines, log_handler


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("ratchet.x", logging.WARNING, __file__, 1, message, args, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_record_is_one_line_with_its_fields():
    line = JsonLines().format(record("%s failed", "a\nb\u2028c", fields={"status": 503}))
    assert len(line.splitlines()) == 1
    said = json.loads(line)
    assert said["message"] == "a\nb\u2028c failed"
    assert (said["level"], said["logger"], said["status"]) == ("warning", "ratchet.x", 503)
    assert datetime.fromisoformat(said["time"]).utcoffset() is not None


def test_an_exception_stands_in_a_field():
    try:
        raise ValueError("no\nway")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    line = JsonLines().format(record("it broke", exc_info=info))
    assert len(line.splitlines()) == 1
    assert "ValueError: no\nway" in json.loads(line)["exception"]


def test_the_setting_chooses_the_form():
    assert isinstance(log_handler("json").formatter, JsonLines)
    assert log_handler("text").format(record("hello")) == "WARNING ratchet.x hello"
