"""The Markov chains and integral equations behind the run lengths of control charts.

A chart in use is a chain whose state is what it remembers: its statistic, or the recent points of a
run rule. Its run length is the time to absorption in the alarm. Charts of normal values have a
continuous statistic; their integral equation is solved by Gauss-Legendre quadrature, with nodes so
close that each transition density spans several of them. Count charts move on a lattice and are
exact.

Everything here takes checked arguments; `ratchet.stats.charts.run_lengths` is the way in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import sparse, special
from scipy.sparse import linalg

from ratchet.errors import InvalidInputError
from ratchet.stats.arrays import FloatArray
from ratchet.stats.charts.chart_checks import require

Pattern = tuple[bool, ...]
# A reference value is the simplest fraction within this share of the gap between the two rates.
REFERENCE_TOLERANCE = 0.02
# Longer run lengths drown in rounding errors.
LARGEST_SOLVED = 1e12
# Patterns of recent points that run rules may tell apart; four Western Electric rules need 295.
MOST_PATTERNS = 20_000
# Added before rounding to the lattice, so that 1/3 + 1/3 + 1/3 reaches 1.
ROUNDING = 1e-9
# Quadrature points per standard deviation of one transition, and a number that does for short ones.
NODES_PER_DEVIATION, FEWEST_NODES = 1.2, 24


# Run rules --------------------------------------------------------------------------------------


def pattern_absorption_time(
    needs: Sequence[tuple[int, int]], cells: Sequence[Pattern], chances: FloatArray
) -> float:
    """Mean number of points until a test has enough hits within its window.

    Args:
        needs: Hits and window of each test.
        cells: Which tests a point hits, for each cell that it can fall into.
        chances: Probability of each cell, shape (cells,).
    """
    start: tuple[Pattern, ...] = tuple(() for _ in needs)
    order = {start: 0}
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for row, state in enumerate(todo := [start]):
        for cell, chance in zip(cells, chances, strict=True):
            following = _following(state, cell, needs)
            if following is None:
                continue
            if following not in order:
                require(
                    len(order) < MOST_PATTERNS,
                    f"run rules can be followed through {MOST_PATTERNS} patterns of recent points, "
                    "got more; pass fewer rules or shorter windows",
                )
                order[following] = len(order)
                todo.append(following)
            rows.append(row)
            columns.append(order[following])
            weights.append(float(chance))
    shape = (len(order), len(order))
    return absorption_time(sparse.csc_array((weights, (rows, columns)), shape=shape), 0)


def _following(
    state: tuple[Pattern, ...], cell: Pattern, needs: Sequence[tuple[int, int]]
) -> tuple[Pattern, ...] | None:
    """Return the recent points of each test, newest first, or None where one alarms."""
    following = []
    for recent, hit, (hits, window) in zip(state, cell, needs, strict=True):
        pattern = (hit, *recent)[:window]
        if sum(pattern) >= hits:
            return None
        # an old hit matters only if it can still be one of enough
        while pattern and not (pattern[-1] and sum(pattern) + window - len(pattern) >= hits):
            pattern = pattern[:-1]
        following.append(pattern)
    return tuple(following)


def absorption_time(transitions: sparse.csc_array, start: int) -> float:
    """Mean steps to leave the states of `transitions`, shape (n, n), from state `start`."""
    size = transitions.shape[0]
    steps = linalg.spsolve(sparse.eye_array(size, format="csc") - transitions, np.ones(size))
    return float(np.atleast_1d(steps)[start])


# EWMA and CUSUM of normal values ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EwmaChain:
    """Two-sided EWMA chart that starts at 0, of points with mean `shift` and deviation `scale`.

    Attributes:
        weight: Weight of the newest point.
        limit: Limit in standard deviations of the statistic.
        time_varying: Whether the limits open with the variance of the statistic.
        shift: Means, shape (b,).
        scale: Standard deviations, shape (b,).
        settled: Share of the final variance still missing at which the limits count as constant.
    """

    weight: float
    limit: float
    time_varying: bool
    shift: FloatArray
    scale: FloatArray
    settled: float = 1e-12

    def means(self) -> FloatArray:
        """Average run lengths, shape (b,); infinite above `LARGEST_SOLVED`."""
        mass, points, passed = self._opened(None)
        inner = self._transitions(points, *self._grid(self._widths()[-1]))
        total: FloatArray = passed + (mass @ _steps_ahead(inner))[:, 0, 0]
        return total

    def survivals(self, horizon: int) -> FloatArray:
        """Probabilities of no alarm within `horizon` points, shape (b,)."""
        mass, points, _ = self._opened(horizon)
        left = horizon - self._widths().size
        if left > 0:
            inner = self._transitions(points, *self._grid(self._widths()[-1]))
            for _ in range(left):
                mass = mass @ inner
        total: FloatArray = mass.sum(axis=(1, 2))
        return total

    def _widths(self) -> FloatArray:
        """Half-widths of the limits, until they no longer change."""
        full = self.limit * math.sqrt(self.weight / (2.0 - self.weight))
        if not self.time_varying or self.weight == 1.0:
            return np.array([full])
        steps = math.ceil(math.log(self.settled) / (2.0 * math.log1p(-self.weight)))
        missing = (1.0 - self.weight) ** (2.0 * np.arange(1, steps + 1))
        widths: FloatArray = full * np.sqrt(1.0 - missing)
        return widths

    def _opened(self, horizon: int | None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return mass after the points with opening limits, its nodes, and points survived."""
        mass, points = np.ones((self.shift.size, 1, 1)), np.zeros(1)
        passed = np.zeros(self.shift.size)
        for width in self._widths()[:horizon]:
            passed = passed + mass.sum(axis=(1, 2))
            nodes, weights = self._grid(width)
            mass = mass @ self._transitions(points, nodes, weights)
            points = nodes
        return mass, points, passed

    def _grid(self, width: float) -> tuple[FloatArray, FloatArray]:
        deviation = self.weight * float(self.scale.min())
        return _gauss_legendre(-width, width, deviation)

    def _transitions(self, at: FloatArray, to: FloatArray, weights: FloatArray) -> FloatArray:
        moved = to[None, :] - (1.0 - self.weight) * at[:, None]
        shift, scale = self.shift[:, None, None], self.weight * self.scale[:, None, None]
        return _density((moved - self.weight * shift) / scale) / scale * weights


