"""Several people decide an item: blind, held for one at a time, settled by most of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Judgement
from ratchet.judges.on_store import labelled_rows
from ratchet.records import (
    FEEDBACK,
    HumanLabel,
    Interaction,
    KnownAnswer,
    Message,
    ReviewDecision,
    ReviewItem,
    ReviewSkip,
    ReviewUndo,
    draw_of,
)
from ratchet.review.agreement import agreement_on
from ratchet.review.deciding import add_known, decide, skip, undo
from ratchet.review.policy import ReviewPolicy
from ratchet.review.queue import open_items, queue_flags, queue_sample, unreviewed_safety
from ratchet.review.showing import changes_between
from ratchet.review.working import mine, next_work, progress
from ratchet.safety.rules import Flag
from ratchet.safety.source_validation import SAFETY
from ratchet.stats.agreement import cohen_kappa, fleiss_kappa, percent_agreement
from ratchet.stats.intervals import wilson
from ratchet.store import EventStore, Window
from ratchet.store.review_labels import NO_LABELS, agreed_labels, human_labels

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
WINDOW = Window(NOW - timedelta(hours=1), NOW + timedelta(hours=1))
TWO = ReviewPolicy(people=2)
SECRET = "secret-model/7"


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def answered(number: int) -> Interaction:
    return Interaction(
        id=f"i-{number}",
        session_id="s",
        user_id="u",
        created_at=NOW - timedelta(minutes=30 - number),
        model_version=SECRET,
        messages=(Message(role="user", content=f"Question {number}"),),
        response=f"Answer {number}.",
    )


def ask(store: EventStore, count: int, *, people: int = 2, unanimous: bool = False) -> list[str]:
    """Ask about the helpfulness of so many answers; return the items' ids, oldest first."""
    store.add_interactions([answered(number) for number in range(count)])
    for number in range(count):
        item = ReviewItem(
            id=f"item-{number:03}", created_at=NOW + timedelta(seconds=number),
            interaction_id=f"i-{number}", dimension="helpfulness", priority="normal",
            raised_by="low_confidence", why="chosen for a second look", queue="low_confidence",
            people=people, unanimous=unanimous,
        )  # fmt: skip
        store.append(item)
    return [f"item-{number:03}" for number in range(count)]


def take(store: EventStore, who: str, at: datetime = NOW, policy: ReviewPolicy = TWO) -> str | None:
    work = next_work(store, policy, reviewer=who, now=at)
    return None if work is None else work.item.id


def test_an_item_is_offered_to_no_more_people_at_once_than_decide_it(store: EventStore) -> None:
    first, second = ask(store, 2, people=1)
    assert take(store, "ana") == first
    assert take(store, "bob") == second
    assert take(store, "cy") is None
    # what is held for somebody is free again once the time is over
    assert take(store, "cy", NOW + timedelta(minutes=31)) == first


def test_a_person_who_comes_back_is_given_the_same_item(store: EventStore) -> None:
    ask(store, 3)
    assert take(store, "ana") == take(store, "ana", LATER) == "item-000"


def test_two_people_decide_one_item_and_a_third_is_offered_the_next(store: EventStore) -> None:
    first, second, third = ask(store, 3)
    assert [take(store, who) for who in ("ana", "bob", "cy")] == [first, first, second]
    decide(store, first, "4", reviewer="ana", now=NOW)
    assert take(store, "ana") == second
    decide(store, first, "4", reviewer="bob", now=NOW)
    assert take(store, "dee") == third  # the second one is held by two


def test_one_reviewer_never_clears_a_flag_alone_where_two_are_asked(store: EventStore) -> None:
    store.add_interactions([answered(1)])
    (item,) = queue_flags(
        store, [Flag("rule-1", "i-1", "privacy", "a card")], now=NOW, people=2
    ).items
    decide(store, item.id, "fine", reviewer="ana", now=NOW)
    assert unreviewed_safety(store, ["i-1"]) == {"i-1"}
    assert store.counts()["safety_violation"] == 0
    decide(store, item.id, "fine", reviewer="bob", now=LATER)
    assert unreviewed_safety(store, ["i-1"]) == set()
    signal = store.signals(WINDOW, lag=timedelta(days=1))["safety_violation"].to_pylist()
    assert signal == [0.0]


