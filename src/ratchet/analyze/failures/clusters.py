"""Where do interactions fail more than elsewhere? Clusters with names, rates and examples.

A failure cluster is a group of similar texts in which failures are over-represented; much traffic
is no reason to be one.

    embeddings = embed(texts, SentenceEncoder.load(MINILM), cache=store)
    result = find_failure_clusters(texts, failed, embeddings=embeddings, rng=rng)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ratchet.analyze.failures.corpus import Grouped, group, prepare
from ratchet.analyze.failures.excess import Region, Scan, scan
from ratchet.analyze.failures.hierarchy import Vectors, unit_rows
from ratchet.analyze.failures.per_user import one_a_user
from ratchet.analyze.failures.stability import measure_stability
from ratchet.analyze.failures.words import examples, name_groups
from ratchet.errors import InvalidInputError
from ratchet.outcomes.join import BoolArray
from ratchet.stats.intervals import Interval

IntArray = NDArray[np.int64]

MINIMUM_FAILED = 10
STABLE = 0.6
"""From this stability on a cluster counts as a stable one (Hennig: below it, do not trust)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that are about the same thing and fail more than the rest.

    Attributes:
        members: Row indices of the failed rows, ascending.
        rows: Row indices of all rows in the cluster, failed or not, ascending.
        name: The words that set it apart, most telling first.
        failure_rate: Share of `rows` that failed.
        rest_rate: Share of all other rows that failed.
        lift: The failure rate over the rate of all rows.
        interval: 95 % interval of the failure rate that allows for the cluster having been
            reported because its rate was high.
        share: Members over all failed rows.
        excess: Failures beyond those expected at the rate of the rest.
        p_value: How often chance alone gives any group that stands out as much.
        stability: Mean overlap (Jaccard) with the nearest group of half the texts, over several
            halves; None where the cluster has too few distinct texts to be measured.
        centre: Mean direction of its distinct texts, length one, shape (d,).
        examples: Distinct failed texts, nearest the centre first.
        borderline: Distinct failed texts, farthest from the centre first.
    """

    members: IntArray
    rows: IntArray
    name: str
    failure_rate: float
    rest_rate: float
    lift: float
    interval: Interval
    share: float
    excess: float
    p_value: float
    stability: float | None
    centre: Vectors
    examples: tuple[str, ...]
    borderline: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether half the texts give the same cluster; not where that could not be measured."""
        return self.stability is not None and self.stability >= STABLE


@dataclass(frozen=True, slots=True)
class FailureClusters:
    """Result of `find_failure_clusters`.

    Attributes:
        clusters: By excess, largest first; their rows are disjoint.
        labels: Index of its cluster for each failed row, -1 for none, shape (n,).
        reason: Why there are no clusters; None where there are.
    """

    clusters: tuple[Cluster, ...]
    labels: IntArray
    reason: str | None = None


