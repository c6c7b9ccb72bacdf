"""What commands print: all of it goes through here, so that nothing stored steers a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from ratchet.files.text import shown_line, shown_text


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line; a line break in it is shown as an escape."""
    _write(shown_line(line), err=err)


def say_text(text: str, *, err: bool = False) -> None:
    """Print a text whose line breaks are its own: what it quotes is on one line already."""
    _write(shown_text(text), err=err)


def say_json(value: Any, *, err: bool = False, **options: Any) -> None:
    """Print a value as JSON in ASCII; `options` are those of `json.dumps`."""
    _write(json.dumps(value, **options).replace("\x7f", "\\u007f"), err=err)


def _write(text: str, *, err: bool) -> None:
    print(text, file=sys.stderr if err else sys.stdout, flush=True)