def test_people_who_disagree_need_another_one_whose_word_counts(store: EventStore) -> None:
    (key,) = ask(store, 1)
    decide(store, key, "2", reviewer="ana", now=NOW)
    with pytest.raises(InvalidInputError, match="nobody does"):
        decide(store, key, "2", reviewer="cy", now=NOW, adjudicates=True)
    decide(store, key, "4", reviewer="bob", now=NOW)
    assert open_items(store) == ()
    assert human_labels(store, "helpfulness") == ()  # not decided yet
    assert next_work(store, TWO, reviewer="ana", now=NOW, adjudicates=True) is None  # a side
    work = next_work(store, TWO, reviewer="cy", now=NOW, adjudicates=True)
    assert work is not None
    assert work.shown is not None
    assert work.shown.given == ("2", "4")
    decide(store, key, "4", reviewer="cy", now=LATER, adjudicates=True)
    agreed = agreed_labels(human_labels(store, "helpfulness"))["i-0"]
    assert (agreed.label, agreed.others, agreed.adjudicated) == ("4", ("2", "4"), True)


@pytest.mark.parametrize(("unanimous", "settled"), [(False, True), (True, False)])
def test_two_of_three_settle_an_item_unless_all_must_agree(
    store: EventStore, unanimous: bool, settled: bool
) -> None:
    (key,) = ask(store, 1, people=3, unanimous=unanimous)
    for who, label in (("ana", "4"), ("bob", "2"), ("cy", "4")):
        decide(store, key, label, reviewer=who, now=NOW)
    (one,) = progress(store)
    assert (one.settled, one.disputed) == ((1, 0) if settled else (0, 1))
    assert bool(human_labels(store, "helpfulness")) is settled


def test_a_judge_is_held_against_most_people_and_not_against_the_first() -> None:
    labels = [
        HumanLabel(
            id=f"l-{who}", created_at=NOW + timedelta(minutes=place), item_id="i-1",
            dimension="helpfulness", label=label, reviewer=who,
        )
        for place, (who, label) in enumerate([("ana", "2"), ("bob", "4"), ("cy", "4")])
    ]  # fmt: skip
    judged = Judgement("i-1", "4", 0.75, None, None, ())
    (row,) = labelled_rows(labels, [judged])
    assert (row.human, sorted(row.others), row.adjudicated) == ("4", ["2", "4"], False)
    (turned,) = labelled_rows(labels[::-1], [judged])
    assert turned.human == "4"


def test_labels_given_equally_often_are_drawn_and_not_left_to_the_first(store: EventStore) -> None:
    def label(item: str, who: str, said: str, minute: int) -> HumanLabel:
        return HumanLabel(
            id=f"{item}{who}", created_at=NOW + timedelta(minutes=minute), item_id=item,
            dimension="d", label=said, reviewer=who,
        )  # fmt: skip

    items = [f"i-{number}" for number in range(200)]
    labels = [one for key in items for one in (label(key, "a", "x", 0), label(key, "b", "y", 1))]
    first = sum(one.label == "x" for one in agreed_labels(labels).values())
    assert 70 < first < 130  # 100 are expected; outside lies 2e-5 of the binomial distribution


def test_agreement_is_that_of_the_library_to_the_last_digit(store: EventStore) -> None:
    keys = ask(store, 12)
    ana = list("545453353545")
    bob = list("544453343445")
    for place, key in enumerate(keys):
        decide(store, key, ana[place], reviewer="ana", now=NOW)
        decide(store, key, bob[place], reviewer="bob", now=NOW)
    menu = ["1", "2", "3", "4", "5"]
    report = agreement_on(store, "helpfulness", categories=menu)
    (pair,) = report.pairs
    assert (pair.first, pair.second, pair.items) == ("ana", "bob", 12)
    assert pair.kappa == cohen_kappa(ana, bob, categories=menu)
    assert pair.percent == percent_agreement(ana, bob)
    counts = [[[a, b].count(name) for name in menu] for a, b in zip(ana, bob, strict=True)]
    assert report.fleiss == fleiss_kappa(counts)
    same = sum(a == b for a, b in zip(ana, bob, strict=True))
    assert (report.ceiling.value, report.ceiling.interval) == (same / 12, wilson(same, 12))
    assert report.alpha.interval is not None
    assert set(report.by_label) == set(menu)


def test_what_a_reviewer_is_shown_names_no_model_judge_or_other_reviewer(store: EventStore) -> None:
    (key,) = ask(store, 1)
    told = [
        {"kind": "thumbs", "value": "down"},
        {"kind": "judge_score", "value": 0.9, "judge_version": "strict-judge-1"},
    ]
    store.add_feedback(
        FEEDBACK.validate_python(
            {"id": f"f{place}", "interaction_id": "i-0", "created_at": NOW, **said}
        )
        for place, said in enumerate(told)
    )
    decide(store, key, "2", reviewer="ana-secret", now=NOW, note="my secret note")
    work = next_work(store, TWO, reviewer="bob", now=NOW)
    assert work is not None
    assert work.shown is not None
    assert work.shown.turns == (("user", "Question 0"),)
    assert work.shown.answers == (("answer", "Answer 0."),)
    assert work.shown.users == ("thumbs down",)
    assert work.shown.given == ()
    said = repr(work.shown)
    assert not any(word in said for word in (SECRET, "secret", "judge", "0.9"))


