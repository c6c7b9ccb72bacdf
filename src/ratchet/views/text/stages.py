"""What one stage of the loop did, for the terminal, with the command that comes next."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.files.text import INDENT, clipped, counted, shown_lines, wrapped
from ratchet.records import (
    AlertEvent,
    Analysis,
    Candidate,
    Cycle,
    Decision,
    Release,
    TrainingSet,
)
from ratchet.views.text.cycle import alerts_text, analyzed_lines, decided_lines, improved_lines


def collected_text(cycle: Cycle, answers: int, examples: int) -> str:
    """Describe a cycle that was opened: its traffic and its examples."""
    return shown_lines(
        [
            f"COLLECT  cycle {cycle.number} of {clipped(cycle.champion, 50)} is open",
            f"{INDENT}{counted(answers, 'answer')} from {cycle.window_start:%Y-%m-%d %H:%M} to "
            f"{cycle.window_end:%Y-%m-%d %H:%M} UTC",
            f"{INDENT}{counted(examples, 'example')} that both models answer at the gate",
            *_next("analyze", "what its users saw, and where failures pile up"),
        ]
    )


def watched_text(events: Sequence[AlertEvent]) -> str:
    """Say how the boards stand after a pass that only watches."""
    return shown_lines(
        [
            "ANALYZE  every version's board is up to date",
            *alerts_text(events).splitlines(),
            *_next("alerts", "what is wrong, since when, and what to do"),
        ]
    )


def analyzed_text(analysis: Analysis) -> str:
    """Say what an analysis of a cycle found."""
    return shown_lines(
        [
            *analyzed_lines(analysis),
            *_next("curate --dry-run", "what would be trained on"),
            f"{INDENT}ratchet train               train a candidate on it",
        ]
    )


def trained_text(
    training_set: TrainingSet, candidate: Candidate, champion: str, lengths: str
) -> str:
    """Say what was trained; `lengths` says which rows were too long, or nothing."""
    made = candidate.reference
    gate = f"ratchet gate --champion {champion} --challenger {made} --examples FILE"
    return shown_lines(
        [
            *improved_lines(training_set, candidate),
            *(wrapped("", lengths) if lengths else ()),
            *_set_aside(training_set),
            *_next("gate --candidate", "is it better? The nightly loop asks it by itself"),
            *wrapped("", f"on examples of your own: {gate}"),
        ]
    )


def _set_aside(training_set: TrainingSet) -> list[str]:
    """Say which rows of a data set that others made cannot be used; users' rows are in the card."""
    if not training_set.origin:
        return []
    return [
        line
        for reason, count in training_set.set_aside
        for line in wrapped("", f"set aside, {counted(count, 'row')}: {reason}")
    ]


def gated_text(decision: Decision, release: Release | None) -> str:
    """Say what the gate decided about a candidate."""
    return shown_lines(
        [*decided_lines(decision, release), *_next("status", "what is in use and why")]
    )


def looked_text(decision: str) -> str:
    """Say what a look at the running rollout decided; empty where nothing is rolled out."""
    if not decision:
        return "nothing is being rolled out"
    return shown_lines(
        [
            f"ROLLOUT  {decision}",
            *_next("rollout status", "how it stands and what happened when"),
        ]
    )


def _next(command: str, what: str) -> list[str]:
    return [f"NEXT     {f'ratchet {command}':<27} {what}"]
