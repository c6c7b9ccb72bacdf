import csv
from pathlib import Path

import numpy as np
import pytest

from ratchet.analyze.failures import as_records, find_failure_clusters
from ratchet.errors import InvalidInputError
from ratchet.stats.intervals import wilson

BANKING = Path(__file__).parents[3] / "shared" / "data" / "banking77" / "train.csv"
OBJECTS = ("parcel", "invoice", "password")
VERBS = {
    "parcel": ("track", "deliver", "ship"),
    "invoice": ("pay", "download", "print"),
    "password": ("reset", "change", "forget"),
}
WHEN = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def planted(rng, *, size=600, broken="parcel"):
    """Messages on three topics, of which one fails nearly always and the others rarely."""
    topics = rng.choice(OBJECTS, size=size)
    texts = [f"{rng.choice(VERBS[t])} my {t} on {rng.choice(WHEN)}" for t in topics]
    failed = rng.random(size) < np.where(topics == broken, 0.9, 0.08)
    return texts, failed, topics


def found(texts, failed, seed=0, **options):
    return find_failure_clusters(texts, failed, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("broken", OBJECTS)
def test_the_topic_that_was_made_to_fail_is_found_first_and_named(broken):
    texts, failed, topics = planted(np.random.default_rng(7), broken=broken)
    result = found(texts, failed)
    first = result.clusters[0]
    assert broken in first.name
    assert first.failure_rate > 0.75
    assert first.lift > 1.5
    assert (topics[first.members] == broken).mean() > 0.95
    assert all(broken in example for example in first.examples)


def test_every_number_of_a_cluster_can_be_recomputed():
    texts, failed, _ = planted(np.random.default_rng(7))
    result = found(texts, failed)
    assert len(result.clusters) >= 2
    assert result.reason is None
    for index, cluster in enumerate(result.clusters):
        assert cluster.members.tolist() == np.flatnonzero(result.labels == index).tolist()
        assert failed[cluster.members].all()
        near = round(cluster.members.size / cluster.failure_rate)
        assert cluster.interval == wilson(cluster.members.size, near)
        assert cluster.lift == pytest.approx(cluster.failure_rate / failed.mean())
        distinct = {texts[i] for i in cluster.members}
        assert set(cluster.examples) <= distinct
        assert len(set(cluster.examples)) == len(cluster.examples) == min(3, len(distinct))
    assert (result.labels[~failed] == -1).all()
    assert len({cluster.name for cluster in result.clusters}) == len(result.clusters)


def test_the_same_seed_gives_the_same_clusters():
    texts, failed, _ = planted(np.random.default_rng(7))
    one, other = found(texts, failed), found(texts, failed)
    assert one.labels.tolist() == other.labels.tolist()
    assert as_records(one, texts, cycle_id="c") == as_records(other, texts, cycle_id="c")


def test_given_embeddings_are_used_in_place_of_words():
    rng = np.random.default_rng(3)
    side = rng.integers(0, 2, size=200)
    embeddings = np.eye(2)[side] + rng.normal(0, 0.05, size=(200, 2))
    failed = rng.random(200) < np.where(side == 1, 0.9, 0.2)
    result = found(["same words"] * 200, failed, embeddings=embeddings)
    assert (side[result.clusters[0].members] == 1).all()
    assert result.clusters[0].failure_rate > 0.75


def test_a_failure_rate_that_does_not_depend_on_the_topic_gives_lifts_near_one():
    rng = np.random.default_rng(11)
    texts, _, _ = planted(rng, size=2_000)
    failed = rng.random(2_000) < 0.3
    result = found(texts, failed)
    near = sum(round(c.members.size / c.failure_rate) for c in result.clusters)
    pooled = sum(c.members.size for c in result.clusters) / near
    # binomial error of the pooled rate, four standard errors
    assert pooled == pytest.approx(failed.mean(), abs=4 * np.sqrt(0.3 * 0.7 / near))


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["parcel is late"] * 9, "9 rows failed, 10 are needed"),
        ([""] * 50, "0 failed rows have words"),
        (["   \n"] * 50, "0 failed rows have words"),
        (["😀", "🎉🎉", "👍"] * 20, "0 failed rows have words"),
        (["the and of"] * 50, "0 failed rows have words"),
        (["12 34 56", "!!!"] * 25, "0 failed rows have words"),
        (["my parcel is late"] * 50, "say the same"),
    ],
)
def test_garbage_gives_no_clusters_and_says_why(texts, reason):
    result = found(texts, np.ones(len(texts), dtype=bool))
    assert result.clusters == ()
    assert reason in result.reason
    assert (result.labels == -1).all()
    assert as_records(result, texts, cycle_id="c") == ()


