"""How often the scan cries wolf and its intervals cover, by simulation. `-s` prints the numbers."""

import numpy as np
import pytest
from scipy import stats

from ratchet.analyze.excess import ALPHA, ALPHA_ANY, scan
from ratchet.analyze.hierarchy import Hierarchy, ward

pytestmark = pytest.mark.slow

RUNS = 400


def tree(rng, cells, groups):
    centres = rng.standard_normal((cells, 8))
    sizes = np.ones(cells, dtype=np.int64)
    joins, heights = ward(centres, sizes)
    return Hierarchy(np.arange(cells), centres, sizes, joins, heights, groups)


def dealt(rng, rows, rates):
    return np.append(rng.binomial(rows, rates), 0.0), np.append(rows, 0.0)


@pytest.mark.parametrize(("cells", "rate"), [(60, 0.1), (60, 0.5), (250, 0.1)])
def test_where_nothing_differs_at_most_one_run_in_fifty_reports(cells, rate):
    rng = np.random.default_rng(cells)
    loud = 0
    for _ in range(RUNS):
        rows = rng.integers(1, 30, cells)
        failures, counts = dealt(rng, rows, rate)
        loud += bool(scan(tree(rng, cells, 10), failures, counts, rng=rng).regions)
    print(f"{cells} cells, rate {rate}: {loud / RUNS:.1%} of {RUNS} runs report")
    # the tolerance is three standard errors of this simulation
    assert loud / RUNS <= ALPHA_ANY + 3 * np.sqrt(ALPHA_ANY * (1 - ALPHA_ANY) / RUNS)


def test_beside_what_fails_nothing_false_is_reported_more_often():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(RUNS // 4):
        hierarchy = tree(rng, 100, 10)
        rates = np.full(100, 0.1)
        bad = hierarchy.group_nodes(10) == hierarchy.group_nodes(10)[0]
        rates[bad] = 0.5
        failures, counts = dealt(rng, rng.integers(5, 30, 100), rates)
        found = scan(hierarchy, failures, counts, rng=rng).regions
        false += any(not bad[region.cells].any() for region in found)
    print(f"beside a failing group: {false / (RUNS // 4):.1%} of runs report a false region")
    assert false <= stats.binom(RUNS // 4, ALPHA + ALPHA_ANY).ppf(0.999)


@pytest.mark.parametrize("rate", [0.25, 0.35, 0.6])
def test_intervals_cover_the_rate_of_what_is_reported(rate):
    rng = np.random.default_rng(int(100 * rate))
    covered = []
    for _ in range(RUNS // 2):
        hierarchy = tree(rng, 60, 10)
        rates = np.full(60, 0.1)
        bad = hierarchy.group_nodes(10) == hierarchy.group_nodes(10)[0]
        rates[bad] = rate
        rows = rng.integers(5, 30, 60)
        failures, counts = dealt(rng, rows, rates)
        for region in scan(hierarchy, failures, counts, rng=rng).regions:
            true = (rates * rows)[region.cells].sum() / rows[region.cells].sum()
            covered.append(true in region.interval)
    print(f"rate {rate}: {np.mean(covered):.1%} of {len(covered)} intervals cover")
    assert stats.binomtest(sum(covered), len(covered), 0.95, alternative="less").pvalue > 0.001
