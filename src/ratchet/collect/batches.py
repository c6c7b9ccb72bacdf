"""Rows that are stored together: what they hold, and how they are sent from process to process."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from ratchet.collect.rejecting import RAW_CHARACTERS, length_of
from ratchet.files.rows import Row
from ratchet.records import Definition, SetAside
from ratchet.store.event_rows import FeedbackRow, InteractionRow

CHUNK = 5_000
CHUNK_CHARACTERS = 20_000_000
"""Rows are stored together up to this number, or where their texts are as long as this."""

_OBJECTS_OF_A_CHUNK = 50_000


class Passed(NamedTuple):
    """A row, or a part of one, that is nothing to store: counted with its reason, not set aside."""

    reason: str


class Translated(NamedTuple):
    """An event that was made of a row of a foreign format.

    Attributes:
        row: The event's fields, with place and text of the foreign row.
        size: Characters of the foreign row.
        others: Other names by which feedback may call the answer: of an interaction its own, of
            feedback those that count, the first that is known, else the last, where the answer that
            it names is not stored.
    """

    row: Row
    size: int
    others: tuple[str, ...] = ()


class PlacedEvent(NamedTuple):
    """An event that can be stored; feedback of the future is still a record."""

    position: str
    event: Any
    row: Any


PackedBatch = tuple[
    int,
    list[SetAside],
    list[Any],
    list[Any],
    dict[str, Definition],
    dict[str, tuple[str, ...]],
    dict[str, int],
]


@dataclass(slots=True)
class Batch:
    """Rows that are stored together: the events, and what is set aside.

    Attributes:
        read: How many rows these are.
        others: Other names of answers, by the id under which they are stored or named.
        passed: How many rows are nothing to store, by reason.
    """

    read: int
    interactions: list[PlacedEvent] = field(default_factory=list)
    feedback: list[PlacedEvent] = field(default_factory=list)
    rejected: list[SetAside] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)


def batches_of(
    rows: Iterable[tuple[str, object]], chunk: int
) -> Iterator[list[tuple[str, object]]]:
    """Yield rows that are stored together; few where their texts are long."""
    iterator, share = iter(rows), max(1, chunk // 20)
    batch: list[tuple[str, object]] = []
    characters = 0
    while part := list(islice(iterator, min(share, chunk - len(batch)))):
        batch += part
        characters += length_of(part)
        characters += sum(row.size for _, row in part if isinstance(row, Translated))
        if len(batch) == chunk or characters > CHUNK_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def packed(batch: Batch) -> PackedBatch:
    """Return a batch as plain tuples, which are sent much faster."""
    events = _packed(batch.interactions), _packed(batch.feedback)
    rest = batch.definitions, batch.others, dict(batch.passed)
    return batch.read, batch.rejected, *events, *rest


def unpacked(sent: PackedBatch) -> Batch:
    """Return the batch that was packed."""
    read, rejected, interactions, feedback, definitions, others, passed = sent
    return Batch(
        read,
        [_event(InteractionRow._make, *values) for values in interactions],
        [_event(FeedbackRow._make, *values) for values in feedback],
        rejected,
        definitions,
        others,
        Counter(passed),
    )


def _packed(events: Sequence[PlacedEvent]) -> list[tuple[str, Any, Any, str | None]]:
    return [
        (
            event.position,
            tuple(event.event) if isinstance(event.event, tuple) else event.event,
            None if event.row.raw is not None else event.row.fields,
            event.row.raw and event.row.raw[: RAW_CHARACTERS + 1],
        )
        for event in events
    ]


def _event(
    make: Callable[[tuple[Any, ...]], Any], position: str, event: Any, fields: Any, raw: str | None
) -> PlacedEvent:
    row = Row(0, 0, position, 1, fields or {}, raw, None, "json")
    return PlacedEvent(position, make(event) if type(event) is tuple else event, row)


@contextmanager
def seldom_looked_for_garbage() -> Iterator[None]:
    """Let Python look for garbage once a chunk: among rows there is none to be found.

    By default it looks after every 700 objects, which took a third of the time of reading.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_OF_A_CHUNK, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
