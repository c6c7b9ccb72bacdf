"""The page of a training set: from traffic to rows, what learned from it, and some of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, Response

from ratchet.improve.curation.dataset import read_any_rows
from ratchet.improve.curation.rows import LabelledRow, PreferenceRow
from ratchet.records import Candidate, Cycle, Erasure, TrainingSet, spoken_turns
from ratchet.web.people import Person, needs
from ratchet.web.rendering import Place, missing, page

SHOWN = 5
"""Rows of a sample, spread evenly over the set."""
_LATEST = 200


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of a training set as people read it.

    Attributes:
        source: How its answer is known to be good.
        turns: What was said before, by whom.
        answers: What is learned, under what it is.
    """

    source: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]


def add_training_sets(app: FastAPI) -> tuple[Place, ...]:
    """Add the page of a training set."""

    @app.get("/training-sets/{key}")
    def show(request: Request, key: str, person: Annotated[Person, needs("viewer")]) -> Response:
        shared = request.app.state.pages
        found = shared.store.get(TrainingSet, key)
        if found is None:
            raise missing("training set", key)
        erased = [f"{one.id[:8]}{one.state}" for one in shared.store.records(Erasure, latest=3)]
        sample = shared.refreshed.get(
            f"sample {key} {','.join(erased)}", lambda: sample_of(shared.settings.home / found.path)
        )
        if "hx-request" in request.headers:
            return page(request, person, "training_sample.html", found=found, figure=sample)
        candidates = shared.store.records(Candidate, latest=_LATEST)
        return page(
            request,
            person,
            "training_set.html",
            found=found,
            cycle=shared.store.get(Cycle, found.cycle_id),
            versions=[one.reference for one in candidates if one.training_set_id == key],
            figure=sample,
        )

    return ()


def sample_of(folder: Path) -> tuple[SampleRow, ...]:
    """Return some rows of a training set, spread evenly over it.

    Raises:
        InvalidInputError: The set is not on this disk.
    """
    rows = read_any_rows(folder)
    step = max(1, len(rows) // SHOWN)
    shown = []
    for row in rows[::step][:SHOWN]:
        answers: tuple[tuple[str, str], ...]
        if isinstance(row, PreferenceRow):
            answers = (("better answer", row.chosen), ("worse answer", row.rejected))
        elif isinstance(row, LabelledRow):
            answers = (("wanted answer" if row.desirable else "unwanted answer", row.answer),)
        else:
            answers = (("answer to learn", row.target),)
        shown.append(SampleRow(row.source, tuple(spoken_turns(row.messages)), answers))
    return tuple(shown)
