"""`ratchet report`: what people read who do not look every day."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.saying import say, say_text
from ratchet.cli.shared import current_settings, required_store

app = typer.Typer(help="Reports about a span of time.", no_args_is_help=True)


@app.command(epilog="Example: ratchet report weekly --week 2026-W48 --out reports")
def weekly(
    week: Annotated[
        str, typer.Option(help="The week by ISO 8601; the last one that is over without it.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report as HTML and Markdown; printed without it."),
    ] = None,
) -> None:
    """Say whether the model is better than the week before, and what happened in the week."""
    from ratchet.views.pages.weekly import weekly_page
    from ratchet.views.text.weekly import weekly_markdown
    from ratchet.web.links import pages_address
    from ratchet.web.weekly import last_week, week_named, weekly_report

    now, settings = datetime.now(UTC), current_settings()
    span = week_named(week) if week else last_week(now)
    store, address = required_store("a report"), pages_address(settings, os.environ)
    report = weekly_report(store, span, assistant=settings.model_name, now=now, address=address)
    if out is None:
        say_text(weekly_markdown(report))
        return
    out.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("html", weekly_page(report)), ("md", weekly_markdown(report))):
        path = out / f"weekly-{span.name}.{suffix}"
        path.write_text(text, "utf-8")
        say(f"written: {path}")
