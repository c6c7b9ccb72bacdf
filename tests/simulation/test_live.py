"""Simulated users in front of a real gateway with a backend that echoes what they ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest

from ratchet.gateway.access import new_key
from ratchet.records import LabelledMessage
from ratchet.simulation.live import HURRIED, Ask, LiveUsers
from tests.gateway.conftest import gateway, mock, serve, settings

__all__ = ["gateway", "mock", "serve", "settings"]
LABELS = ("delivery", "refunds")
RATES = HURRIED.model_copy(
    update={
        "thumbs": 1.0, "thumb_error": 0.0, "explicit_delay": 0.05, "implicit_delay": 0.05,
        "turn_seconds_right": 0.05, "turn_seconds_wrong": 0.05, "turn_seconds_abandoned": 0.05,
    }
)  # fmt: skip


@pytest.fixture
def users(gateway):
    keys = {}
    for application in ("shop", "helpdesk"):
        record, keys[application] = new_key(application, ["ingest"], now=datetime.now(UTC))
        gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    return LiveUsers(gateway.url, keys=keys, labels=LABELS, seed=1, rates=RATES, at_once=3)


def asks():
    """Twenty messages; the echo is right of those that are the label itself: ten of them."""
    for number in range(20):
        text = "delivery" if number % 2 else f"where is parcel {number}"
        message = LabelledMessage(text=text, label="delivery")
        yield Ask("helpdesk" if number % 4 == 3 else "shop", f"u{number % 5}", message)


def test_what_they_do_is_in_the_store_with_application_user_and_reactions(users, gateway):
    asyncio.run(users.run(asks(), until=lambda: False))
    assert users.failed == 0
    assert sum(users.asked.values()) == 20
    assert sum(count for (_, right), count in users.asked.items() if right) == 10
    kept = gateway.interactions()
    assert Counter(item.segment for item in kept) == {"shop": 15, "helpdesk": 5}
    assert {item.user_id for item in kept} == {f"u{number}" for number in range(5)}
    right = {item.id for item in kept if item.response == "delivery"}
    thumbs = {
        row["interaction_id"]: row["number"] for row in gateway.feedback()
        if row["kind"] == "thumbs"
    }  # fmt: skip
    assert {key for key, number in thumbs.items() if number == 1.0} == right
    assert len(thumbs) == 20


def test_they_stop_when_told_to(users, gateway):
    asyncio.run(users.run(asks(), until=lambda: sum(users.asked.values()) >= 5))
    assert 5 <= len(gateway.interactions()) <= 5 + users.at_once


def test_an_answer_that_fails_is_counted_and_they_go_on(users, gateway, mock):
    mock.behaviour = lambda body: 400 if "parcel" in str(body["messages"][-1]) else None
    asyncio.run(users.run(iter(list(asks())[:4]), until=lambda: False))
    assert users.failed == 2
    assert sum(users.asked.values()) == 2
