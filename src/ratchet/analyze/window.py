"""A window's interactions with their feedback: numbers of all of them, texts of those asked for.

    everything = read_outcomes(store, window, judges=usable_versions(store))
    some = with_texts(store, everything.take(rows))

Rows are joined in batches, so that a day's texts and feedback events are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.outcomes.join import ObjectArray, Outcomes, join_feedback
from ratchet.records import spoken
from ratchet.records.signals import BY_NAME, TEXT_KINDS
from ratchet.store import EventStore, Window
from ratchet.store.texts import feedback_texts, texts_of

BATCH = 20_000
"""Interactions that are joined at a time."""
_READ = (
    "id", "session_id", "user_id", "created_at", "model_version", "segment", "latency_seconds",
    "error",
)  # fmt: skip
_SHARED = ("model_versions", "segments", "user_ids", "session_ids")
_WRITTEN = {kind: column for kind in TEXT_KINDS if (column := BY_NAME[kind].column)}
"""Kinds of feedback that are texts, and the column of each."""
_MOMENT = timedelta(microseconds=1)


def read_outcomes(
    store: EventStore, window: Window, *, judges: Collection[str] = (), size: int = BATCH
) -> Outcomes:
    """Return a window's interactions with their feedback, as `join_feedback` does, without texts.

    Prompts and answers are None; corrections and comments are empty where there is one. Memory:
    some 600 bytes an interaction, and a batch.

    Args:
        store: The store.
        window: The interactions.
        judges: Versions of judges that were found usable; scores of any other are left out.
        size: Interactions of a batch.
    """
    known: dict[str, str] = {}
    parts = list(_parts(store, window, judges, size, known))
    if not parts:
        return join_feedback(
            store.interactions(window).slice(0, 0), store.feedback(window).slice(0, 0)
        )
    joined = Outcomes(
        **{
            item.name: np.concatenate([getattr(part, item.name) for part in parts])
            for item in fields(Outcomes)
        }
    )
    del parts
    # rows of the same moment may have been parted by two batches
    keys = {
        "created_at": joined.created_at.astype(np.int64),
        "id": pa.array(joined.interaction_ids),
    }
    order = pc.sort_indices(
        pa.table(keys), sort_keys=[("created_at", "ascending"), ("id", "ascending")]
    ).to_numpy()
    in_order = bool(np.array_equal(order, np.arange(order.size)))
    return joined if in_order else joined.take(order.astype(np.int64))


def with_texts(store: EventStore, outcomes: Outcomes) -> Outcomes:
    """Return outcomes with their prompts, answers, corrections and comments, read by id."""
    row_of = {str(key): row for row, key in enumerate(outcomes.interaction_ids)}
    prompts, responses = _blank(len(outcomes)), _blank(len(outcomes))
    for key, prompt, response in texts_of(store, row_of):
        prompts[row_of[key]], responses[row_of[key]] = prompt, response
    written = {kind: _blank(len(outcomes)) for kind in _WRITTEN}
    for key, kind, text in feedback_texts(store, row_of, list(_WRITTEN)):
        written[kind][row_of[key]] = text
    given: dict[str, Any] = {_WRITTEN[kind]: texts for kind, texts in written.items()}
    return replace(outcomes, prompts=prompts, responses=responses, **given)


def shown_answers(store: EventStore, ids: Sequence[str]) -> dict[str, str]:
    """Return the answers of those of the interactions that are stored, as people are shown them."""
    found = store.stored_interactions(ids)
    return {key: spoken(interaction.answer) for key, interaction in found.items()}


def _parts(
    store: EventStore,
    window: Window,
    judges: Collection[str],
    size: int,
    known: dict[str, str],
) -> Iterator[Outcomes]:
    for batch in store.interaction_batches(window, _READ, size):
        table = pa.Table.from_batches([batch])
        unread = pa.nulls(table.num_rows, pa.string())
        table = table.append_column("prompt", unread).append_column("response", unread)
        first, last = (table["created_at"][place].as_py() for place in (0, table.num_rows - 1))
        # by time, not by id: what is about another batch's rows is left out by the join
        span = replace(window, start=first, end=last + _MOMENT)
        part = join_feedback(table, store.told_feedback(span), judges=judges)
        given: dict[str, Any] = {
            column: _there(getattr(part, column)) for column in _WRITTEN.values()
        }
        shared: dict[str, Any] = {name: _shared(getattr(part, name), known) for name in _SHARED}
        yield replace(part, **given, **shared)


def _there(texts: ObjectArray) -> ObjectArray:
    """Keep that there is a text, not the text."""
    return np.array([None if text is None else "" for text in texts], dtype=np.object_)


def _shared(names: ObjectArray, known: dict[str, str]) -> ObjectArray:
    """Hold equal names once."""
    return np.array([known.setdefault(name, name) for name in names], dtype=np.object_)


def _blank(size: int) -> NDArray[Any]:
    return np.full(size, None, dtype=np.object_)