@dataclass(frozen=True, slots=True)
class CusumChain:
    """One-sided upper CUSUM of points with mean `shift` and deviation `scale`.

    Attributes:
        reference: Taken off each point.
        decision_interval: Alarm at or above it.
        head_start: Where the statistic starts.
        shift: Means, shape (b,).
        scale: Standard deviations, shape (b,).
    """

    reference: float
    decision_interval: float
    head_start: float
    shift: FloatArray
    scale: FloatArray

    def means(self) -> tuple[FloatArray, FloatArray]:
        """Average run lengths from the head start and from 0, as `EwmaChain.means`."""
        states, inner = self._inner()
        ahead = _steps_ahead(inner)
        first = self._transitions(np.array([self.head_start]), states[1:])
        return 1.0 + (first @ ahead)[:, 0, 0], ahead[:, 0, 0]

    def survivals(self, horizon: int) -> FloatArray:
        """Probabilities of no alarm within `horizon` points, shape (b,)."""
        states, inner = self._inner()
        mass = self._transitions(np.array([self.head_start]), states[1:])
        for _ in range(horizon - 1):
            mass = mass @ inner
        total: FloatArray = mass.sum(axis=(1, 2))
        return total

    def _inner(self) -> tuple[FloatArray, FloatArray]:
        nodes, _ = self._grid()
        states = np.concatenate([[0.0], nodes])
        return states, self._transitions(states, nodes)

    def _grid(self) -> tuple[FloatArray, FloatArray]:
        return _gauss_legendre(0.0, self.decision_interval, float(self.scale.min()))

    def _transitions(self, at: FloatArray, nodes: FloatArray) -> FloatArray:
        """To 0, which has an atom, and to the nodes: shape (b, at, 1 + nodes)."""
        shift, scale = self.shift[:, None, None], self.scale[:, None, None]
        rise = self.reference - at[None, :, None] - shift
        inside = _density((nodes + rise) / scale) / scale * self._grid()[1]
        return np.concatenate([special.ndtr(rise / scale), inside], axis=2)


def _gauss_legendre(lower: float, upper: float, deviation: float) -> tuple[FloatArray, FloatArray]:
    # the nodes are furthest apart in the middle, where the spacing is pi / 2 times the average
    average = (upper - lower) / deviation
    nodes, weights = special.roots_legendre(
        FEWEST_NODES + math.ceil(NODES_PER_DEVIATION * average * math.pi / 2.0)
    )
    half = (upper - lower) / 2.0
    return lower + half * (nodes + 1.0), half * weights


def _steps_ahead(inner: FloatArray) -> FloatArray:
    """Mean steps to leave `inner`, shape (b, n, n), from each state: shape (b, n, 1)."""
    size = inner.shape[-1]
    try:
        steps = np.linalg.solve(np.eye(size) - inner, np.ones((size, 1)))
    except np.linalg.LinAlgError:  # a run length beyond what doubles can tell from never
        steps = np.full((*inner.shape[:-1], 1), math.inf)
    lost = ~((steps >= 0.0) & (steps <= LARGEST_SOLVED)).all(axis=(1, 2))
    steps[lost] = math.inf
    return np.asarray(steps, dtype=np.float64)


def _density(z: FloatArray) -> FloatArray:
    result: FloatArray = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return result


