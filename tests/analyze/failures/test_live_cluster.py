"""What live trouble is about is looked for in the version's own traffic since it began."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from ratchet.analyze.failures.corpus import group, prepare
from ratchet.analyze.failures.live_cluster import _worst, trouble_about
from ratchet.records import Interaction, Message, Thumbs
from ratchet.simulation.messages import support_messages
from ratchet.store import EventStore

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    made = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


def fill(store, failing, number=400, version="m/2", rate=0.05, start=AT):
    """Messages with thumbs: those of `failing` queues are thumbed down at 90 %."""
    rng = np.random.default_rng([4, number])
    interactions, thumbs = [], []
    for place, message in enumerate(support_messages(rng, number)):
        key, moment = f"{version}-{place}", start + timedelta(seconds=place)
        interactions.append(
            Interaction(
                id=key, session_id=key, user_id=f"u{place}", created_at=moment,
                model_version=version, messages=(Message(role="user", content=message.text),),
                response="x",
            )
        )  # fmt: skip
        down = rng.random() < (0.9 if message.label in failing else rate)
        thumbs.append(
            Thumbs(id=f"t{key}", interaction_id=key, created_at=moment,
                   value="down" if down else "up")
        )  # fmt: skip
    store.add_interactions(interactions)
    store.add_feedback(thumbs)


def about(store, version="m/2", since=AT):
    rng = np.random.default_rng(1)
    until = AT + timedelta(hours=1)
    return trouble_about(store, version, since, until, encoder=None, rng=rng)


def test_what_fails_together_is_named(store):
    fill(store, {"delivery"})
    found = about(store)
    assert found is not None
    assert any(word in found for word in ("parcel", "package", "order", "delivery", "courier"))


def test_what_fails_everywhere_alike_is_about_nothing(store):
    fill(store, set(), rate=0.5)
    assert about(store) is None


def test_other_versions_and_earlier_traffic_do_not_count(store):
    fill(store, {"delivery"})
    assert about(store, version="m/3") is None
    assert about(store, since=AT + timedelta(minutes=30)) is None


def test_few_answers_are_told_apart_by_the_messages_that_came_before(store):
    """200 answers of the new version; the 900 of the one before show what is alike."""
    fill(store, {"delivery"}, number=200, version="m/2")
    alone = about(store)
    fill(store, set(), number=900, version="m/1", start=AT - timedelta(minutes=20))
    assert about(store) is not None
    assert alone is None


@pytest.mark.slow
def test_where_failures_do_not_depend_on_the_message_a_name_is_rare():
    """In at most 2 % of 500 draws of failures among 150 of 1,000 messages (binomial, 0.1 %)."""
    rng = np.random.default_rng(7)
    texts = [message.text for message in support_messages(rng, 1_000)]
    users = [f"u{place % 90}" if place < 150 else "" for place in range(1_000)]
    own = np.arange(1_000) < 150
    grouped = group(prepare(texts, None, rng), rng)
    named = 0
    for _ in range(500):
        failed = own & (rng.random(1_000) < 0.4)
        named += _worst(texts, failed, own, users, grouped, rng) is not None
    assert stats.binom.sf(named - 1, 500, 0.02) >= 0.001
