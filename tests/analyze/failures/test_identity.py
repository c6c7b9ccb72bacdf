"""Clusters are known again from run to run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.analyze.failures import find_failure_clusters
from ratchet.analyze.failures import identity as cluster_identity
from ratchet.analyze.failures.identity import SKETCH, KnownClusters, identify

DAY = timedelta(days=1)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
TOPICS = 6


class Traffic:
    """Messages on six topics whose failure rates can be set."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.count = 0

    def day(self, size, *rates):
        topic = self.rng.integers(0, TOPICS, size)
        vectors = np.eye(20)[topic] + 0.3 * self.rng.normal(size=(size, 20)) / np.sqrt(20)
        texts = [f"topic{t} message {self.count + i}" for i, t in enumerate(topic)]
        self.count += size
        chances = np.array([*rates, *[0.05] * (TOPICS - len(rates))])
        return texts, self.rng.random(size) < chances[topic], vectors, topic


def joined(*days):
    texts = [text for day in days for text in day[0]]
    return texts, *(np.concatenate([day[i] for day in days]) for i in (1, 2, 3))


def analyzed(day, previous, now, seed=0):
    texts, failed, vectors, topic = day
    result = find_failure_clusters(
        texts, failed, embeddings=vectors, rng=np.random.default_rng(seed)
    )
    done = identify(result, texts, failed, previous, now=now)
    about = [int(np.bincount(topic[c.rows]).argmax()) for c in result.clusters]
    return done, about


def by_topic(done, about):
    return {about[c.index]: c for c in done.changes if c.index is not None}


def test_all_clusters_of_the_first_run_are_new():
    done, about = analyzed(Traffic().day(1_200, 0.7, 0.7), None, NOW)
    assert sorted(about) == [0, 1]
    assert [change.trend for change in done.changes] == ["new", "new"]
    assert len({change.id for change in done.changes}) == 2
    assert KnownClusters.model_validate_json(done.clusters.model_dump_json()) == done.clusters


@pytest.mark.parametrize("same_texts", [True, False])
def test_a_cluster_keeps_its_identity_with_more_data_and_with_other_data(same_texts):
    traffic = Traffic()
    monday, more = traffic.day(1_200, 0.7, 0.7), traffic.day(1_200, 0.7, 0.7)
    one = analyzed(monday, None, NOW)
    later = joined(monday, more) if same_texts else more
    two = analyzed(later, one[0].clusters, NOW + DAY, seed=1)
    before, after = by_topic(*one), by_topic(*two)
    assert {t: c.id for t, c in before.items()} == {t: c.id for t, c in after.items()}
    assert {c.trend for c in after.values()} == {"steady"}
    kept = {c.id: c for c in two[0].clusters.clusters}
    assert {(c.first_seen, c.last_seen) for c in kept.values()} == {(NOW, NOW + DAY)}


def test_clusters_grow_shrink_come_and_go():
    traffic = Traffic(1)
    one = analyzed(traffic.day(2_400, 0.7, 0.3, 0.7), None, NOW)
    two = analyzed(traffic.day(2_400, 0.3, 0.7, 0.05, 0.7), one[0].clusters, NOW + DAY)
    before, after = by_topic(*one), by_topic(*two)
    assert {t: c.trend for t, c in after.items()} == {0: "shrinking", 1: "growing", 3: "new"}
    for topic in (0, 1):
        assert before[topic].id == after[topic].id
        change = after[topic]
        assert change.interval.lower <= change.difference <= change.interval.upper
    gone = {c.id: c for c in two[0].changes if c.trend == "gone"}
    assert gone[before[2].id].index is None
    assert gone[before[2].id].interval.upper < 0.0
    # it is gone only once, comes back on the fourth day and is known again
    three = analyzed(traffic.day(2_400, 0.3, 0.7, 0.05, 0.7), two[0].clusters, NOW + 2 * DAY)
    assert all(c.trend != "gone" for c in three[0].changes)
    four = analyzed(traffic.day(2_400, 0.3, 0.7, 0.7, 0.7), three[0].clusters, NOW + 3 * DAY)
    assert by_topic(*four)[2].id == before[2].id


