"""How often the scan cries wolf and its intervals cover, by simulation. `-s` prints the numbers."""

import numpy as np
import pytest
from scipy import stats

from ratchet.analyze.failures import find_failure_clusters
from ratchet.analyze.failures.excess import ALPHA, ALPHA_ANY, scan
from ratchet.analyze.failures.hierarchy import Hierarchy, ward

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


def a_world_of_users(rng, rows=3_000, users=300, topics=40):
    """Users who write mostly about one thing and fail each at a rate of their own."""
    centres = rng.standard_normal((topics, 50))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    activity = rng.lognormal(0.0, 1.0, users)
    user = rng.choice(users, size=rows, p=activity / activity.sum())
    favourite = rng.integers(topics, size=users)
    strays = rng.random(rows) < 0.2
    topic = np.where(strays, rng.integers(topics, size=rows), favourite[user])
    vectors = centres[topic] + 0.9 / np.sqrt(50) * rng.standard_normal((rows, 50))
    failed = rng.random(rows) < rng.beta(1.0, 9.0, users)[user]
    return [f"u{number}" for number in user], vectors.astype(np.float32), failed


def test_where_users_differ_and_topics_do_not_one_run_in_fifty_reports():
    loud = {"each row": 0, "one a user": 0}
    runs = RUNS // 2
    for seed in range(runs):
        users, vectors, failed = a_world_of_users(np.random.default_rng(seed))
        texts = [f"text {row}" for row in range(len(users))]
        for name, given in (("each row", None), ("one a user", users)):
            found = find_failure_clusters(
                texts, failed, embeddings=vectors, users=given, rng=np.random.default_rng(seed)
            )
            loud[name] += bool(found.clusters)
    print({name: f"{count / runs:.1%} of {runs} runs report" for name, count in loud.items()})
    assert loud["one a user"] <= stats.binom(runs, ALPHA_ANY).ppf(0.999)
    assert loud["each row"] > 5 * loud["one a user"]
