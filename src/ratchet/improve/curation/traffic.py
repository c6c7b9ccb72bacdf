"""Interactions as a selection reads them: compact arrays, under 200 bytes for each that counts.

    traffic = traffic_of(outcomes, quality, "sft", context)

Interactions that nobody spoke about take part in counts alone: how long answers are, how often
feedback is given, whom a user wrote first. So the rows here may be all interactions, as of outcomes
in memory, or those that somebody spoke about, as of history (`ratchet.improve.curation.stored`).
Texts stay where they are until they are needed, and come in batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.improve.curation.calls import digest_of
from ratchet.improve.curation.config import Demonstration, JudgedPair
from ratchet.improve.curation.context import Context
from ratchet.improve.curation.endings import cut_answers
from ratchet.improve.curation.evidence import Evidence, evidence_weights
from ratchet.improve.curation.propensity import length_cuts, strata_of
from ratchet.improve.curation.rows import RowKind
from ratchet.improve.curation.shapes import CALLS, CALLS_APART, WORDS, shape_of
from ratchet.improve.curation.traits import (
    FINE,
    HashArray,
    correction_traits,
    hashes,
    interaction_traits,
)
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality, given
from ratchet.records import Message
from ratchet.records.tool_calls import asked

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ObjectArray = NDArray[np.object_]
Columns = dict[str, NDArray[Any]]

BATCH = 20_000
"""Texts that are read at once."""


class Texts(Protocol):
    """Where the texts of rows are."""

    def read(self, rows: IntArray, *names: str) -> Iterator[tuple[IntArray, list[ObjectArray]]]:
        """Yield columns (id, user_id, prompt, asked, response, tools) of rows in batches.

        The batches come in any order. `asked` is the prompt with the results of tools after it,
        `response` the whole answer with its calls, `tools` the digest of what could be called.

        Args:
            rows: Rows of the traffic.
            names: The columns.

        Yields:
            Places in `rows`, shape (b,), with the columns there.
        """

    def corrections(self, rows: IntArray) -> ObjectArray:
        """Return what users corrected answers to, of rows with a correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Rows in order of time, arrays of shape (n,); experts' demonstrations come last.

    Attributes:
        size: Interactions that there are, also those that are no rows.
        outside: Interactions besides, which are not of the time that was chosen.
        demonstrated: How many of the rows are demonstrations.
        place: Where the texts of a row are.
        moment: Microseconds since 1970.
        user: Number of the user, by the time of the first message.
        first: When the user wrote first.
        segment: Number of the segment, from 0.
        segments: Their names.
        ordinary_length: Mean length of the answers of each segment, nan where there are none.
        regenerated: Whether another answer was asked for.
        value: Quality, nan where nothing was observed.
        explicit: The part of it that users gave.
        evidence: What it rests on, in explicit ratings.
        ending: Number of the reason why the answer is not whole, 0 where it is.
        endings: Those reasons.
        shape: Whether the conversation can be trained on (`ratchet.improve.curation.shapes`).
        refused: Whether it must not be trained on: no consent, or kept too long.
        withheld: Whether it is flagged as unsafe and not reviewed.
        reviewed: What reviewers hold the answer to be: 1 good, 0 bad, nan not reviewed.
        cluster: Number of the failure cluster that asks for it, 0 for none.
        clusters: Their names.
        preferred: Whether a judge prefers it to another one.
        stratum: Number of the stratum of `propensity_weights`.
        strata: How many interactions each stratum has.
        propensity: Chance of feedback where it is known, or None.
        pooled: Observations of the answers of these rows, also of other rows.
        judged: The worse and the better row of each pair that a judge compared.
        texts: Where texts are.

    The others are as in `ratchet.improve.curation.traits`.
    """

    size: int
    outside: int
    demonstrated: int
    place: IntArray
    moment: IntArray
    user: IntArray
    first: IntArray
    segment: NDArray[np.int32]
    segments: tuple[str, ...]
    ordinary_length: FloatArray
    failed: BoolArray
    unsafe: BoolArray
    regenerated: BoolArray
    corrected: BoolArray
    value: FloatArray
    explicit: FloatArray
    evidence: FloatArray
    prompt: HashArray
    exact: HashArray
    answer: HashArray
    same: HashArray
    both: HashArray
    turn: HashArray
    tools: HashArray
    correction: HashArray
    prompt_length: NDArray[np.int32]
    answer_length: NDArray[np.int32]
    correction_length: NDArray[np.int32]
    prompt_state: NDArray[np.int8]
    answer_state: NDArray[np.int8]
    correction_state: NDArray[np.int8]
    ending: NDArray[np.int32]
    endings: tuple[str, ...]
    shape: NDArray[np.int8]
    refused: BoolArray
    withheld: BoolArray
    reviewed: NDArray[np.float32]
    cluster: NDArray[np.int32]
    clusters: tuple[str, ...]
    preferred: BoolArray
    stratum: NDArray[np.int32]
    strata: IntArray
    propensity: FloatArray | None
    pooled: Evidence
    judged: tuple[IntArray, IntArray]
    texts: Texts

    def __len__(self) -> int:
        return int(self.place.size)


ROWS = (
    "place", "moment", "first", "segment", "failed", "unsafe", "regenerated", "corrected", "value",
    "explicit", "evidence", "prompt", "exact", "answer", "same", "both", "turn", "tools",
    "correction", "prompt_length", "answer_length", "correction_length", "prompt_state",
    "answer_state", "correction_state", "ending", "shape", "refused", "withheld", "reviewed",
    "cluster", "preferred", "stratum",
)  # fmt: skip
"""Columns of a row besides `user`, which is a hash until all rows are there."""


class Numbers:
    """Numbers for names, from 0 by first appearance."""

    def __init__(self, *names: str) -> None:
        self._known = {name: number for number, name in enumerate(names)}

    def of(self, names: Sequence[str] | ObjectArray) -> NDArray[np.int32]:
        """Return the number of each name, shape (n,)."""
        known = self._known
        numbers = (known.setdefault(name, len(known)) for name in names)
        return np.fromiter(numbers, dtype=np.int32, count=len(names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names by their numbers."""
        return tuple(self._known)