@pytest.mark.slow
def test_what_was_said_to_be_gone_or_merged_is_not_said_again():
    traffic = Traffic(3)
    texts, failed, vectors, topic = traffic.day(1_500, 0.7, 0.7)
    apart = analyzed((texts, failed, vectors, topic), None, NOW)
    together = vectors.copy()
    together[topic == 1] = together[topic == 1][:, [1, 0, *range(2, 20)]]
    merged = (texts, failed, together, topic)
    known, trends = apart[0].clusters, []
    for run in range(1, 4):
        done, _ = analyzed(merged, known, NOW + run * DAY)
        known = done.clusters
        trends.append([change.trend for change in done.changes])
    assert "merged" in trends[0]
    assert trends[1] == trends[2] == ["steady"] * len(trends[1])
    back = analyzed((texts, failed, vectors, topic), known, NOW + 4 * DAY)
    assert by_topic(*back)[1].id == by_topic(*apart)[1].id


@pytest.mark.slow
def test_of_those_that_are_gone_the_latest_are_kept(monkeypatch):
    monkeypatch.setattr(cluster_identity, "MOST_ASLEEP", 2)
    known, seen = None, []
    for run in range(5):
        rates = [0.05] * TOPICS
        rates[run] = 0.7
        done, _ = analyzed(Traffic(run).day(1_200, *rates), known, NOW + run * DAY)
        known = done.clusters
        seen.append({change.id for change in done.changes if change.trend == "new"})
    kept = {item.id for item in known.clusters}
    assert kept == set.union(*seen[1:])  # found now, gone now, and the latest two before


def test_what_is_not_found_any_more_but_still_fails_is_not_gone():
    traffic = Traffic(2)
    day = traffic.day(600, 0.6)
    one = analyzed(day, None, NOW)
    texts, failed, _, _ = day
    nothing = find_failure_clusters([], np.zeros(0, dtype=bool), rng=np.random.default_rng(0))
    still = identify(nothing, texts, failed, one[0].clusters, now=NOW + DAY)
    assert [(c.id, c.trend, c.index) for c in still.changes] == [
        (one[0].changes[0].id, "steady", None)
    ]
    gone = identify(nothing, texts, np.zeros(600, dtype=bool), one[0].clusters, now=NOW + DAY)
    assert [c.trend for c in gone.changes] == ["gone"]


@pytest.mark.slow
def test_a_cluster_that_is_now_part_of_another_is_merged_and_a_part_of_one_is_split():
    traffic = Traffic(3)
    texts, failed, vectors, topic = traffic.day(1_500, 0.7, 0.7)
    apart = analyzed((texts, failed, vectors, topic), None, NOW)
    # the encoder sees the two topics as one
    together = vectors.copy()
    together[topic == 1] = together[topic == 1][:, [1, 0, *range(2, 20)]]
    whole = analyzed((texts, failed, together, topic), apart[0].clusters, NOW + DAY)
    trends = sorted(change.trend for change in whole[0].changes)
    assert "merged" in trends
    merged = next(change for change in whole[0].changes if change.trend == "merged")
    assert merged.other in {c.id for c in whole[0].changes if c.index is not None}
    fresh = analyzed((texts, failed, together, topic), None, NOW)
    parts = analyzed((texts, failed, vectors, topic), fresh[0].clusters, NOW + DAY)
    assert sorted(change.trend for change in parts[0].changes)[-1] in ("split", "steady")
    assert len({change.id for change in parts[0].changes}) == len(parts[0].changes)


def test_a_sketch_is_bounded_and_names_no_text():
    done, _ = analyzed(Traffic(4).day(4_000, 0.7), None, NOW)
    (kept,) = done.clusters.clusters
    assert len(kept.sketch) == SKETCH < kept.distinct
    assert "message" not in done.clusters.model_dump_json().replace(kept.name, "")