def find_failure_clusters(
    texts: Sequence[str],
    failed: BoolArray,
    *,
    embeddings: NDArray[np.floating] | None = None,
    users: Sequence[str] | None = None,
    rng: np.random.Generator,
) -> FailureClusters:
    """Find the groups of similar texts that fail more than the rest.

    The distinct texts are put into a hierarchy that knows nothing of what failed. All its nodes
    are scanned for more failures than outside (`ratchet.analyze.failures.excess.scan`); what no
    chance would give is reported, as fine or as broad as the failures are. No number of clusters is
    given, and what lies far from every group is noise and stays so.

    Units: rates and shares in [0, 1], lift as a ratio.
    Assumptions: given its text, a row fails independently of the others, those of the same user
    excepted where users are given; what fails together lies together in the embeddings (shares
    words, where none are given).
    Error rate: where failures do not depend on the text, anything is reported in at most 2 % of
    runs, whatever the number of groups; beside something that does fail, a group that does not in
    at most 7 %, which bounds the false discovery rate. Intervals are conditional on being reported.
    Measured in docs/failures.md.
    When not to use: where answers fail for reasons that the text does not show, or without users
    where few of them make most of the rows.

    Args:
        texts: One text a row, e.g. the prompts; shape (n,).
        failed: Whether the row failed, shape (n,).
        embeddings: One vector a row, shape (n, d); TF-IDF of the texts where None.
        users: Whose row it is, shape (n,), empty where not known. What is found and its interval
            rest on one row of each user in each group of texts; counts and rates are of all rows.
        rng: Source of randomness; the same state gives the same clusters. The order of the rows
            does not matter.

    Raises:
        InvalidInputError: Lengths differ, a text is no string, a flag is neither true nor false, or
            an embedding is not finite.

    References:
        Kulldorff, M., Fang, Z., Walsh, S. J. (2003), as `ratchet.analyze.failures.excess.scan`.
        Grootendorst, M. (2022), as `ratchet.analyze.failures.words.name_groups`.
    """
    texts, failed = list(texts), as_flags(failed)  # a pandas Series would be read by its index
    _check_lengths(texts, failed)
    count = int(failed.sum())
    if count < MINIMUM_FAILED:
        return _nothing(failed.size, f"{count} rows failed, {MINIMUM_FAILED} are needed")
    if count == failed.size:
        return _nothing(failed.size, "all rows failed, so no group fails more than the rest")
    corpus = prepare(texts, embeddings, rng)
    telling = int(np.count_nonzero(failed & (corpus.place >= 0)))
    if telling < MINIMUM_FAILED:
        reason = f"{telling} failed rows hold a word to compare, {MINIMUM_FAILED} are needed"
        return _nothing(failed.size, reason)
    if len(corpus.vectors) < 2:
        return _nothing(failed.size, "all rows have the same text, so there is nothing to group")
    grouped = group(corpus, rng)
    counted = counted_rows(texts, failed, grouped, users, rng)
    scanned = scan_rows(grouped, failed, counted, rng)
    if not scanned.regions:
        reason = (
            "no group of texts fails more than chance allows: the one that stands out most has "
            f"p = {scanned.least_p_value:.2g} among all groups"
        )
        return _nothing(failed.size, reason)
    return _described(texts, failed, grouped, scanned.regions, rng)


def as_flags(failed: ArrayLike) -> BoolArray:
    """Return flags as an array of booleans; what is neither true nor false is refused.

    A missing flag must not count as a failure, which NaN does where numpy casts it.

    Raises:
        InvalidInputError: A flag is not one of True, False, 1 and 0.
    """
    flags = np.asarray(failed)
    if flags.dtype == np.bool_:
        return flags
    readable = [isinstance(flag, int | float) and flag in (0, 1) for flag in flags.ravel().tolist()]
    if not all(readable):
        row = readable.index(False)
        raise InvalidInputError(
            f"failed must be true or false, got {flags.ravel()[row]!r} in row {row}; leave out "
            "rows of which it is not known"
        )
    return flags.astype(np.bool_)


def _check_lengths(texts: Sequence[str], failed: BoolArray) -> None:
    if failed.shape != (len(texts),):
        raise InvalidInputError(
            f"texts and failed must be equally long, got {len(texts)} and shape {failed.shape}; "
            "pass one flag a text"
        )


def _nothing(size: int, reason: str) -> FailureClusters:
    return FailureClusters(clusters=(), labels=np.full(size, -1, dtype=np.int64), reason=reason)


def counted_rows(
    texts: Sequence[str],
    failed: BoolArray,
    grouped: Grouped,
    users: Sequence[str] | None,
    rng: np.random.Generator,
) -> BoolArray:
    """Return the rows that a scan counts: all, or one of each user in each group."""
    if users is None:
        return np.ones(failed.size, dtype=np.bool_)
    hierarchy, text_of_row = grouped.hierarchy, grouped.corpus.place
    groups = hierarchy.group_nodes(hierarchy.groups)[hierarchy.cells][text_of_row]
    # rows without a word are a group as well
    groups = np.where(text_of_row >= 0, groups, hierarchy.nodes)
    return one_a_user(users, groups, texts, failed, seed=int(rng.integers(2**31)))