def test_no_rows_at_all_give_no_clusters():
    assert found([], np.zeros(0, dtype=bool)).reason == "0 rows failed, 10 are needed"


def test_garbage_among_words_is_left_without_a_cluster():
    texts, failed, _ = planted(np.random.default_rng(7))
    texts = ["", "😀", "…"] * 20 + texts
    failed = np.concatenate([np.ones(60, dtype=bool), failed])
    result = found(texts, failed)
    assert (result.labels[:60] == -1).all()
    assert result.clusters


@pytest.mark.parametrize("rows", [10, 11, 13])
def test_barely_enough_failures_do_not_crash(rows):
    texts = [f"word{i} other{i % 4}" for i in range(rows)]
    result = found(texts, np.ones(rows, dtype=bool))
    assert result.clusters or result.reason


def test_very_long_and_non_latin_texts_do_not_crash():
    texts = ["лимит карты " * 2_000, "カードの限度額", "بطاقة مفقودة"] * 10
    result = found(texts, np.ones(30, dtype=bool))
    assert result.clusters or result.reason


def test_records_have_ids_that_depend_on_cycle_and_content_but_not_on_row_order():
    texts, failed, _ = planted(np.random.default_rng(7))
    result = found(texts, failed)
    records = as_records(result, texts, cycle_id="one")
    again = as_records(result, texts, cycle_id="two")
    assert [r.size for r in records] == [c.members.size for c in result.clusters]
    assert {r.id for r in records}.isdisjoint(r.id for r in again)
    assert len({r.id for r in records}) == len(records)
    assert records[0].interval == (
        result.clusters[0].interval.lower,
        result.clusters[0].interval.upper,
    )


def test_lengths_that_differ_and_embeddings_that_are_broken_are_refused():
    with pytest.raises(InvalidInputError, match="got 2 and shape"):
        found(["a", "b"], np.ones(3, dtype=bool))
    with pytest.raises(InvalidInputError, match="shape"):
        found(["a"] * 20, np.ones(20, dtype=bool), embeddings=np.ones((3, 2)))
    with pytest.raises(InvalidInputError, match="finite"):
        found(["a"] * 20, np.ones(20, dtype=bool), embeddings=np.full((20, 2), np.nan))


@pytest.mark.skipif(not BANKING.exists(), reason=f"no real messages at {BANKING}")
def test_intents_that_were_made_to_fail_surface_in_real_bank_messages():
    with BANKING.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(1)
    chosen = [rows[i] for i in rng.permutation(len(rows))[:3_000]]
    broken = {"card_arrival", "exchange_rate", "lost_or_stolen_phone"}
    bad = np.array([row["category"] in broken for row in chosen])
    failed = rng.random(len(chosen)) < np.where(bad, 0.8, 0.05)
    result = found([row["text"] for row in chosen], failed)
    first_four = np.concatenate([cluster.members for cluster in result.clusters[:4]])
    purity = bad[first_four].mean()
    assert purity > 0.7  # failures of these intents are 41 % of all failures
    assert purity > bad[failed].mean() + 0.2
    assert all(cluster.lift > 1.5 for cluster in result.clusters[:4])
