"""`ratchet doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import typer

from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import AsJson, current_settings, open_tracker
from ratchet.files.text import printable


def doctor(as_json: AsJson = False) -> None:
    """Look at store, log, Prefect, MLflow, model, disk, clock, GPU and permissions.

    Exit code 0: no problem, though there may be warnings; 1: a problem; 2: the settings are wrong.
    """
    from ratchet.operate.doctor import Doctor

    settings = current_settings()
    tracker = partial(open_tracker, settings)
    found = list(Doctor(settings, datetime.now(UTC), tracker).look())
    healthy = not any(item.state == "problem" for item in found)
    if as_json:
        say_json({"healthy": healthy, "checks": [asdict(item) for item in found]}, indent=2)
    else:
        for item in found:
            say(f"{item.state:8} {item.name}: {printable(item.found)}")
            if item.do:
                say(f"         do: {printable(item.do)}")
    raise typer.Exit(0 if healthy else 1)