def users_in_order(users: HashArray, first: IntArray) -> IntArray:
    """Return a number for each user, from 0 by the time of the first message, shape (n,)."""
    _, at, number = np.unique(users, return_index=True, return_inverse=True)
    rank = np.empty(len(at), dtype=np.int64)
    rank[np.lexsort((at, first[at]))] = np.arange(len(at))
    return rank[number]


def no_corrections(size: int) -> Columns:
    """Return the columns of corrections where there are none."""
    return {
        "correction": np.zeros(size, dtype=np.uint64),
        "correction_length": np.zeros(size, dtype=np.int32),
        "correction_state": np.full(size, FINE, dtype=np.int8),
    }


def demonstration_rows(items: Sequence[Demonstration], segments: Numbers, last: int) -> Columns:
    """Return experts' demonstrations as rows that nobody spoke about, dated with the last row."""
    size = len(items)
    answers = [item.target for item in items]
    no, nan = np.zeros(size, dtype=np.bool_), np.full(size, np.nan)
    return {
        **interaction_traits(
            [asked(item.prompt, item.messages) for item in items],
            answers,
            [""] * size,
            [digest_of(item.tools) for item in items],
        ),
        **no_corrections(size),
        "place": np.arange(size),
        "moment": np.full(size, last),
        "first": np.full(size, last),
        "user": hashes(f"demonstration {item.id}" for item in items),
        "segment": segments.of([item.segment for item in items]),
        **dict.fromkeys(("failed", "unsafe", "regenerated", "corrected"), no),
        **dict.fromkeys(("refused", "withheld", "preferred"), no),
        "value": nan,
        "explicit": nan,
        "evidence": np.zeros(size),
        "shape": np.array([_shape(item) for item in items], dtype=np.int8),
        "reviewed": nan.astype(np.float32),
        **{name: np.zeros(size, dtype=np.int32) for name in ("ending", "cluster", "stratum")},
    }


def _words_of(shape: int | None) -> int:
    """Return the shape of a conversation of which outcomes hold the words alone."""
    return CALLS_APART if shape == CALLS else shape or WORDS


