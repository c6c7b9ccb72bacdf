"""One export from its request to the file: the kind's parts, written by the format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from ratchet.errors import InvalidInputError
from ratchet.export.adapter import FoundAdapter, export_adapter
from ratchet.export.dataset import Fetch, find_set, parts_of
from ratchet.export.events import feedback, interactions
from ratchet.export.formats import (
    Progress,
    write_database,
    write_hub_folder,
    write_lines,
    write_parquet,
)
from ratchet.export.grammar import Request, check
from ratchet.export.parts import Part, Tally
from ratchet.export.records import decisions, labels
from ratchet.export.sheets import sheet_for
from ratchet.export.targets import STANDARD_OUTPUT, open_file, open_folder, open_path
from ratchet.files.text import shown_text
from ratchet.records import DataExport
from ratchet.store import EventStore
from ratchet.store.history import History


@dataclass(frozen=True, slots=True)
class Sources:
    """Where what is exported lies.

    Attributes:
        fetch: Fetches the training set of an MLflow run.
        adapter: Finds an adapter by its version or folder; the champion's without one.
    """

    store: EventStore
    history: History
    home: Path
    fetch: Fetch
    adapter: Callable[[str | None], FoundAdapter] | None = None


def export(request: Request, sources: Sources, *, now: datetime, progress: Progress) -> Tally:
    """Write what is asked for, all of it or nothing; return what became of the rows.

    Args:
        request: What is asked for.
        sources: Where it lies.
        now: The time, by which it is decided what may leave.
        progress: Called with the number of rows written so far.

    Raises:
        InvalidInputError: The request does not hold together, or there is nothing of what it asks.
    """
    check(request)
    tally = Tally()
    if request.kind == "adapter":
        assert sources.adapter is not None
        export_adapter(request, sources.adapter(request.model_version), tally)
        return tally
    if request.kind == "label-sheet":
        text = sheet_for(sources.store, sources.history, request, tally)
        if request.out == STANDARD_OUTPUT and sys.stdout.isatty():
            text = shown_text(text)
        with open_file(request.out, keep=True) as file:
            file.write(text.encode())
        return tally
    parts = _parts(request, sources, tally, now)
    if request.format == "hf":
        with open_folder(request.out) as folder:
            write_hub_folder(parts, folder, tally, progress)
        return tally
    if request.format == "duckdb":
        with open_path(request.out) as path:
            write_database(parts, path, tally, progress)
        return tally
    as_ascii = request.out == STANDARD_OUTPUT
    in_lines = partial(write_lines, as_ascii=as_ascii)
    write = write_parquet if request.format == "parquet" else in_lines
    (part,) = parts
    with open_file(request.out) as file:
        write(part, file, tally, progress)
    if not tally.rows.total():
        tally.notes.append("there was nothing to write: the file is empty")
    return tally


def note_export(
    store: EventStore, request: Request, tally: Tally, *, by: str, now: datetime
) -> None:
    """Keep that rows were written for other tools, so that a user's page says where they went.

    Args:
        store: The store.
        request: What was asked for.
        tally: What became of the rows.
        by: Who gave the command.
        now: The time.
    """
    store.append(
        DataExport(
            id=str(uuid4()),
            created_at=now,
            kind=request.kind,
            format=request.format,
            out=shown_text(request.out),
            since=request.since,
            until=request.until,
            model_version=request.model_version,
            segment=request.segment,
            training_set=tally.training_set,
            redacted=request.redacts,
            rows=tally.rows.total(),
            by=by,
        )
    )


def _parts(request: Request, sources: Sources, tally: Tally, now: datetime) -> Sequence[Part]:
    store, history = sources.store, sources.history
    match request.kind:
        case "interactions":
            return [interactions(store, history, request, tally)]
        case "feedback":
            return [feedback(store, history, request, tally)]
        case "decisions":
            return [decisions(store, request)]
        case "labels":
            return [labels(store, request, tally)]
        case "database":
            return [
                interactions(store, history, request, tally),
                feedback(store, history, request, tally),
                decisions(store, request),
                labels(store, request, tally),
            ]
        case "dataset":
            found = find_set(store, sources.home, request.training_set, sources.fetch)
            tally.training_set = found.record.digest
            return parts_of(found, store, history, request, tally, now=now)
        case kind:
            raise InvalidInputError(f"{kind} is no table, got it as {request.format}; pass csv")
