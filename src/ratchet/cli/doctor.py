"""`ratchet doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings, key_of, open_tracker
from ratchet.files.text import printable

if TYPE_CHECKING:
    from ratchet.operate.doctor import Health


def doctor(as_json: AsJson = False) -> None:
    """Look at store, log, Prefect, MLflow, model, backend, what files say, disk, clock and GPU.

    Exit code 0: no problem, though there may be warnings; 1: a problem; 2: the settings are wrong.
    """
    from ratchet.deploy.backends import KEY_VARIABLE
    from ratchet.operate.doctor import Doctor

    settings = current_settings()
    tracker = partial(open_tracker, settings)
    looks = Doctor(settings, datetime.now(UTC), tracker, key_of(KEY_VARIABLE), os.environ)
    found = list(looks.look())
    healthy = not any(item.state == "problem" for item in found)
    if as_json:
        say_json({"healthy": healthy, "checks": [asdict(item) for item in found]}, indent=2)
    else:
        tell_health(found)
    raise typer.Exit(0 if healthy else 1)


def tell_health(found: Iterable[Health]) -> bool:
    """Say what was looked at; return whether nothing is a problem."""
    healthy = True
    for item in found:
        healthy &= item.state != "problem"
        say(f"{item.state:8} {item.name}: {printable(item.found)}")
        if item.do:
            say(f"         do: {printable(item.do)}")
    return healthy
