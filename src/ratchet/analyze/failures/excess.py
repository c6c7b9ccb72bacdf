"""Where failures are over-represented: a scan of all nodes of a hierarchy of the texts.

The hierarchy knows nothing about what failed. So all its nodes are hypotheses that were fixed
beforehand, and dealing out the failures to the rows at random shows how large the largest excess
of all nodes gets by chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ratchet.analyze.failures.hierarchy import FloatArray, Hierarchy, IntArray
from ratchet.stats.comparisons.many_groups import bernoulli_excess
from ratchet.stats.intervals import Interval
from ratchet.stats.intervals.selected import selected_proportion

ALPHA_ANY = 0.02
"""Chance that anything is reported where failures do not depend on the text."""
ALPHA = 0.05
"""Chance of a false region in all further scans, once something stands out."""
DEALS = 499
SMALLEST = 4
"""A node needs so many rows."""
FEWEST_FAILURES = 3
SPLIT_GAIN = 4.0
"""Nats that each further part has to add, so that a node is split into its parts."""
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Region:
    """Cells that lie together and fail more than the rest.

    Attributes:
        cells: Ascending.
        failures: Rows in the cells that failed.
        rows: Rows in the cells.
        p_value: Share of random deals in which some node has at least as large an excess; it
            allows for all the nodes that were looked at.
        interval: 95 % interval of the failure rate, given that it was high enough to be reported.
    """

    cells: IntArray
    failures: int
    rows: int
    p_value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Attributes:
        regions: Disjoint.
        least_p_value: Of the node that stands out most, found or not.
    """

    regions: tuple[Region, ...]
    least_p_value: float


@dataclass(frozen=True, slots=True)
class _Pass:
    """The nodes as they stand without the cells that were taken out before."""

    failures: FloatArray
    rows: FloatArray
    all_failures: float
    all_rows: float
    excess: FloatArray
    largest: FloatArray
    alpha: float

    @property
    def limit(self) -> float:
        """The excess that the largest of a random deal is above with a chance of `alpha`."""
        return float(self.largest[-int(self.alpha * (len(self.largest) + 1))]) + 1e-9

    def p_values(self, nodes: list[int]) -> FloatArray:
        """Return the share of deals with a largest excess as large as each node's."""
        above = self.largest[None, :] >= self.excess[nodes][:, None] - 1e-9
        p_values: FloatArray = (1.0 + above.sum(axis=1)) / (1.0 + len(self.largest))
        return p_values


def scan(
    hierarchy: Hierarchy, failures: FloatArray, rows: FloatArray, *, rng: np.random.Generator
) -> Scan:
    """Find disjoint nodes in which more rows fail than outside, with more than chance.

    Each node's excess is the log likelihood ratio of a higher rate inside than outside. A node
    stands out where fewer than 2 % of 499 random deals of the failures have any node with as
    large an excess. Of nested nodes that stand out, the parts are kept where they tell more than
    the whole (4 nats for each further part), and always above the real groups: two things that
    fail stay two. What is found is taken out and the rest is scanned again, until nothing stands
    out, so that a large group of failures hides no smaller one; once something was found, 5 % of
    the deals are enough.

    Units: counts in; rates in [0, 1], probabilities.
    Assumptions: given its text, a row fails independently of the others.
    Error rate: where failures do not depend on the text, anything is found with probability at
    most 2 % (exact: the deals are permutations). Further scans are reached only by what stood out,
    so that beside something that does fail, any region that fails no more than the rest is reported
    with probability at most 5 % and the 2 % of the first scan; the false discovery rate, which is
    at most that, is far lower. The intervals cover at least 95 % given that a fixed node's excess
    is above the limit; the choice among nested nodes is not allowed for. docs/failures.md measures
    all three.
    When not to use: where few users make most of the rows.

    Args:
        hierarchy: Of the texts.
        failures: Failed rows a cell and, last, of those in no cell, shape (k + 1,).
        rows: Rows alike, shape (k + 1,).
        rng: Deals the failures.

    References:
        Kulldorff, M., Fang, Z., Walsh, S. J. (2003). A tree-based scan statistic for database
        disease surveillance. Biometrics 59, 323-331.
        Zhang, Z., Assuncao, R., Kulldorff, M. (2010). Spatial scan statistics adjusted for
        multiple clusters. Journal of Probability and Statistics, 642379.
    """
    failures, rows = failures.copy(), rows.copy()
    overall = failures.sum() / max(rows.sum(), 1.0)
    regions: list[Region] = []
    least = 1.0
    while 0.0 < failures.sum() < rows.sum():
        alpha = ALPHA if regions else ALPHA_ANY
        now = _pass(hierarchy, failures, rows, overall, alpha, rng)
        if not regions:
            least = float(now.p_values([int(now.excess.argmax())])[0])
        nodes = _standing_out(hierarchy, now)
        if not nodes:
            break
        for node, p_value in zip(nodes, now.p_values(nodes), strict=True):
            cells = _cells_below(hierarchy, node)
            cells = cells[rows[cells] > 0]
            regions.append(_region(cells, node, now, float(p_value), overall))
            failures[cells] = rows[cells] = 0.0
    return Scan(tuple(regions), least)