def _shape(item: Demonstration) -> int:
    return shape_of(item.messages, Message(role="assistant", content=item.target))


def clusters_of(context: Context) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the number of the cluster that asks for each interaction, and the clusters' names."""
    numbers = Numbers("")
    by_id: dict[str, int] = {}
    for request in context.requests:
        (number,) = numbers.of([request.cluster_id])
        by_id.update(dict.fromkeys(request.interaction_ids, int(number)))
    return by_id, numbers.names


def winners(judged: Collection[JudgedPair]) -> set[str]:
    """Return the interactions whose answer a judge prefers to another one."""
    return {pair.better for pair in judged if pair.better is not None}


def judged_rows(
    judged: Sequence[JudgedPair], row_of: Mapping[str | None, int]
) -> tuple[IntArray, IntArray]:
    """Return the worse and the better row of each pair, of those where both are rows."""
    pairs = [
        (row_of[pair.worse], row_of[pair.better])
        for pair in judged
        if pair.worse in row_of and pair.better in row_of
    ]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def among(keys: ObjectArray, wanted: Collection[str]) -> BoolArray:
    """Tell which keys are among the wanted ones, shape (n,)."""
    if not wanted:
        return np.zeros(len(keys), dtype=np.bool_)
    values = pa.array(sorted(wanted), pa.large_string())
    return np.asarray(pc.is_in(pa.array(keys, pa.large_string()), value_set=values), dtype=np.bool_)


# Outcomes in memory -------------------------------------------------------------------------------


def traffic_of(outcomes: Outcomes, quality: Quality, kind: RowKind, context: Context) -> Traffic:
    """Return outcomes as traffic; every interaction is a row.

    Args:
        outcomes: All interactions with their feedback, in order of time.
        quality: Their quality, same order.
        kind: What is selected; demonstrations are rows of `sft` alone.
        context: What else is known.
    """
    ids, size = outcomes.interaction_ids, len(outcomes)
    items = sorted(context.demonstrations, key=lambda item: item.id) if kind == "sft" else []
    segments = Numbers()
    columns = _interactions(outcomes, quality, segments, context)
    ordinary = _ordinary_lengths(columns, len(segments.names))
    strata = np.bincount(columns["stratum"])
    pooled = Evidence(*(columns[name] for name in ("same", "user", "evidence", "value")))
    cut = cut_answers(outcomes, context.endings)
    endings = Numbers("")
    columns["ending"] = endings.of(cut)
    last = int(columns["moment"][-1]) if size else 0
    if items:
        added = demonstration_rows(items, segments, last)
        columns = {name: np.concatenate([columns[name], added[name]]) for name in columns}
    compared = {key for pair in context.judged for key in (pair.first_id, pair.second_id)}
    row_of: dict[str | None, int] = {
        str(ids[row]): int(row) for row in np.flatnonzero(among(ids, compared))
    }
    return Traffic(
        **{name: columns[name] for name in ROWS},
        size=size,
        outside=0,
        demonstrated=len(items),
        user=users_in_order(columns["user"], columns["first"]),
        segments=segments.names,
        ordinary_length=ordinary,
        endings=endings.names,
        clusters=clusters_of(context)[1],
        strata=strata,
        propensity=_known_propensity(ids, context, len(items)),
        pooled=pooled,
        judged=judged_rows(context.judged, row_of),
        texts=OutcomeTexts(outcomes, items),
    )


def _interactions(
    outcomes: Outcomes, quality: Quality, segments: Numbers, context: Context
) -> Columns:
    ids, size = outcomes.interaction_ids, len(outcomes)
    by_cluster, _ = clusters_of(context)
    columns: Columns = {
        **interaction_traits(outcomes.prompts, outcomes.responses, outcomes.session_ids),
        **corrections_of(outcomes.corrections),
        "place": np.arange(size),
        "moment": outcomes.created_at.astype(np.int64),
        "user": hashes(outcomes.user_ids),
        "segment": segments.of(outcomes.segments),
        "failed": outcomes.failed_with_error,
        "unsafe": outcomes.unsafe == 1.0,
        "regenerated": outcomes.regenerated == 1.0,
        "value": quality.value,
        "explicit": quality.explicit,
        "evidence": evidence_weights(quality, context.weights),
        "shape": np.fromiter((_words_of(context.shapes.get(key)) for key in ids), np.int8, size),
        "refused": among(ids, context.refused),
        "withheld": among(ids, context.withheld),
        "reviewed": _values(ids, context.reviewed).astype(np.float32),
        "cluster": np.fromiter((by_cluster.get(key, 0) for key in ids), np.int32, size),
        "preferred": among(ids, winners(context.judged)),
    }
    _, user = np.unique(columns["user"], return_inverse=True)
    first = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, user, columns["moment"])
    columns["first"] = first[user]
    lengths = [columns["prompt_length"], columns["answer_length"]]
    cuts = [length_cuts(*np.unique(length, return_counts=True)) for length in lengths]
    columns["stratum"] = strata_of(columns["segment"], lengths, cuts)
    return columns


