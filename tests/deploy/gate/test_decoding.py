"""How users are answered is read from what was recorded of their requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.deploy.gate.decoding import answer_length, sampling_of_users
from ratchet.models import Sampling
from ratchet.records import Interaction, Message
from ratchet.store import EventStore, Window

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ALL = Window(NOW - timedelta(days=30), NOW + timedelta(days=1))


@pytest.fixture
def store():
    opened = EventStore.open("sqlite://")
    yield opened
    opened.close()


def add(store, *rows, error=None):
    """Add answers: each is its metadata, or the number of characters of one without any."""
    before = store.counts()["interactions"]
    store.add_interactions(
        [
            Interaction(
                id=f"i{before + number}", session_id="s", user_id="u", created_at=NOW,
                model_version="m",
                messages=(Message(role="user", content="hi"),),
                response="x" * (row if isinstance(row, int) else 3),
                metadata={} if isinstance(row, int) else row, error=error,
            )
            for number, row in enumerate(rows)
        ]
    )  # fmt: skip


def test_most_requests_decide_how_tokens_are_chosen(store):
    add(store, *[{"temperature": "0.7", "top_p": "0.9"}] * 3, *[{"temperature": "0"}] * 2, {})
    assert sampling_of_users(store, ALL) == Sampling(0.7, 0.9)
    add(store, *[{}] * 3)
    assert sampling_of_users(store, ALL) == Sampling(None, None)
    assert sampling_of_users(store, Window(NOW + timedelta(days=2), NOW)) == Sampling()


def test_what_a_client_wrote_that_is_no_number_counts_as_not_named(store):
    add(store, *[{"temperature": word} for word in ("nan", "warm", "-1", "")], {"temperature": "1"})
    assert sampling_of_users(store, ALL) == Sampling(None, None)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([10] * 19, 1_024),  # fewer than 20 answers say nothing
        ([10] * 20, 16),  # 12.5, up to a power of two
        ([10] * 99 + [900], 16),  # one in a hundred may be longer
        ([10] * 98 + [900] * 2, 2_048),  # 1,125
        ([60_000] * 20, 8_192),
    ],
)
def test_the_length_holds_what_nearly_all_users_get_with_room(store, lengths, expected):
    add(store, *[{"completion_tokens": str(tokens)} for tokens in lengths])
    assert answer_length(store, ALL) == expected


def test_where_no_tokens_were_counted_two_characters_are_one_and_failures_do_not_count(store):
    add(store, *[400] * 20)  # 200 tokens and a quarter more
    assert answer_length(store, ALL) == 256
    add(store, *[{"completion_tokens": "5000"}] * 50, error="it broke off")
    assert answer_length(store, ALL) == 256