def scan_rows(
    grouped: Grouped, failed: BoolArray, counted: BoolArray, rng: np.random.Generator
) -> Scan:
    """Scan for groups in which more of the counted rows fail than elsewhere. See `scan`."""
    cells = grouped.cell_of_row
    return scan(
        grouped.hierarchy,
        _rows_a_cell(grouped, cells[failed & counted]),
        _rows_a_cell(grouped, cells[counted]),
        rng=rng,
    )


def _rows_a_cell(grouped: Grouped, cells: IntArray) -> NDArray[np.float64]:
    """Count rows a cell and, last, those in none."""
    count = len(grouped.hierarchy.sizes)
    return np.bincount(np.where(cells < 0, count, cells), minlength=count + 1).astype(np.float64)


def _described(
    texts: Sequence[str],
    failed: BoolArray,
    grouped: Grouped,
    regions: Sequence[Region],
    rng: np.random.Generator,
) -> FailureClusters:
    cluster_of_cell = np.full(len(grouped.hierarchy.sizes) + 1, -1, dtype=np.int64)
    for index, region in enumerate(regions):
        cluster_of_cell[region.cells] = index
    excess = _excess(cluster_of_cell[grouped.cell_of_row], failed, len(regions))
    order = sorted(range(len(regions)), key=lambda i: (-excess[i], regions[i].cells[0]))
    for rank, index in enumerate(order):
        cluster_of_cell[regions[index].cells] = rank
    cluster_of_row = cluster_of_cell[grouped.cell_of_row]  # the last one is for cell -1
    labels = np.where(failed, cluster_of_row, -1)
    members = [np.flatnonzero(labels == index) for index in range(len(order))]
    names = name_groups(texts, members)
    of_vector = np.where(grouped.group >= 0, cluster_of_cell[grouped.hierarchy.cells], -1)
    stability = measure_stability(grouped.corpus.vectors, of_vector, len(order), rng)
    clusters = []
    for rank, index in enumerate(order):
        rows, inside = np.flatnonzero(cluster_of_row == rank), members[rank]
        rate = inside.size / rows.size
        centre = unit_rows(grouped.corpus.vectors[of_vector == rank].mean(axis=0)[None, :])[0]
        typical, border = _examples(texts, inside, grouped, centre)
        clusters.append(
            Cluster(
                members=inside,
                rows=rows,
                name=names[rank],
                failure_rate=rate,
                rest_rate=_rest_rate(inside.size, rows.size, failed),
                lift=rate / float(failed.mean()),
                interval=_around(regions[index].interval, rate),
                share=inside.size / int(failed.sum()),
                excess=excess[index],
                p_value=regions[index].p_value,
                stability=stability[rank],
                centre=centre,
                examples=typical,
                borderline=border,
            )
        )
    return FailureClusters(clusters=tuple(clusters), labels=labels)


def _around(interval: Interval, rate: float) -> Interval:
    """Widen an interval to the rate of all rows, where it rests on one row a user."""
    return Interval(min(interval.lower, rate), max(interval.upper, rate), interval.level)


def _rest_rate(failures: int, rows: int, failed: BoolArray) -> float:
    outside = failed.size - rows
    return (int(failed.sum()) - failures) / outside if outside else 0.0


def _excess(cluster_of_row: IntArray, failed: BoolArray, clusters: int) -> list[float]:
    """Return each cluster's failures beyond those expected at the rate of the rest."""
    inside = cluster_of_row >= 0
    rows = np.bincount(cluster_of_row[inside], minlength=clusters)
    failures = np.bincount(cluster_of_row[inside & failed], minlength=clusters)
    return [
        float(bad - _rest_rate(int(bad), int(count), failed) * count)
        for bad, count in zip(failures, rows, strict=True)
    ]


def _examples(
    texts: Sequence[str], members: IntArray, grouped: Grouped, centre: Vectors
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    distinct, first = np.unique(grouped.corpus.place[members], return_index=True)
    closeness = grouped.corpus.vectors[distinct] @ centre
    rows = members[first]
    return (
        examples(texts, rows, closeness, nearest=True),
        examples(texts, rows, closeness, nearest=False),
    )
