"""A version of the golden set: which examples it froze, out of what, and what was left out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.records.base import Digest, Identifier, Record, Text, UtcTime

GOLDEN = "golden"
"""How the names of golden sets of examples begin."""
GoldenMetric = Literal["exact_match", "call_exact_match", "win_rate"]


class GoldenVersion(Record):
    """A version of the golden set. Its examples are the `ExampleSet` that it names.

    Attributes:
        number: Counted from 1.
        example_set_id: The frozen examples.
        digest: Of the examples when they were frozen; it differs from theirs once a user was
            forgotten.
        metric: What the gate decides on where no policy says it.
        why_metric: What of the right answers decided it.
        examples: How many there were.
        users: How many users they are of.
        sources: Where the right answers of new examples come from, with the number of each.
        said_after: What is right was said after this time, to which earlier training sets reach;
            None where there was none.
        until: When it was made: what was said later is new to it.
        heard: How much feedback had arrived then.
        kept: Examples of the version before.
        added: New ones.
        retired: Examples of the version before that this one lacks.
        set_aside: What could not be used, by reason.
        origin: Whether it grew from traffic or was given as a file.
        why: Why it was made.
    """

    id: Identifier
    created_at: UtcTime
    number: int = Field(ge=1)
    example_set_id: Identifier
    digest: Digest
    metric: GoldenMetric
    why_metric: Text
    examples: int = Field(ge=1)
    users: int = Field(ge=0)
    sources: tuple[tuple[str, int], ...] = ()
    said_after: UtcTime | None = None
    until: UtcTime
    heard: int = Field(default=0, ge=0)
    kept: int = Field(default=0, ge=0)
    added: int = Field(default=0, ge=0)
    retired: int = Field(default=0, ge=0)
    set_aside: tuple[tuple[str, int], ...] = ()
    origin: Literal["traffic", "file"] = "traffic"
    why: Text