def test_a_skipped_item_goes_to_others_and_does_not_come_back(store: EventStore) -> None:
    first, second = ask(store, 2, people=1)
    with pytest.raises(InvalidInputError, match="reason"):
        skip(store, first, reviewer="ana", reason=" ", now=NOW)
    skip(store, first, reviewer="ana", reason="in Finnish", now=NOW)
    assert take(store, "ana") == second
    assert take(store, "bob") == first


def waiting_for(store: EventStore, who: str) -> list[str]:
    """What waits for somebody, as the journal's records alone say."""
    undone = {one.decision_id for one in store.records(ReviewUndo)}
    passed = {one.item_id for one in store.records(ReviewSkip) if one.reviewer == who}
    said: dict[str, list[ReviewDecision]] = {}
    for one in store.records(ReviewDecision):
        if one.id not in undone:
            said.setdefault(one.item_id, []).append(one)
    return [
        item.id
        for item in sorted(store.records(ReviewItem), key=lambda one: one.created_at)
        if len(said.get(item.id, ())) < item.people
        and item.id not in passed
        and all(one.reviewer != who for one in said.get(item.id, ()))
    ]


_people = st.sampled_from(["ana", "bob", "cy", "dot"])
_acts = st.lists(st.tuples(st.sampled_from("ddddsu"), _people, st.integers(0, 5)), max_size=25)