# CUSUMs of counts -------------------------------------------------------------------------------


def simplest_fraction(target: float, tolerance: float) -> Fraction:
    """Fraction with the smallest denominator within `tolerance` of `target`, above 0.

    Raises:
        InvalidInputError: It would need a denominator above 100,000.

    Example:
        >>> simplest_fraction(0.1452, 0.005)
        Fraction(1, 7)
    """
    for denominator in range(1, 100_001):
        numerator = round(target * denominator)
        if numerator and abs(numerator / denominator - target) <= tolerance:
            return Fraction(numerator, denominator)
    raise InvalidInputError(
        f"a CUSUM of counts needs two rates that can be told apart, got a reference value of "
        f"{target:g} known to {tolerance:g}; move the shifted rate further away or count in "
        "larger groups"
    )


@dataclass(frozen=True, slots=True)
class LatticeCusum:
    """CUSUM of counts: S = max(0, S +- (count - reference)), alarm at S >= decision interval.

    Attributes:
        reference: Taken off each count, a fraction, so that the statistic moves on a lattice.
        rising: True to look for a higher rate, False (the sign turned) for a lower one.
        chances: Probabilities that a count is 0, 1, ..., at a rate, up to a largest one.
    """

    reference: Fraction
    rising: bool
    chances: Callable[[float, int], FloatArray]

    @property
    def step(self) -> float:
        """Distance of neighbouring values of the statistic, in events."""
        return 1.0 / self.reference.denominator

    def on_lattice(self, head_start: float) -> float:
        """Largest value of the statistic up to `head_start`."""
        return self._start(head_start) * self.step

    def mean(self, decision_interval: float, rate: float, head_start: float) -> float:
        """Average run length at a true rate."""
        chain = self._transitions(decision_interval, rate)
        return absorption_time(chain, self._start(head_start))

    def survival(
        self, decision_interval: float, rate: float, head_start: float, horizon: int
    ) -> float:
        """Probability of no alarm within `horizon` counts at a true rate."""
        chain = self._transitions(decision_interval, rate).T.tocsr()
        mass = np.zeros(chain.shape[0])
        mass[self._start(head_start)] = 1.0
        for _ in range(horizon):
            mass = chain @ mass
        return float(mass.sum())

    def _start(self, head_start: float) -> int:
        return math.floor(head_start * self.reference.denominator + ROUNDING)

    def _transitions(self, decision_interval: float, rate: float) -> sparse.csc_array:
        taken, unit = self.reference.numerator, self.reference.denominator
        size = math.ceil(decision_interval * unit - ROUNDING)
        largest = math.ceil((size + taken) / unit)
        chances = self.chances(rate, largest)
        moves = np.arange(chances.size) * unit - taken
        states = np.arange(size)
        to = np.maximum(states[:, None] + (moves if self.rising else -moves), 0)
        row, column = np.nonzero(to < size)
        weights = np.broadcast_to(chances, to.shape)[row, column]
        if not self.rising:  # counts above the largest end at 0
            row, column = np.append(row, states), np.append(to[row, column], np.zeros(size, int))
            weights = np.append(weights, np.full(size, max(0.0, 1.0 - float(chances.sum()))))
        else:
            column = to[row, column]
        return sparse.coo_array((weights, (row, column)), shape=(size, size)).tocsc()


def bernoulli_cusum_design(rate: float, shifted_rate: float) -> LatticeCusum:
    """CUSUM of single trials; the reference is the log-likelihood ratio's, rounded.

    log((1 - p0) / (1 - p1)) / log(p1 (1 - p0) / (p0 (1 - p1))), p0 and p1 being the rates.
    """
    odds = math.log(shifted_rate / rate) + math.log1p(-rate) - math.log1p(-shifted_rate)
    reference = (math.log1p(-rate) - math.log1p(-shifted_rate)) / odds
    return LatticeCusum(
        simplest_fraction(reference, REFERENCE_TOLERANCE * abs(shifted_rate - rate)),
        shifted_rate > rate,
        lambda true_rate, _: np.array([1.0 - true_rate, true_rate]),
    )


def poisson_cusum_design(rate: float, shifted_rate: float) -> LatticeCusum:
    """CUSUM of Poisson counts; the reference is (r1 - r0) / log(r1 / r0), rounded."""
    reference = (shifted_rate - rate) / math.log(shifted_rate / rate)
    return LatticeCusum(
        simplest_fraction(reference, REFERENCE_TOLERANCE * abs(shifted_rate - rate)),
        shifted_rate > rate,
        _poisson_chances,
    )


def _poisson_chances(rate: float, largest: int) -> FloatArray:
    counts = np.arange(largest + 1)
    logs = special.xlogy(counts, rate) - rate - special.gammaln(counts + 1.0)
    chances: FloatArray = np.exp(logs)
    return chances
