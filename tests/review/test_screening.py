"""A window is screened in batches: what is found does not depend on their size, or on a stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ratchet.records import (
    FEEDBACK,
    Interaction,
    JudgeValidation,
    Message,
    ReviewDecision,
    ReviewItem,
    SafetyPass,
    derive_id,
)
from ratchet.review.queue import (
    decide,
    first_page,
    open_items,
    queue_flags,
    window_to_screen,
)
from ratchet.review.screening import Screened, screen, validate_sources
from ratchet.safety.rules import DEFAULT_RULES, Flag, SafetyConfig
from ratchet.safety.source_validation import SAFETY
from ratchet.store import EventStore, Window
from ratchet.store.review_rows import SAMPLE
from ratchet.store.tables import REVIEW_ITEMS

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
NOW = START + timedelta(hours=1)
WINDOW = Window(START, NOW)
CARD = "Your card is 4111 1111 1111 1111."
RULE = next(rule for rule in DEFAULT_RULES if rule.name == "payment_card")
CONFIG = SafetyConfig(sample_share=0.2)


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def fill(store: EventStore, size: int = 130) -> None:
    store.add_interactions(
        [
            Interaction(
                id=f"i-{number}",
                session_id="s",
                user_id="u",
                created_at=START + timedelta(seconds=number // 2),
                model_version="router/1",
                messages=(Message(role="user", content="Hello"),),
                response=CARD if number % 13 == 0 else "Done.",
            )
            for number in range(size)
        ]
    )
    for number in (0, 7, 99):
        report = {"id": f"f-{number}", "interaction_id": f"i-{number}", "created_at": NOW}
        event = {**report, "kind": "safety_violation", "value": True}
        store.add_feedback([FEEDBACK.validate_python(event)])


JUDGED = (
    Flag("guard-1", "i-13", "S1", "guard says S1"),
    Flag("guard-1", "i-20", "S1", "guard says S1"),
    Flag("guard-1", "elsewhere", "S1", "guard says S1"),
)


def kept(store: EventStore) -> tuple[Any, ...]:
    """What a screening leaves, in an order of its own."""
    items = sorted(store.records(ReviewItem), key=lambda item: item.id)
    events = store.feedback(Window(START, NOW)).sort_by("id").to_pylist()
    return [item.canonical() for item in items], events


@pytest.mark.mostly_slow("sqlite-17")
@pytest.mark.parametrize("size", [1, 17, 1_000])
def test_batches_of_any_size_leave_what_one_batch_leaves(
    store: EventStore, tmp_path: Any, size: int
) -> None:
    whole = EventStore.open(f"sqlite:///{tmp_path / 'whole.db'}")
    found: list[Screened] = []
    for screened, batch in ((store, size), (whole, 10_000)):
        fill(screened)
        screened.append(usable(RULE.version))
        found.append(screen(screened, CONFIG, WINDOW, now=NOW, judged=JUDGED, size=batch))
    assert kept(store) == kept(whole)
    assert found[0].looked_at == found[1].looked_at
    assert set(found[0].flags) == set(found[1].flags)
    # 10 cards, 2 more reports, 1 more answer of the guard's and one that is not in the window
    assert found[0].queued == found[1].queued == 10 + 2 + 1 + 1
    both = next(item for item in store.records(ReviewItem) if item.interaction_id == "i-13")
    assert both.raised_by == RULE.version  # the rule comes first
    assert both.why.endswith("S1: guard says S1")
    whole.close()


@pytest.mark.mostly_slow("sqlite")
def test_a_screening_that_is_stopped_half_way_goes_on_and_ends_as_one_that_was_not(
    store: EventStore, tmp_path: Any
) -> None:
    whole = EventStore.open(f"sqlite:///{tmp_path / 'whole.db'}")
    for one in (store, whole):
        fill(one)
        one.append(usable(RULE.version))
    screen(whole, CONFIG, WINDOW, now=NOW)
    half = Window(START, START + timedelta(seconds=31))
    screen(store, CONFIG, half, now=NOW, size=10)  # killed before its pass was stored
    assert store.latest(SafetyPass) is None
    assert window_to_screen(store, NOW).start == NOW - timedelta(days=1)
    screen(store, CONFIG, WINDOW, now=NOW, size=10)
    assert kept(store) == kept(whole)
    assert screen(store, CONFIG, WINDOW, now=NOW).queued == 0
    whole.close()


def usable(source: str) -> JudgeValidation:
    return JudgeValidation(
        id=f"usable-{source}", created_at=NOW, judge=source, judge_version=f"flags/{source}",
        dimension=SAFETY, decision="usable", reasons=("said so by the test",), labels_digest="d",
        items=0, unscored=0, figures=(),
    )  # fmt: skip


def test_every_source_that_flagged_is_held_to_the_decisions_once(store: EventStore) -> None:
    fill(store)
    screened = screen(store, CONFIG, WINDOW, now=NOW, judged=JUDGED)
    for item in open_items(store):
        label = "violation" if item.raised_by == RULE.version else "fine"
        decide(store, item.id, label, reviewer="ann", now=NOW)
    found = validate_sources(store, CONFIG, screened, now=NOW)
    assert [record.judge for record in found] == ["guard-1", RULE.name, "users' reports"]
    by_judge = {record.judge: record for record in found}
    assert by_judge[RULE.name].confusion[0][0] == 10  # every card is a violation
    assert by_judge["guard-1"].confusion[0][0] == 1
    assert validate_sources(store, CONFIG, screened, now=NOW + timedelta(hours=1)) == found
    assert len(store.records(ReviewDecision)) == len(store.records(ReviewItem))


# A flood of flags -------------------------------------------------------------------------------


def test_a_flood_of_flags_of_one_rule_leaves_room_for_others_on_the_first_page(
    store: EventStore,
) -> None:
    flags = [Flag("flood", f"i-{number}", "privacy", "an e-mail address") for number in range(300)]
    queue_flags(store, flags, now=NOW)
    queue_flags(store, [Flag("other", "o-1", "leak", "a prompt")], now=NOW + timedelta(minutes=1))
    for number in range(30):
        store.append(of_helpfulness(number))
    page = first_page(store, most=10, alike=4)
    assert page.waiting == 331
    assert [item.raised_by for item in page.items] == ["flood"] * 4 + ["other"] + ["judge"] * 4
    assert [item.interaction_id for item in page.items[:4]] == ["i-0", "i-1", "i-2", "i-3"]
    assert page.more == {page.items[3].id: 296, page.items[8].id: 26}
    short = first_page(store, most=3, alike=4)
    assert [item.raised_by for item in short.items] == ["flood"] * 3
    assert short.more == {short.items[2].id: 297}


def test_a_queue_that_fits_on_a_page_is_shown_whole_and_in_order(store: EventStore) -> None:
    flags = [Flag("flood", f"i-{number}", "privacy", "an e-mail address") for number in range(9)]
    queue_flags(store, flags, now=NOW)
    page = first_page(store, most=9, alike=2)
    assert (page.items, page.more, page.waiting) == (open_items(store), {}, 9)


def of_helpfulness(number: int) -> ReviewItem:
    return ReviewItem(
        id=derive_id("review", number, "helpfulness"),
        created_at=NOW + timedelta(seconds=number),
        interaction_id=f"h-{number}",
        dimension="helpfulness",
        priority="normal",
        raised_by="judge",
        why="close to the line",
    )


def test_what_was_drawn_before_chances_were_kept_weighs_by_the_share_of_then(
    store: EventStore,
) -> None:
    fill(store)
    early = Window(START, START + timedelta(seconds=30))
    screen(store, SafetyConfig(sample_share=0.4, sample_a_day=1_000), early, now=NOW)
    drawn = {item.id for item in store.records(ReviewItem) if item.raised_by == SAMPLE}
    with store.atomic() as connection:  # as the migration leaves what was drawn then
        connection.execute(sa.update(REVIEW_ITEMS).values(share=None, sample_day=None))
    config = SafetyConfig(sample_share=0.4, sample_a_day=30)
    screened = screen(store, config, WINDOW, now=NOW)
    sampled = {item.id for item in store.records(ReviewItem) if item.raised_by == SAMPLE}
    missed = sorted(drawn)[:2]
    for item in store.records(ReviewItem):
        fine = item.raised_by == SAMPLE and item.id not in missed
        decide(store, item.id, "fine" if fine else "violation", reviewer="ann", now=NOW)
    found = validate_sources(store, config, screened, now=NOW)
    recall = next(item for item in found if item.judge == RULE.name).figure("recall")
    assert recall is not None
    # by hand: 10 answers have a card, users reported 2 others; the rest was drawn from with a
    # chance of 0.4, and of 30 / (2 * 130)
    flagged, reported = 10, 2
    weights = len(drawn) / 0.4, (len(sampled) - len(drawn)) / (30 / 260)
    assert min(weights) > 0.0
    size = (130 - flagged - reported) * weights[0] / sum(weights)
    unseen = 2 / len(drawn) * size
    assert recall.value == pytest.approx(flagged / (flagged + reported + unseen), rel=0.02)