def _pass(
    hierarchy: Hierarchy,
    failures: FloatArray,
    rows: FloatArray,
    overall: float,
    alpha: float,
    rng: np.random.Generator,
) -> _Pass:
    in_node, size = hierarchy.totals(failures[:-1]), hierarchy.totals(rows[:-1])
    all_failures, all_rows = float(failures.sum()), float(rows.sum())

    def excess(inside: FloatArray, sizes: FloatArray) -> FloatArray:
        ratio = bernoulli_excess(inside, sizes, all_successes=all_failures, all_trials=all_rows)
        counts = (sizes >= SMALLEST) & (inside >= FEWEST_FAILURES) & (inside > overall * sizes)
        return np.where(counts, ratio, 0.0)

    largest = []
    for start in range(0, DEALS, _BLOCK):
        deals = min(_BLOCK, DEALS - start)
        dealt = rng.multivariate_hypergeometric(
            rows.astype(np.int64), int(all_failures), size=deals, method="marginals"
        )
        dealt_in_node = hierarchy.totals(dealt[:, :-1].T.astype(np.float64))
        sizes = np.broadcast_to(size[:, None], dealt_in_node.shape)
        largest.append(excess(dealt_in_node, sizes).max(axis=0))
    ordered = np.sort(np.concatenate(largest))
    return _Pass(in_node, size, all_failures, all_rows, excess(in_node, size), ordered, alpha)


def _standing_out(hierarchy: Hierarchy, now: _Pass) -> list[int]:
    """Return disjoint nodes above the limit, from the leaves up: the parts or the whole."""
    count = len(hierarchy.sizes)
    own = np.where(now.excess > now.limit, now.excess, 0.0)
    told, parts = own.copy(), (own > 0).astype(np.int64)
    whole = own > 0
    for step, (left, right) in enumerate(hierarchy.joins):
        node = count + step
        together, pieces = told[left] + told[right], parts[left] + parts[right]
        within_a_group = step < count - hierarchy.groups
        further = SPLIT_GAIN * max(pieces - 1, 0)
        whole[node] = own[node] > 0 and (
            pieces == 0 or (within_a_group and own[node] >= together - further)
        )
        if not whole[node]:
            told[node], parts[node] = together, pieces
        else:
            parts[node] = 1
    chosen, waiting = [], [hierarchy.nodes - 1]
    while waiting:
        node = waiting.pop()
        if whole[node]:
            chosen.append(node)
        elif node >= count and parts[node]:
            waiting += [int(child) for child in hierarchy.joins[node - count]]
    return chosen


def _cells_below(hierarchy: Hierarchy, node: int) -> IntArray:
    count = len(hierarchy.sizes)
    cells, waiting = [], [node]
    while waiting:
        here = waiting.pop()
        if here < count:
            cells.append(here)
        else:
            waiting += [int(child) for child in hierarchy.joins[here - count]]
    return np.array(sorted(cells), dtype=np.int64)


def _region(cells: IntArray, node: int, now: _Pass, p_value: float, overall: float) -> Region:
    failures, rows = int(now.failures[node]), int(now.rows[node])
    counts = np.arange(failures + 1, dtype=np.float64)
    # the excess that the node would have with fewer failures, what lies outside left as it is
    excess = bernoulli_excess(
        counts,
        np.full(counts.shape, float(rows)),
        all_successes=now.all_failures - failures + counts,
        all_trials=now.all_rows,
    )
    reported = (excess > now.limit) & (counts > overall * rows) & (counts >= FEWEST_FAILURES)
    threshold = int(np.flatnonzero(reported)[0]) if reported.any() else failures
    interval = selected_proportion(failures, rows, threshold=threshold)
    return Region(cells, failures, rows, p_value, interval)
