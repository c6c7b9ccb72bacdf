"""The same failure cluster from run to run: what is new, growing, shrinking or gone.

found = identify(result, texts, previous, now=now)
store.append(found.clusters)             # the next run's `previous`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from pydantic import Field

from ratchet.analyze.failures.clusters import Cluster, FailureClusters
from ratchet.analyze.failures.words import text_hash
from ratchet.outcomes.join import BoolArray
from ratchet.records import Record, Trend, derive_id, digest
from ratchet.records.base import Identifier, UtcTime
from ratchet.stats.comparisons.many_groups import fisher_excess
from ratchet.stats.intervals import Interval, newcombe_independent

SKETCH = 256
LEAST_OVERLAP = 0.25
LEAST_LIKENESS = 0.85
_HASH_BYTES = 8

STILL_FAILING = 0.05
MOST_OF_IT = 0.5
MOST_ASLEEP = 500


class KnownCluster(Record):
    """What is kept of a cluster to know it again.

    Attributes:
        id: Stays the same as long as the cluster is known again.
        name: Its name in the last run that found it.
        first_seen: When a run first found it.
        last_seen: When a run last found it.
        failures: Failed interactions in it, in that last run.
        interactions: Of all interactions of that run, failed or not.
        distinct: Distinct texts in it.
        sketch: The smallest hashes of its distinct texts, ascending, at most 256.
        centre: Its mean direction.
    """

    id: Identifier
    name: str
    first_seen: UtcTime
    last_seen: UtcTime
    failures: int = Field(ge=0)
    interactions: int = Field(ge=1)
    distinct: int = Field(ge=1)
    sketch: tuple[str, ...]
    centre: tuple[float, ...]


class KnownClusters(Record):
    """The clusters of one run, with those of earlier runs that may come back.

    Attributes:
        encoder: Digest of what made the vectors; centres of another one, or of None, tell nothing.
    """

    id: Identifier
    created_at: UtcTime
    clusters: tuple[KnownCluster, ...]
    encoder: str | None = ""


@dataclass(frozen=True, slots=True)
class Change:
    """How a cluster stands to the run before.

    Attributes:
        id: Its identity.
        trend: "new" where no known cluster is like it, and "split" where it was part of `other`.
            "growing" and "shrinking" where the interval excludes 0, else "steady". "merged" where
            it is now part of `other`, "gone" where its texts fail no more than the rest.
        difference: Its failures over all interactions, less the same in the run before.
        interval: 95 % interval of the difference; None for one that was not there.
        index: Its place in the result; None where it is not found there. A known cluster is not
            gone as long as its texts fail more than the rest, found or not.
        other: The identity of the cluster that it was or is part of.
    """

    id: str
    trend: Trend
    difference: float
    interval: Interval | None
    index: int | None
    other: str | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """Result of `identify`.

    Attributes:
        changes: One a cluster of the result, in its order, then those of the run before that were
            not found.
        clusters: To be kept for the next run.
    """

    changes: tuple[Change, ...]
    clusters: KnownClusters


def identify(
    result: FailureClusters,
    texts: Sequence[str],
    failed: BoolArray,
    previous: KnownClusters | None,
    *,
    now: datetime,
    encoder: str | None = "",
) -> Identified:
    """Give each cluster the identity of the known cluster that it is, or a new one.

    Pairs are taken greedily, the likest first, each cluster once: first by the overlap of their
    texts (intersection over union, from 0.25 on), then by the cosine of their centres (from 0.85
    on), which knows a cluster again when no text came twice. The overlap is estimated from the 256
    smallest hashes of each, with a standard error of at most 0.03.

    A known cluster that is not found stays as long as its texts, where they come again, fail more
    than the rest (Fisher's exact test at 5 %): what was shown once need not be shown anew against
    all other groups. One that is gone or merged is said to be so once; the latest 500 of them are
    kept, and known again should they be found again.

    Units: differences of shares in [-1, 1].
    Assumptions: the same encoder in both runs, else only texts tell; the interval takes the two
    runs' interactions as different ones. Where most of them are the same it is too wide.
    Error rate: a cluster whose share did not change is called growing or shrinking in about 5 % of
    runs with different interactions, and less often where they overlap.
    When not to use: to test one cluster over many runs; each run is one more look.

    Args:
        result: This run's clusters.
        texts: The texts they were found in.
        failed: Which of them failed.
        previous: What the run before left; None for the first run.
        now: When this run is.
        encoder: Digest of what made the vectors; None where their directions mean nothing in
            another run, so that clusters are known again by their texts alone.

    References:
        Broder, A. Z. (1997). On the resemblance and containment of documents. Compression and
        Complexity of Sequences, 21-29.
    """
    known = previous.clusters if previous else ()
    failed = np.asarray(failed, dtype=np.bool_)
    sketches = [_sketch(cluster, texts) for cluster in result.clusters]
    comparable = encoder is not None and previous is not None and previous.encoder == encoder
    pairs = _pairs(result.clusters, sketches, known, by_direction=comparable)
    total = max(len(texts), 1)
    changes: list[Change] = []
    kept: list[KnownCluster] = []
    for index, cluster in enumerate(result.clusters):
        before = known[pairs[index]] if index in pairs else None
        identity = before.id if before else _fresh_id(now, sketches[index], cluster.name)
        whole = None if before else _part_of(sketches[index][0], known)
        change = _change(identity, index, before, cluster.members.size, total)
        changes.append(replace(change, trend="split", other=whole) if whole else change)
        kept.append(_known(identity, cluster, before, sketches[index], total, now))
    ids = [change.id for change in changes]
    rows = _rows_by_hash(texts) if len(pairs) < len(known) else {}
    asleep: list[KnownCluster] = []
    for known_index in sorted(set(range(len(known))) - set(pairs.values())):
        if previous and known[known_index].last_seen < previous.created_at:
            asleep.append(known[known_index])  # said to be gone or merged in an earlier run
            continue
        change, again = _not_found(known[known_index], rows, result, ids, failed, now)
        kept.append(again)
        changes.append(change)
    asleep.sort(key=lambda item: item.last_seen, reverse=True)
    kept += asleep[:MOST_ASLEEP]
    content = digest([item.canonical() for item in kept])
    record = KnownClusters(
        id=derive_id("known-clusters", now.isoformat(), content),
        created_at=now,
        clusters=tuple(kept),
        encoder=encoder,
    )
    return Identified(tuple(changes), record)


def _known(
    identity: str,
    cluster: Cluster,
    before: KnownCluster | None,
    sketch: tuple[tuple[str, ...], int],
    interactions: int,
    now: datetime,
) -> KnownCluster:
    return KnownCluster(
        id=identity,
        name=cluster.name,
        first_seen=before.first_seen if before else now,
        last_seen=now,
        failures=cluster.members.size,
        interactions=interactions,
        distinct=sketch[1],
        sketch=sketch[0],
        centre=tuple(round(float(x), 5) for x in cluster.centre),
    )


def _not_found(
    known: KnownCluster,
    rows_by_hash: Mapping[str, list[int]],
    result: FailureClusters,
    ids: Sequence[str],
    failed: BoolArray,
    now: datetime,
) -> tuple[Change, KnownCluster]:
    """Say what became of a known cluster that no found one is: merged, still failing, or gone."""
    rows = np.array(
        sorted(row for item in known.sketch for row in rows_by_hash.get(item, ())), dtype=np.int64
    )
    total, inside = failed.size, int(failed[rows].sum())
    # the sketch may be a sample of its texts
    failures = min(round(inside * known.distinct / len(known.sketch)), total)
    change = _change(known.id, None, known, failures, max(total, 1))
    for index, cluster in enumerate(result.clusters):
        if rows.size and np.isin(rows, cluster.rows).mean() >= MOST_OF_IT:
            return replace(change, trend="merged", other=ids[index]), known
    if rows.size:
        (p_value,) = fisher_excess(
            [inside], [rows.size], all_successes=int(failed.sum()), all_trials=total
        )
        if p_value <= STILL_FAILING:
            update = {"last_seen": now, "failures": failures, "interactions": total}
            return change, known.model_copy(update=update)
    return replace(_change(known.id, None, known, 0, max(total, 1)), trend="gone"), known


def _sketch(cluster: Cluster, texts: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the smallest hashes of the cluster's distinct texts, failed or not, and their number.

    What fails today succeeds tomorrow; what is asked stays.
    """
    hashes = sorted({_hash(texts[row]) for row in cluster.rows})
    return tuple(hashes[:SKETCH]), len(hashes)


def _hash(text: str) -> str:
    return text_hash(text, _HASH_BYTES).hex()


def _rows_by_hash(texts: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(_hash(text), []).append(row)
    return rows


def _overlap(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Estimate intersection over union from two bottom sketches."""
    both = set(first) & set(second)
    if not both:
        return 0.0
    union = sorted(set(first) | set(second))[:SKETCH]
    return sum(item in both for item in union) / len(union)


def _part_of(sketch: tuple[str, ...], known: Sequence[KnownCluster]) -> str | None:
    """Return the known cluster that holds most of these texts, as far as its sketch reaches."""
    for before in known:
        complete = before.distinct <= len(before.sketch)
        reached = [item for item in sketch if complete or item <= before.sketch[-1]]
        shared = set(reached) & set(before.sketch)
        if reached and len(shared) >= MOST_OF_IT * len(reached):
            return before.id
    return None


def _pairs(
    clusters: Sequence[Cluster],
    sketches: Sequence[tuple[tuple[str, ...], int]],
    known: Sequence[KnownCluster],
    *,
    by_direction: bool,
) -> dict[int, int]:
    scored = []
    for index, cluster in enumerate(clusters):
        for known_index, before in enumerate(known):
            overlap = _overlap(sketches[index][0], before.sketch)
            likeness = _likeness(cluster, before) if by_direction else 0.0
            if overlap >= LEAST_OVERLAP:
                scored.append((2.0 + overlap, index, known_index))
            elif likeness >= LEAST_LIKENESS:
                scored.append((likeness, index, known_index))
    pairs: dict[int, int] = {}
    for _, index, known_index in sorted(scored, key=lambda item: (-item[0], item[1], item[2])):
        if index not in pairs and known_index not in pairs.values():
            pairs[index] = known_index
    return pairs


def _likeness(cluster: Cluster, before: KnownCluster) -> float:
    if len(before.centre) != len(cluster.centre):
        return 0.0
    return float(np.dot(cluster.centre, np.asarray(before.centre)))


def _fresh_id(now: datetime, sketch: tuple[tuple[str, ...], int], name: str) -> str:
    return derive_id("failure-cluster", now.isoformat(), name, *sketch[0])


def _change(
    identity: str, index: int | None, before: KnownCluster | None, failures: int, interactions: int
) -> Change:
    share = failures / interactions
    if before is None:
        return Change(identity, "new", share, None, index)
    interval = newcombe_independent(before.failures, before.interactions, failures, interactions)
    trend: Trend = "steady"
    if interval.lower > 0.0:
        trend = "growing"
    elif interval.upper < 0.0:
        trend = "shrinking"
    difference = share - before.failures / before.interactions
    return Change(identity, trend, difference, interval, index)