def corrections_of(texts: ObjectArray) -> Columns:
    """Return the columns of corrections, None where there is none."""
    there = given(texts)
    columns = no_corrections(len(texts))
    for name, values in correction_traits(texts[there]).items():
        columns[name][there] = values
    return {"corrected": there, **columns}


def _values(ids: ObjectArray, known: Mapping[str, Any]) -> FloatArray:
    if not known:
        return np.full(len(ids), np.nan)
    return np.array([float(known.get(key, np.nan)) for key in ids])


def _known_propensity(ids: ObjectArray, context: Context, more: int) -> FloatArray | None:
    if not context.propensity:
        return None
    return np.append(_values(ids, context.propensity), np.full(more, np.nan))


def _ordinary_lengths(columns: Columns, segments: int) -> FloatArray:
    lengths = columns["answer_length"]
    answered = ~columns["failed"] & (lengths > 0)
    mine, lengths = columns["segment"][answered], lengths[answered]
    count = np.bincount(mine, minlength=segments)
    total = np.bincount(mine, weights=lengths, minlength=segments)
    means: FloatArray = np.divide(total, count, out=np.full(segments, np.nan), where=count > 0)
    return means


class OutcomeTexts:
    """Texts of outcomes in memory, and of demonstrations after them."""

    def __init__(self, outcomes: Outcomes, demonstrations: Sequence[Demonstration]) -> None:
        self._outcomes = outcomes
        self._added = demonstrated_texts(demonstrations)

    def read(self, rows: IntArray, *names: str) -> Iterator[tuple[IntArray, list[ObjectArray]]]:
        """See `Texts.read`."""
        outcomes, size = self._outcomes, len(self._outcomes)
        columns = {
            "id": outcomes.interaction_ids,
            "user_id": outcomes.user_ids,
            "prompt": outcomes.prompts,
            "asked": outcomes.prompts,
            "response": outcomes.responses,
            "tools": np.full(size, None, dtype=np.object_),
        }
        mine = np.flatnonzero(rows < size)
        for start in range(0, len(mine), BATCH):
            places = mine[start : start + BATCH]
            yield places, [columns[name][rows[places]] for name in names]
        added = np.flatnonzero(rows >= size)
        if len(added):
            yield added, [self._added[name][rows[added] - size] for name in names]

    def corrections(self, rows: IntArray) -> ObjectArray:
        """See `Texts.corrections`."""
        return self._outcomes.corrections[rows]


def demonstrated_texts(items: Sequence[Demonstration]) -> dict[str, ObjectArray]:
    """Return the texts of demonstrations by the names that `Texts.read` takes."""
    columns = {
        "id": [item.id for item in items],
        "user_id": [f"demonstration {item.id}" for item in items],
        "prompt": [item.prompt for item in items],
        "asked": [asked(item.prompt, item.messages) for item in items],
        "response": [item.target for item in items],
        "tools": [digest_of(item.tools) for item in items],
    }
    return {name: np.array(values, dtype=np.object_) for name, values in columns.items()}


def read_at(texts: Texts, rows: IntArray, *names: str) -> list[ObjectArray]:
    """Return columns of few rows, in their order."""
    columns = [np.full(len(rows), "", dtype=np.object_) for _ in names]
    for places, values in texts.read(rows, *names):
        for column, value in zip(columns, values, strict=True):
            column[places] = value
    return columns
