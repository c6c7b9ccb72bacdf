"""Failure clusters as people want to read them: whom they touch, where, and what would be right.

clusters = profile(result, changes, outcomes, explicit, vectors=vectors, known=known)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

import numpy as np

from ratchet.analyze.failures.asked_with import NOTHING, AskedWith
from ratchet.analyze.failures.clusters import Cluster, FailureClusters
from ratchet.analyze.failures.failed import why_failed
from ratchet.analyze.failures.hierarchy import IntArray, Vectors, blocks
from ratchet.analyze.failures.identity import Change, KnownClusters
from ratchet.outcomes.join import BoolArray, FloatArray, ObjectArray, Outcomes
from ratchet.outcomes.quality import given
from ratchet.records import Breakdown, FailureCluster, FailureExample
from ratchet.records.tool_calls import spoken_answer

ShowAnswers = Callable[[Sequence[str]], Mapping[str, str]]
"""Returns the answers of interactions, of those it knows, as people are shown them."""

TYPICAL, BORDERLINE = 5, 3
GOOD_QUALITY = 0.75
MOST_GOOD = 20_000
LIKE_ENOUGH = 0.5
"""A good answer to a message less like (cosine) is no example of what would be right."""


def profile(
    result: FailureClusters,
    changes: Sequence[Change],
    outcomes: Outcomes,
    explicit: FloatArray,
    *,
    vectors: Vectors,
    known: KnownClusters,
    flagged: Collection[str] = (),
    shown: ShowAnswers = lambda _ids: {},
) -> tuple[FailureCluster, ...]:
    """Return the clusters as records, in the order of the result: what fixing wins most first.

    Args:
        result: The clusters.
        changes: What became of each, in the same order, as `identify` returns them.
        outcomes: The interactions that were searched, in the same order as the result's rows.
        explicit: What users said their answers are worth, nan where nothing, shape (n,).
        vectors: One unit vector a row, shape (n, d).
        known: What `identify` keeps; says when each was first seen.
        flagged: Ids of interactions that are flagged as unsafe or were found so.
        shown: Returns the answers of interactions as people are shown them, of examples; the words
            alone where it does not know one.
    """
    first_seen = {item.id: item.first_seen for item in known.clusters}
    failed = result.labels >= 0
    good = np.flatnonzero(right_is_known(outcomes, explicit))[-MOST_GOOD:]
    unsafe = (outcomes.unsafe == 1.0) | _among(outcomes.interaction_ids, flagged)
    return tuple(
        _record(
            cluster,
            change,
            first_seen.get(change.id),
            _breakdowns(outcomes.model_versions, cluster, failed),
            _breakdowns(outcomes.segments, cluster, failed),
            users=len(set(outcomes.user_ids[cluster.members])),
            safety=int(unsafe[cluster.members].sum()),
            beside=_beside(cluster, outcomes, vectors, good, shown),
        )
        for cluster, change in zip(result.clusters, changes, strict=False)
    )


def _record(
    cluster: Cluster,
    change: Change,
    first_seen: datetime | None,
    versions: tuple[Breakdown, ...],
    segments: tuple[Breakdown, ...],
    *,
    users: int,
    safety: int,
    beside: tuple[FailureExample, ...],
) -> FailureCluster:
    return FailureCluster(
        id=change.id,
        name=cluster.name,
        size=cluster.members.size,
        interactions=cluster.rows.size,
        failure_rate=cluster.failure_rate,
        rest_rate=cluster.rest_rate,
        lift=cluster.lift,
        interval=(cluster.interval.lower, cluster.interval.upper),
        share=cluster.share,
        excess=cluster.excess,
        p_value=cluster.p_value,
        stability=cluster.stability,
        stable=cluster.stable,
        trend=change.trend,
        first_seen=first_seen,
        users=users,
        versions=versions,
        segments=segments,
        safety=safety,
        examples=cluster.examples,
        borderline=cluster.borderline,
        beside=beside,
    )


def _breakdowns(groups: ObjectArray, cluster: Cluster, failed: BoolArray) -> tuple[Breakdown, ...]:
    names, name_of_row = np.unique(groups[cluster.rows].astype(str), return_inverse=True)
    interactions = np.bincount(name_of_row)
    failures = np.bincount(name_of_row, weights=failed[cluster.rows])
    breakdowns = [
        Breakdown(name=str(name), failed=int(bad), interactions=int(count))
        for name, bad, count in zip(names, failures, interactions, strict=True)
    ]
    return tuple(sorted(breakdowns, key=lambda item: (-item.failed, item.name)))


def _among(ids: ObjectArray, chosen: Collection[str]) -> BoolArray:
    return np.array([key in chosen for key in ids], dtype=np.bool_)


# What would be right ------------------------------------------------------------------------------


def right_is_known(outcomes: Outcomes, explicit: FloatArray) -> BoolArray:
    """Tell of which rows the right answer is known: corrected ones, and well-rated ones."""
    rated = (explicit >= GOOD_QUALITY) & ~outcomes.failed_with_error & (outcomes.unsafe != 1.0)
    known: BoolArray = given(outcomes.corrections) | rated
    return known


def right_answer(outcomes: Outcomes, row: int, asked: AskedWith = NOTHING) -> str:
    """Return what is right where that is known: the correction, else the whole answer itself."""
    correction = outcomes.corrections[row]
    if correction is not None:
        return str(correction)
    return asked.answer(str(outcomes.interaction_ids[row]), str(outcomes.responses[row]))


def _beside(
    cluster: Cluster, outcomes: Outcomes, vectors: Vectors, good: IntArray, shown: ShowAnswers
) -> tuple[FailureExample, ...]:
    """Put typical and borderline failures beside good answers."""
    closeness = vectors[cluster.members] @ cluster.centre
    order = cluster.members[np.argsort(-closeness, kind="stable")]
    distinct = _distinct(order, outcomes.prompts)
    typical = distinct[:TYPICAL]
    border = distinct[TYPICAL:][::-1][:BORDERLINE]
    rows = [*typical, *border]
    better = _nearest_good(vectors, rows, good)
    seen = dict.fromkeys([*rows, *(row for row in better if row is not None)])
    told = shown([str(outcomes.interaction_ids[row]) for row in seen])
    return tuple(
        _example(outcomes, row, similar, told, borderline=index >= len(typical))
        for index, (row, similar) in enumerate(zip(rows, better, strict=True))
    )


def _distinct(rows: IntArray, prompts: ObjectArray) -> list[int]:
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(" ".join(str(prompts[row]).casefold().split()), int(row))
    return list(first.values())


def _nearest_good(vectors: Vectors, rows: Sequence[int], good: IntArray) -> list[int | None]:
    """Return for each row the most similar other row with a known right answer, if like enough."""
    if not good.size or not rows:
        return [None] * len(rows)
    asked = vectors[np.array(rows)]
    best = np.full(len(rows), -1, dtype=np.int64)
    likeness = np.full(len(rows), LIKE_ENOUGH)
    for part in blocks(good.size):
        products = asked @ vectors[good[part]].T
        products[good[part][None, :] == np.array(rows)[:, None]] = -1.0
        nearest = products.argmax(axis=1)
        value = np.take_along_axis(products, nearest[:, None], axis=1)[:, 0]
        closer = value > likeness
        best[closer], likeness[closer] = good[part][nearest[closer]], value[closer]
    return [int(row) if row >= 0 else None for row in best]


def _example(
    outcomes: Outcomes,
    row: int,
    similar: int | None,
    told: Mapping[str, str],
    *,
    borderline: bool,
) -> FailureExample:
    """Return an example as people read it: calls and refusals too, which are no words."""

    def answer(of: int) -> str:
        return told.get(str(outcomes.interaction_ids[of]), str(outcomes.responses[of] or ""))

    def right(of: int) -> str:
        corrected = outcomes.corrections[of] is not None
        return spoken_answer(right_answer(outcomes, of)) if corrected else answer(of)

    example = FailureExample(
        interaction_id=str(outcomes.interaction_ids[row]),
        prompt=str(outcomes.prompts[row]),
        answer=answer(row),
        why=why_failed(outcomes, row),
        borderline=borderline,
    )
    if outcomes.corrections[row] is not None:
        update: dict[str, object] = {
            "better": right(row),
            "source": "correction",
        }
    elif similar is not None:
        update = {
            "better": right(similar),
            "source": "similar",
            "better_prompt": str(outcomes.prompts[similar]),
        }
    else:
        update = {}
    return example.model_copy(update=update)
