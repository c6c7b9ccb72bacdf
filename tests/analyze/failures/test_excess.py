"""The scan of a hierarchy: planted excess, brute force over deals, nothing to find."""

import numpy as np
import pytest

from ratchet.analyze.failures.excess import DEALS, scan
from ratchet.analyze.failures.hierarchy import Hierarchy, ward


def line(cells, groups=1):
    """Cells at the places 0, 1, 2, ... of a line: joins are of neighbours."""
    places = np.arange(cells, dtype=np.float64)[:, None]
    sizes = np.ones(cells, dtype=np.int64)
    joins, heights = ward(places, sizes)
    return Hierarchy(np.arange(cells), places, sizes, joins, heights, groups)


def scanned(tree, failures, rows, seed=0, *, nowhere=(0.0, 0.0)):
    return scan(
        tree,
        np.append(failures, nowhere[0]),
        np.append(rows, nowhere[1]),
        rng=np.random.default_rng(seed),
    )


def cells_of(found):
    return sorted(region.cells.tolist() for region in found.regions)


def test_the_cells_that_fail_are_found_as_one_region_and_counted():
    tree = line(16)
    rows, failures = np.full(16, 50.0), np.full(16, 3.0)
    failures[4:8] = 30.0
    (region,) = scanned(tree, failures, rows).regions
    assert region.cells.tolist() == [4, 5, 6, 7]
    assert (region.failures, region.rows) == (120, 200)
    assert region.p_value == 1 / (DEALS + 1)  # none of the deals came near
    assert 0.5 < region.interval.lower < 0.6 < region.interval.upper < 0.7


def test_two_real_groups_that_fail_stay_two_and_parts_of_one_group_are_one():
    rows, failures = np.full(16, 50.0), np.full(16, 3.0)
    failures[:8] = 30.0
    assert cells_of(scanned(line(16, groups=1), failures, rows)) == [list(range(8))]
    assert cells_of(scanned(line(16, groups=4), failures, rows)) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]


def test_a_broad_region_is_found_where_no_part_stands_out_by_itself():
    rows, failures = np.full(64, 8.0), np.full(64, 1.0)
    failures[:32] = 2.0
    (region,) = scanned(line(64, groups=32), failures, rows).regions
    assert region.rows >= 128


def test_a_large_region_of_failures_hides_no_smaller_one():
    rows, failures = np.full(32, 100.0), np.full(32, 2.0)
    failures[:16] = 60.0
    failures[24] = 50.0
    rest = (failures.sum() - 50.0) / (rows.sum() - 100.0)
    assert rest < 0.50  # and yet not by much
    assert [24] in cells_of(scanned(line(32), failures, rows))


def test_what_fails_less_than_the_average_is_never_reported():
    rows, failures = np.full(32, 100.0), np.full(32, 2.0)
    failures[:16] = 90.0
    failures[24] = 30.0  # over the other cells, under the average
    assert all(24 not in cells for cells in cells_of(scanned(line(32), failures, rows)))


def test_rows_in_no_cell_count_as_traffic():
    rows, failures = np.full(8, 20.0), np.full(8, 8.0)
    assert not scanned(line(8), failures, rows).regions
    found = scanned(line(8), failures, rows, nowhere=(0.0, 2_000.0))
    assert sum(region.rows for region in found.regions) == 160


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_all_or_none_failed_nothing_stands_out(share):
    found = scanned(line(8), np.full(8, 20.0 * share), np.full(8, 20.0))
    assert found.regions == ()
    assert found.least_p_value == 1.0


def test_the_p_value_is_the_share_of_deals_with_as_large_an_excess():
    # Two cells of 10 rows, 8 of all 20 failed, 7 of them here. The deals are hypergeometric and
    # by symmetry either cell may stand out: P = 2 P(X >= 7), X of 8 successes among 20, 10 drawn.
    from scipy import stats

    tree, rows = line(2), np.array([10.0, 10.0])
    least = [scanned(tree, np.array([7.0, 1.0]), rows, seed).least_p_value for seed in range(40)]
    exact = 2 * stats.hypergeom.sf(6, 20, 8, 10)
    error = np.sqrt(exact * (1 - exact) / (40 * DEALS))
    assert np.mean(least) == pytest.approx(exact + (1 - exact) / (DEALS + 1), abs=4 * error)


def test_the_same_seed_gives_the_same_regions():
    rng = np.random.default_rng(1)
    rows = rng.integers(1, 30, 40).astype(float)
    failures = rng.binomial(rows.astype(int), np.where(np.arange(40) < 8, 0.7, 0.1)).astype(float)
    one, other = (scanned(line(40), failures, rows, 5) for _ in range(2))
    assert cells_of(one) == cells_of(other)
    assert [r.p_value for r in one.regions] == [r.p_value for r in other.regions]
