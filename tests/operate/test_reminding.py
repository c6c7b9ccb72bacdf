"""Reminders: what waits longer than stated, and nothing that does not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ratchet.notify.messages import Links
from ratchet.notify.outgoing import Routes
from ratchet.notify.policy import AlertPolicy, Reminders
from ratchet.operate.reminding import remind, reminder_message
from ratchet.records import Approval, ReviewDecision, ReviewItem
from ratchet.store import EventStore
from ratchet.store.outbox import SENT, end, take
from tests.notify.conftest import NOW
from tests.web.filled import decision

ROUTES = Routes.of(
    AlertPolicy.model_validate(
        {
            "channels": {"desk": {"type": "slack", "url": "MY_SECRET"}},
            "routes": [{"name": "all", "to": ["desk"]}],
        }
    ),
    [],
)
POLICY = Reminders(approval_hours=4, labels_hours=24, again_hours=12)
LINKS = Links("https://ratchet.example")


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")


def after(store: EventStore, **span: float) -> int:
    return remind(store, ROUTES, POLICY, now=NOW + timedelta(**span))


def told(store: EventStore, **span: float):
    """What the message that is due says; None where it is overtaken."""
    now = NOW + timedelta(**span)
    taken = take(store, now=now, lease=timedelta(minutes=1))
    assert taken is not None
    end(store, taken, SENT, now=now)
    return reminder_message(store, taken, links=LINKS, now=now)


def test_a_promotion_is_told_of_after_the_stated_time_and_again_while_it_waits(
    store: EventStore,
) -> None:
    store.append(decision(NOW))
    assert [after(store, hours=h) for h in (0, 3.9)] == [0, 0]
    assert [after(store, hours=h) for h in (4, 5, 15.9)] == [1, 0, 0]
    message = told(store, hours=16)
    assert message.title == "A promotion waits for you: support-router/2"
    facts = dict(message.facts)
    assert facts["Waits"] == "for 16 hours, since 2026-11-24 09:30 UTC"
    assert "+11.0%" in facts["Better by"]
    assert facts["Rejected"] == "without an answer at 2026-11-26 09:30 UTC, in 1 day"
    assert message.page == "https://ratchet.example/decisions/d-2"
    assert message.runbook == "https://ratchet.example/runbooks/approval"
    assert after(store, hours=16) == 1
    store.append(Approval(id="d-2", created_at=NOW, challenger="support-router/2", approved=True,
                          by="ada", reason="read it", via="command"))  # fmt: skip
    assert told(store, hours=17) is None  # it was approved before the message went out
    assert after(store, hours=40) == 0


def test_a_promotion_whose_time_is_over_is_not_told_of(store: EventStore) -> None:
    store.append(decision(NOW))
    assert after(store, hours=49) == 0


def test_labels_are_told_of_once_for_all_that_waits(store: EventStore) -> None:
    for number in range(3):
        store.append(
            ReviewItem(id=f"r-{number}", created_at=NOW + timedelta(hours=number),
                       interaction_id=f"i-{number}", dimension="safety", priority="safety",
                       raised_by="rules", why="it may be unsafe")
        )  # fmt: skip
    assert [after(store, hours=h) for h in (23.9, 24, 25)] == [0, 1, 0]
    message = told(store, hours=25)
    assert message.title == "Items wait for a label, the oldest for 1 day"
    assert message.facts[0] == ("safety, rules", "3 items, the oldest for 1 day")
    assert message.page == "https://ratchet.example/review"
    # whoever labels is not reminded for each label: the next one comes half a day later
    store.append(ReviewDecision(id="rd-0", created_at=NOW, item_id="r-0", label="fine",
                                reviewer="ada"))  # fmt: skip
    assert [after(store, hours=h) for h in (30, 36)] == [0, 1]
    for number in (1, 2):
        store.append(ReviewDecision(id=f"rd-{number}", created_at=NOW, item_id=f"r-{number}",
                                    label="fine", reviewer="ada"))  # fmt: skip
    assert told(store, hours=37) is None
    assert after(store, hours=99) == 0
