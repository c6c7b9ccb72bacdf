"""`ratchet export`: what is stored, for other tools."""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.cli.progress import Progress
from ratchet.cli.saying import say, say_json
from ratchet.cli.shared import (
    AsJson,
    By,
    current_settings,
    open_history,
    open_tracker,
    person,
    required_store,
)
from ratchet.files.text import printable

if TYPE_CHECKING:
    from ratchet.export.grammar import Request
    from ratchet.export.parts import Tally

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
Kind = Annotated[
    str,
    typer.Argument(
        help="interactions, feedback, decisions, labels, dataset (a training set), "
        "label-sheet (what waits for people), database (the first four, for SQL) or adapter."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="jsonl, parquet or hf (a Hugging Face folder); a dataset also trl, openai or "
        "axolotl; a label-sheet csv, a database duckdb; an adapter peft, merged or gguf. Default: "
        "by the ending of --out.",
    ),
]

TrainingSetName = Annotated[
    str | None, typer.Option("--set", help="Start of a training set's digest; default: the latest.")
]
VersionName = Annotated[
    str | None,
    typer.Option(
        help="Only what is about this version; of an adapter its version or folder, default: the "
        "champion's."
    ),
]
Prompts = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="So many prompts an adapter answers before and after; default: 100. 0: unchecked.",
    ),
]


def export(
    kind: Kind,
    out: Annotated[
        str,
        typer.Option(
            help="File, new folder, address such as s3://bucket/file, or - for standard output; of "
            "an adapter also hf://owner/name, a model of the Hugging Face Hub."
        ),
    ] = "-",
    as_format: Format = None,
    since: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="From when on, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="Before when, in UTC.")
    ] = None,
    model_version: VersionName = None,
    segment: Annotated[str | None, typer.Option(help="Only this segment's.")] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact",
            help="Take personal data out; default: of a dataset, and of nothing else.",
            show_default=False,
        ),
    ] = None,
    training_set: TrainingSetName = None,
    split: Annotated[
        str | None, typer.Option(help="train or validation, where a dataset is one file.")
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option("--of", help="A sheet of pairs or of items; default: pairs where some wait."),
    ] = None,
    cycle: Annotated[
        str | None, typer.Option(help="A sheet of the pairs of this cycle, by number or id.")
    ] = None,
    decision: Annotated[
        str | None, typer.Option(help="A sheet of the pairs of this decision's cycle.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="So many items on a sheet; default: 200.")
    ] = None,
    prompts: Prompts = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Write interactions, feedback, decisions, labels, a training set, an adapter or a sheet.

    A file appears whole or not at all. What is left out is counted with its reason. Where the rows
    go to standard output, the summary goes to standard error.
    """
    from ratchet.export.grammar import Request, format_named, kind_named

    named = kind_named(kind)
    request = Request(
        kind=named,
        format=format_named(named, as_format, out),
        out=out,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        model_version=model_version,
        segment=segment,
        redact=redact,
        training_set=training_set,
        split=split,
        sheet=sheet,
        cycle=cycle,
        decision=decision,
        most=most,
        prompts=prompts,
    )
    tally = _written(request, person(by))
    if tally is not None:
        _tell(request, tally, as_json=as_json)


def _written(request: Request, by: str) -> Tally | None:
    """Write it; None where whoever reads standard output has read enough."""
    from ratchet.cli.export_adapter import found_adapter
    from ratchet.export.run import Sources, note_export
    from ratchet.export.run import export as write

    settings = current_settings()
    with tempfile.TemporaryDirectory(prefix="ratchet-export-") as made:

        def fetch(run_id: str) -> Path | None:
            folder = Path(made, run_id)
            folder.mkdir(exist_ok=True)
            return open_tracker(settings).fetch_folder(run_id, "training_set", folder)

        store = required_store("an export")
        find = partial(found_adapter, settings, store)
        sources = Sources(store, open_history(store), settings.home, fetch, find)
        try:
            now = datetime.now(UTC)
            tally = write(request, sources, now=now, progress=Progress())
            note_export(store, request, tally, by=by, now=now)
            return tally
        except BrokenPipeError:
            if request.out != "-":
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


def _tell(request: Request, tally: Tally, *, as_json: bool) -> None:
    err = request.out == "-"
    if as_json:
        content = {
            "kind": request.kind,
            "format": request.format,
            "out": request.out,
            "rows": dict(tally.rows),
            "left_out": dict(tally.left_out),
            "redacted": dict(tally.redacted),
            "notes": tally.notes,
        }
        say_json(content, err=err, indent=2)
        return
    where = "" if request.out == "-" else f" to {printable(request.out)}"
    counts = ", ".join(f"{count:,} {name}" for name, count in tally.rows.items()) or "no rows"
    say(f"{request.kind}: {counts} written as {request.format}{where}", err=err)
    for reason, count in tally.left_out.items():
        say(f"{count:>8,} left out: {reason}", err=err)
    if tally.redacted:
        told = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(tally.redacted.items()))
        say(f"personal data was taken out: {told}", err=err)
    for note in tally.notes:
        say(note, err=err)