@settings(max_examples=25)
@given(acts=_acts, people=st.integers(1, 3))
def test_whatever_people_did_what_waits_for_each_is_what_the_journal_says(
    acts: list[tuple[str, str, int]], people: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("queue") / "store.db"
    store = EventStore.open(f"sqlite:///{path}")
    keys = ask(store, 6, people=people)
    for number, (act, who, which) in enumerate(acts):
        now = NOW + timedelta(minutes=number)
        with suppress(InvalidInputError):  # said before, or nothing to take back
            if act == "d":
                decide(store, keys[which], "3", reviewer=who, now=now)
            elif act == "s":
                skip(store, keys[which], reviewer=who, reason="hard", now=now)
            else:
                undo(store, reviewer=who, now=now, held_until=now)
    for who in ("ana", "bob", "cy", "dot"):
        wanted = waiting_for(store, who)
        for chosen in ({}, {"queue": "low_confidence"}, {"dimension": "helpfulness"}):
            assert [item.id for item in open_items(store, reviewer=who, **chosen)] == wanted
        assert open_items(store, reviewer=who, queue="another") == ()
    store.close()


def test_who_is_far_ahead_of_the_others_costs_no_more_than_who_begins(store: EventStore) -> None:
    keys = ask(store, 60)
    for key in keys[:50]:
        decide(store, key, "3", reviewer="ana", now=NOW)
    asked: list[str] = []
    sa.event.listen(store._engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    assert take(store, "ana") == keys[50]
    of_ana = len(asked)
    assert take(store, "bob") == keys[0]
    # for bob both parts are looked at: what nobody decided, and what ana did
    assert of_ana == len(asked) - of_ana - 1


def test_who_decided_what_waits_is_known_of_an_older_store(
    open_store: Callable[[], EventStore],
) -> None:
    store = open_store()
    keys = ask(store, 4)
    for key in keys[:2]:
        decide(store, key, "3", reviewer="ana", now=NOW)
    decide(store, keys[0], "3", reviewer="bob", now=NOW)
    store.append(
        KnownAnswer(id="k", created_at=NOW, item_id="x", dimension="helpfulness", label="1",
                    right="1", reviewer="ana")
    )  # fmt: skip
    with store._engine.begin() as connection:
        for index in ("deciders", "of_queue", "of_dimension"):
            connection.execute(sa.text(f"DROP INDEX ix_review_items_{index}"))
        connection.execute(sa.text("ALTER TABLE review_items DROP COLUMN deciders"))
        connection.execute(sa.text("UPDATE journal SET subject = NULL"))
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0032%'"))
    moved = open_store()
    assert [item.id for item in open_items(moved, reviewer="ana")] == keys[2:]
    assert [item.id for item in open_items(moved, reviewer="bob")] == keys[1:]
    assert mine(moved, "ana").checked == 1


def test_an_undone_decision_counts_no_more_and_the_item_comes_next(store: EventStore) -> None:
    first, second = ask(store, 2)
    decide(store, first, "2", reviewer="bob", now=NOW)
    decide(store, first, "5", reviewer="ana", now=NOW)
    decide(store, second, "1", reviewer="ana", now=LATER)
    until = LATER + timedelta(hours=1)
    assert undo(store, reviewer="ana", now=LATER, held_until=until).item_id == second
    assert undo(store, reviewer="ana", now=LATER, held_until=until).item_id == first
    assert take(store, "ana", LATER) == first
    decide(store, first, "2", reviewer="ana", now=LATER)
    assert [one.label for one in human_labels(store, "helpfulness")] == ["2", "2"]
    assert len(store.records(ReviewDecision)) == 4  # nothing is taken out of the journal
    with pytest.raises(InvalidInputError, match="got none by 'zoe'"):
        undo(store, reviewer="zoe", now=LATER, held_until=until)


def test_known_items_are_mixed_in_and_tell_each_reviewer_their_own_agreement(
    store: EventStore,
) -> None:
    keys = ask(store, 40, people=1)
    known = {}
    for number in range(100, 120):
        store.add_interactions([answered(number).model_copy(update={"id": f"k-{number}"})])
        about = ReviewItem(
            id="any", created_at=NOW, interaction_id=f"k-{number}", dimension="helpfulness",
            priority="normal", raised_by="test", why="-",
        )  # fmt: skip
        assert add_known(store, about, "5", NOW)
        assert not add_known(store, about, "5", NOW)
    policy = ReviewPolicy(known_share=0.5)
    right = 0
    for step in range(30):
        key = take(store, "ana", policy=policy)
        assert key is not None
        label = "5" if step % 3 else "1"
        if key not in keys:
            known[key] = label
            right += label == "5"
        decide(store, key, label, reviewer="ana", now=NOW, policy=policy)
    own = mine(store, "ana")
    assert 5 < own.checked == len(known) < 25
    assert own.decided == 30 - len(known)
    assert (own.share, own.interval) == (right / len(known), wilson(right, len(known)))
    assert mine(store, "bob").checked == 0
    labels = human_labels(store, "helpfulness")
    assert not {one.item_id for one in labels} & {f"k-{number}" for number in range(100, 120)}


def test_known_items_stay_mixed_in_after_more_of_them_than_are_shown_to_the_reviewer(
    store: EventStore,
) -> None:
    ask(store, 20, people=1)
    for number in range(100, 120):
        store.add_interactions([answered(number).model_copy(update={"id": f"k-{number}"})])
        about = ReviewItem(
            id="any", created_at=NOW, interaction_id=f"k-{number}", dimension="helpfulness",
            priority="normal", raised_by="test", why="-",
        )  # fmt: skip
        add_known(store, about, "5", NOW)
    with store.atomic():
        for number in range(510):
            store.append(
                KnownAnswer(id=f"k-{number}", created_at=NOW, item_id="x", label="1", right="1",
                            dimension="helpfulness", reviewer="ana")
            )  # fmt: skip
    policy, given = ReviewPolicy(known_share=0.5), []
    for _ in range(12):
        key = take(store, "ana", policy=policy)
        assert key is not None
        given.append(not key.startswith("item-"))
        decide(store, key, "5", reviewer="ana", now=NOW, policy=policy)
    # each by a draw of its own, by how many items she had labelled
    assert given == [draw_of("known", "ana", 510 + step) < 0.5 for step in range(12)]
    assert mine(store, "ana").checked == 500


def test_a_label_that_the_policy_does_not_know_is_refused(store: EventStore) -> None:
    (key,) = ask(store, 1)
    with pytest.raises(InvalidInputError, match="is decided as 1, 2, 3, 4, 5, got 'great'"):
        decide(store, key, "great", reviewer="ana", now=NOW)


def test_a_sample_of_any_dimension_keeps_its_chance(store: EventStore) -> None:
    store.add_interactions([answered(number) for number in range(25)])
    ids = [f"i-{number}" for number in range(25)]
    drawn = queue_sample(store, ids, share=0.5, now=NOW, dimension="helpfulness", people=2)
    assert 4 < len(drawn) < 21
    assert {(item.dimension, item.people, item.queue) for item in drawn} == {
        ("helpfulness", 2, "sample")
    }
    assert queue_sample(store, ids, share=0.5, now=LATER, dimension="helpfulness") == ()


def test_decisions_that_are_no_labels_are_those_with_a_use_of_their_own() -> None:
    from ratchet.records import WIN_RATE
    from ratchet.review.corrections import CORRECTION

    assert frozenset({SAFETY, CORRECTION, WIN_RATE}) == NO_LABELS


def test_two_answers_are_compared_word_by_word() -> None:
    changes = changes_between("It left on Monday.", "It left on Friday.")
    assert changes == (("same", "It left on "), ("left", "Monday."), ("right", "Friday."))
    rebuilt = "".join(text for side, text in changes if side != "left")
    assert rebuilt == "It left on Friday."
