"""The review queue, end to end on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.errors import InvalidInputError
from ratchet.records import (
    FEEDBACK,
    Interaction,
    JudgeValidation,
    Message,
    ReviewDecision,
    ReviewItem,
    Usability,
)
from ratchet.review.queue import (
    SAMPLE,
    count_unflagged,
    decide,
    open_items,
    queue_flags,
    queue_sample,
    unreviewed_safety,
    usable_sources,
    user_reports,
    validate_flags,
)
from ratchet.safety.rules import DEFAULT_RULES, Flag, rule_flags
from ratchet.safety.source_validation import SAFETY
from ratchet.store import EventStore, Window

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
NOW = START + timedelta(hours=1)
LATER = NOW + timedelta(hours=1)
LAST = LATER + timedelta(hours=1)
WINDOW = Window(START, NOW)
DAY = timedelta(days=1)
CARD = "Your card is 4111 1111 1111 1111."
RULE = next(rule for rule in DEFAULT_RULES if rule.name == "payment_card")


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def answered(number: int, answer: str = "Done.") -> Interaction:
    return Interaction(
        id=f"i-{number}",
        session_id="s",
        user_id="u",
        created_at=START + timedelta(seconds=number),
        model_version="router/1",
        messages=(Message(role="user", content="Hello"),),
        response=answer,
    )


def flag(number: int, source: str = "rule-1") -> Flag:
    return Flag(source, f"i-{number}", "privacy", "a card number")


def report(store: EventStore, number: int, key: str, at: datetime, value: bool = True) -> None:
    event = {"id": key, "interaction_id": f"i-{number}", "created_at": at, "value": value}
    store.add_feedback([FEEDBACK.validate_python({**event, "kind": "safety_violation"})])


def validated(store: EventStore, source: str, decision: Usability, key: str = "v") -> None:
    store.append(
        JudgeValidation(
            id=f"{key}-{source}-{decision}",
            created_at=NOW,
            judge=source,
            judge_version=f"flags/{source}",
            dimension=SAFETY,
            decision=decision,
            reasons=("said so by the test",),
            labels_digest="d",
            items=0,
            unscored=0,
            figures=(),
        )
    )


def unsafe(store: EventStore) -> list[float | None]:
    """The signal of each interaction, in order of time."""
    found: list[float | None] = store.signals(WINDOW, lag=DAY)["safety_violation"].to_pylist()
    return found


def names(items: Iterable[ReviewItem]) -> list[str]:
    return [item.interaction_id for item in items]


# From flag to signal ----------------------------------------------------------------------------


def test_a_flag_of_an_unvalidated_rule_touches_no_signal_until_somebody_decides(
    store: EventStore,
) -> None:
    interactions = [answered(1, CARD), answered(2)]
    store.add_interactions(interactions)
    queued = queue_flags(store, rule_flags(DEFAULT_RULES, interactions), now=NOW)
    assert queued.counted == ()
    assert unsafe(store) == [None, None]
    (item,) = open_items(store)
    assert (item.interaction_id, item.priority) == ("i-1", "safety")
    assert item.raised_by == RULE.version
    assert item.why.startswith("privacy: a payment card number")
    assert unreviewed_safety(store, ["i-1", "i-2"]) == {"i-1"}

    decision = decide(store, item.id[:8], "violation", reviewer="ann", now=LATER, note="a real one")
    assert unsafe(store) == [1.0, None]
    feedback = store.feedback(WINDOW).to_pylist()
    assert [(row["kind"], row["text"]) for row in feedback] == [("safety_violation", "review")]
    assert open_items(store) == ()
    assert unreviewed_safety(store, ["i-1", "i-2"]) == set()
    assert store.records(ReviewDecision) == (decision,)


def test_a_flag_of_a_usable_rule_counts_at_once_and_a_reviewer_overrules_it(
    store: EventStore,
) -> None:
    store.add_interactions([answered(1)])
    validated(store, "rule-1", "usable")
    assert queue_flags(store, [flag(1)], now=NOW).counted == ("i-1",)
    assert unsafe(store) == [1.0]
    assert [row["text"] for row in store.feedback(WINDOW).to_pylist()] == ["rule-1"]
    assert names(open_items(store)) == ["i-1"]
    decide(store, open_items(store)[0].id, "fine", reviewer="ann", now=LATER)
    assert unsafe(store) == [0.0]
    assert queue_flags(store, [flag(1), flag(1, "rule-2")], now=LAST).counted == ()
    assert unsafe(store) == [0.0]


@pytest.mark.parametrize("decision", ["not usable", "not enough labels"])
def test_a_source_that_was_not_found_usable_counts_nothing(
    store: EventStore, decision: Usability
) -> None:
    store.add_interactions([answered(1)])
    validated(store, "rule-1", decision)
    validated(store, "rule-1b", "usable")  # another version
    assert queue_flags(store, [flag(1)], now=NOW).counted == ()
    assert unsafe(store) == [None]


def test_the_latest_validation_of_a_source_counts(store: EventStore) -> None:
    validated(store, "rule-1", "usable")
    assert usable_sources(store, ["rule-1", "rule-2"]) == {"rule-1"}
    validated(store, "rule-1", "not usable")
    assert usable_sources(store, ["rule-1", "rule-2"]) == set()


def test_a_judge_whose_scores_are_validated_is_not_for_that_a_usable_source(
    store: EventStore,
) -> None:
    validated(store, "judge-1", "usable")
    judged = store.records(JudgeValidation)[0].model_copy(
        update={"id": "kappa", "judge_version": "judge-2"}
    )
    store.append(judged)
    assert usable_sources(store, ["judge-1", "judge-2"]) == {"judge-1"}


def test_flags_on_the_same_answer_are_one_item_and_a_second_run_adds_nothing(
    store: EventStore,
) -> None:
    store.add_interactions([answered(1), answered(2)])
    validated(store, "rule-2", "usable")
    flags = [flag(1), flag(1, "rule-2"), flag(2)]
    first = queue_flags(store, flags, now=NOW)
    assert (names(first.items), first.counted) == (["i-1", "i-2"], ("i-1",))
    again = queue_flags(store, flags, now=LATER)
    assert (again.items, again.counted) == ((), ())
    assert len(store.records(ReviewItem)) == 2
    assert store.counts()["safety_violation"] == 1


def test_a_source_that_becomes_usable_counts_what_still_waits(store: EventStore) -> None:
    store.add_interactions([answered(1)])
    queue_flags(store, [flag(1)], now=NOW)
    validated(store, "rule-1", "usable")
    assert queue_flags(store, [flag(1)], now=LATER).counted == ("i-1",)
    assert unsafe(store) == [1.0]


def test_a_flag_on_an_answer_that_is_not_stored_waits_and_does_not_count(store: EventStore) -> None:
    validated(store, "rule-1", "usable")
    queued = queue_flags(store, [flag(7)], now=NOW)
    assert (names(queued.items), queued.counted) == (["i-7"], ())


# Reports ----------------------------------------------------------------------------------------


def test_users_reports_are_queued_and_are_feedback_already(store: EventStore) -> None:
    store.add_interactions([answered(1), answered(2), answered(3)])
    report(store, 1, "f-1", NOW)
    report(store, 2, "f-2", NOW, value=False)
    reports = user_reports(store, WINDOW)
    assert reports == (Flag("report", "i-1", "reported", "a user reported it (f-1)"),)
    assert names(queue_flags(store, reports, now=NOW).items) == ["i-1"]
    assert unsafe(store) == [1.0, 0.0, None]


def test_what_a_reviewer_or_a_rule_says_is_no_report(store: EventStore) -> None:
    store.add_interactions([answered(1), answered(2)])
    validated(store, "rule-1", "usable")
    queue_flags(store, [flag(1), flag(2)], now=NOW)
    decide(store, open_items(store)[0].id, "violation", reviewer="ann", now=LATER)
    assert user_reports(store, WINDOW) == ()


def test_a_decision_stands_against_reports_that_come_after_it(store: EventStore) -> None:
    store.add_interactions([answered(1)])
    report(store, 1, "f-1", NOW)
    queue_flags(store, user_reports(store, WINDOW), now=NOW)
    decide(store, open_items(store)[0].id, "fine", reviewer="ann", now=LATER)
    for number in (2, 3):
        at = LATER + timedelta(minutes=number)
        report(store, 1, f"f-{number}", at)
        assert unsafe(store) == [1.0]
        queued = queue_flags(store, user_reports(store, WINDOW), now=at + timedelta(seconds=1))
        assert queued.items == ()
        assert unsafe(store) == [0.0]


# What nobody flagged ----------------------------------------------------------------------------


def test_a_sample_of_the_rest_is_drawn_once_marked_and_after_what_is_flagged(
    store: EventStore,
) -> None:
    keys = [f"i-{number}" for number in range(4_000)]
    queue_flags(store, [flag(number) for number in range(50)], now=NOW)
    drawn = queue_sample(store, keys, share=0.05, now=NOW - timedelta(minutes=1))
    # 197.5 of 3,950 are expected, with a standard deviation of 13.7.
    assert abs(len(drawn) - 197.5) < 4 * 13.7
    assert {(item.raised_by, item.priority) for item in drawn} == {(SAMPLE, "normal")}
    assert not set(names(drawn)) & set(keys[:50])
    assert queue_sample(store, keys, share=0.05, now=LATER) == ()
    assert names(open_items(store)) == [*keys[:50], *names(drawn)]
    assert unreviewed_safety(store, keys) == set(keys[:50])


def test_a_sampled_answer_that_is_flagged_later_comes_first_and_once(store: EventStore) -> None:
    store.add_interactions([answered(1), answered(2)])
    queue_sample(store, ["i-1", "i-2"], share=1.0, now=NOW)
    queue_flags(store, [flag(2)], now=LATER)
    assert [(i.interaction_id, i.priority) for i in open_items(store)] == [
        ("i-2", "safety"),
        ("i-1", "normal"),
    ]
    decide(store, open_items(store)[0].id, "violation", reviewer="ann", now=LAST)
    assert names(open_items(store)) == ["i-1"]


def test_a_sampled_answer_that_was_decided_is_not_asked_about_again(store: EventStore) -> None:
    store.add_interactions([answered(1)])
    (item,) = queue_sample(store, ["i-1"], share=1.0, now=NOW)
    decide(store, item.id, "fine", reviewer="ann", now=LATER)
    validated(store, "rule-1", "usable")
    queued = queue_flags(store, [flag(1)], now=LAST)
    assert (queued.items, queued.counted) == ((), ())
    assert unsafe(store) == [0.0]


@pytest.mark.parametrize("share", [-0.1, 2.0])
def test_a_share_out_of_range_is_refused(store: EventStore, share: float) -> None:
    with pytest.raises(InvalidInputError, match=r"share must be in \[0, 1\]"):
        queue_sample(store, ["i-1"], share=share, now=NOW)


def test_what_a_usable_source_passed_counts_as_no_violation_and_overrules_nothing(
    store: EventStore,
) -> None:
    interactions = [answered(number) for number in range(4)]
    store.add_interactions(interactions)
    assert count_unflagged(store, "rule-1", interactions, []) == 0
    validated(store, "rule-1", "usable")
    report(store, 1, "f-1", START + timedelta(minutes=1))
    queue_flags(store, [flag(2, "rule-2")], now=NOW)  # of a source that is not usable
    assert count_unflagged(store, "rule-1", interactions, [flag(0)]) == 2
    assert unsafe(store) == [None, 1.0, None, 0.0]
    assert count_unflagged(store, "rule-1", interactions, [flag(0)]) == 0
    validated(store, "rule-2", "usable")
    queue_flags(store, [flag(3, "rule-2")], now=LATER)
    assert unsafe(store) == [None, 1.0, None, 1.0]


# Deciding ---------------------------------------------------------------------------------------


def test_one_reviewer_decides_once_and_several_decisions_are_kept(store: EventStore) -> None:
    store.add_interactions([answered(1)])
    queue_flags(store, [flag(1)], now=NOW)
    (item,) = open_items(store)
    decide(store, item.id, "violation", reviewer="ann", now=LATER)
    with pytest.raises(InvalidInputError, match="once, got a second decision by 'ann', who said"):
        decide(store, item.id, "fine", reviewer="ann", now=LAST)
    assert unsafe(store) == [1.0]
    assert names(open_items(store, decisions=2)) == ["i-1"]
    assert open_items(store, decisions=2, reviewer="ann") == ()
    assert names(open_items(store, decisions=2, reviewer="bob")) == ["i-1"]
    decide(store, item.id, "fine", reviewer="bob", now=LAST)
    assert unsafe(store) == [0.0]
    assert [found.reviewer for found in store.records(ReviewDecision)] == ["ann", "bob"]
    assert open_items(store, decisions=2) == ()
    report(store, 1, "f-1", LAST + timedelta(minutes=1))
    queue_flags(store, user_reports(store, WINDOW), now=LAST + timedelta(minutes=2))
    assert unsafe(store) == [0.0]  # the latest decision is the one that stands


def test_an_item_is_found_by_a_start_that_is_its_own(store: EventStore) -> None:
    queue_flags(store, [flag(1), flag(2)], now=NOW)
    first, second = open_items(store)
    for start, count in (("", 2), (first.id[:3], 1), ("zzzz", 0)):
        with pytest.raises(InvalidInputError, match=f"with which {count} begin"):
            decide(store, start, "fine", reviewer="ann", now=LATER)
    assert first.id[:8] != second.id[:8]
    assert decide(store, first.id[:8], "fine", reviewer="ann", now=LATER).item_id == first.id


def test_safety_is_decided_as_violation_or_fine(store: EventStore) -> None:
    queue_flags(store, [flag(1)], now=NOW)
    with pytest.raises(InvalidInputError, match="violation or fine, got 'unsafe'"):
        decide(store, open_items(store)[0].id, "unsafe", reviewer="ann", now=LATER)
    assert store.records(ReviewDecision) == ()


def test_an_item_of_another_dimension_takes_its_own_labels_and_is_no_safety_feedback(
    store: EventStore,
) -> None:
    store.add_interactions([answered(1)])
    item = ReviewItem(
        id="item-of-helpfulness",
        created_at=START,
        interaction_id="i-1",
        dimension="helpfulness",
        priority="normal",
        raised_by="judge",
        why="close to the line",
    )
    store.append(item)
    queue_flags(store, [flag(1)], now=NOW)
    assert [i.dimension for i in open_items(store)] == [SAFETY, "helpfulness"]
    decide(store, item.id, "4", reviewer="ann", now=LATER)
    assert unsafe(store) == [None]
    assert unreviewed_safety(store, ["i-1"]) == {"i-1"}


def test_the_queue_is_safety_first_and_oldest_first(store: EventStore) -> None:
    queue_sample(store, ["i-9"], share=1.0, now=START)
    queue_flags(store, [flag(3), flag(1)], now=LATER)
    queue_flags(store, [flag(2)], now=NOW)
    assert names(open_items(store)) == ["i-2", "i-3", "i-1", "i-9"]


# From decisions to a validation, and back -------------------------------------------------------


@pytest.mark.mostly_slow("sqlite")
def test_a_rule_becomes_usable_by_decisions_and_then_counts(store: EventStore) -> None:
    interactions = [answered(n, CARD if n < 30 else "Done.") for n in range(6_000)]
    store.add_interactions(interactions)
    keys = [interaction.id for interaction in interactions]
    flags = rule_flags([RULE], interactions)
    queue_flags(store, flags, now=NOW)
    queue_sample(store, keys, share=0.01, now=NOW)

    def validation(now: datetime) -> JudgeValidation:
        return validate_flags(
            store, RULE.version, looked_at=keys, flags=flags, now=now, name=RULE.name
        )

    assert validation(NOW).decision == "not enough labels"
    for item in open_items(store):
        label = "fine" if item.raised_by == SAMPLE else "violation"
        decide(store, item.id, label, reviewer="ann", now=LATER)
    record = validation(LATER)
    assert record.decision == "usable"
    assert record.confusion[0] == (30, 0)
    assert validation(LAST) == record
    assert len(store.records(JudgeValidation)) == 2

    fresh = answered(9_000, CARD)
    store.add_interactions([fresh])
    assert queue_flags(store, rule_flags([RULE], [fresh]), now=LAST).counted == (fresh.id,)
    assert store.signals(Window(START, LAST), lag=DAY)["safety_violation"].to_pylist()[-1] == 1.0


@pytest.mark.mostly_slow("sqlite")
def test_what_another_source_found_counts_as_missed(store: EventStore) -> None:
    keys = [f"i-{number}" for number in range(5_000)]
    flags = [*(flag(n) for n in range(20)), *(flag(n, "guard-1") for n in range(10, 40))]
    queue_flags(store, flags, now=NOW)
    queue_sample(store, keys, share=0.02, now=NOW)
    for item in open_items(store):
        label = "fine" if item.raised_by == SAMPLE else "violation"
        decide(store, item.id, label, reviewer="ann", now=LATER)
    # Without the guard's flags the queue still knows whom it asked about.
    for given in (flags, flags[:20]):
        record = validate_flags(store, "rule-1", looked_at=keys, flags=given, now=LATER)
        recall = record.figure("recall")
        assert recall is not None
        assert recall.value == pytest.approx(20 / 40)
