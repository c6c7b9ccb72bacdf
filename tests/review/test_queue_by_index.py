"""The queue by index gives what reading it whole gave, and reads no more than it is asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import InvalidInputError
from ratchet.records import (
    FEEDBACK,
    Interaction,
    JudgeValidation,
    Message,
    ReviewDecision,
    ReviewItem,
    SampledDay,
    derive_id,
    digest,
)
from ratchet.review.queue import (
    SAMPLE,
    count_unflagged,
    decide,
    first_page,
    open_items,
    open_safety_ids,
    queue_flags,
    queue_sample,
    unreviewed_safety,
    user_reports,
    validate_flags,
)
from ratchet.safety.rules import REPORT, Flag
from ratchet.safety.source_validation import SAFETY
from ratchet.store import EventStore, Window
from ratchet.store.review_items import (
    decisions_about,
    outcomes_about,
    raised_about,
    sources_waiting,
    waiting_about,
)
from ratchet.store.tables import REVIEW_DECISIONS, REVIEW_ITEMS

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
NOW = START + timedelta(hours=1)
KEYS = [f"i-{number}" for number in range(8)]
EVER = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@pytest.fixture
def store(open_store: Callable[[], EventStore]) -> EventStore:
    return open_store()


def answered(key: str, at: datetime = START) -> Interaction:
    return Interaction(
        id=key,
        session_id="s",
        user_id="u",
        created_at=at,
        model_version="router/1",
        messages=(Message(role="user", content="Hello"),),
        response="Done.",
    )


def usable(source: str) -> JudgeValidation:
    return JudgeValidation(
        id=f"usable-{source}",
        created_at=NOW,
        judge=source,
        judge_version=f"flags/{source}",
        dimension=SAFETY,
        decision="usable",
        reasons=("said so by the test",),
        labels_digest="d",
        items=0,
        unscored=0,
        figures=(),
    )


# The queue as it was: read whole from the journal, by the rules in its functions' docstrings ------


class WholeQueue:
    """What the journal's records say, each time read from the first to the last."""

    def __init__(self, store: EventStore) -> None:
        self.items = {item.id: item for item in store.records(ReviewItem)}
        self.decisions: dict[tuple[str, str], list[ReviewDecision]] = {}
        for decision in store.records(ReviewDecision):
            item = self.items.get(decision.item_id)
            if item is not None:
                about = (item.interaction_id, item.dimension)
                self.decisions.setdefault(about, []).append(decision)

    def of(self, item: ReviewItem) -> list[ReviewDecision]:
        return self.decisions.get((item.interaction_id, item.dimension), [])

    def open(self, reviewer: str | None, decisions: int) -> list[str]:
        flagged = {
            (i.interaction_id, i.dimension) for i in self.items.values() if i.raised_by != SAMPLE
        }
        waiting = [
            item
            for item in self.items.values()
            if len(self.of(item)) < decisions
            and not (item.raised_by == SAMPLE and (item.interaction_id, item.dimension) in flagged)
            and all(decision.reviewer != reviewer for decision in self.of(item))
        ]
        waiting.sort(key=lambda item: (item.priority != "safety", item.created_at))
        return [item.id for item in waiting]

    def unreviewed(self) -> set[str]:
        return {
            item.interaction_id
            for item in self.items.values()
            if item.dimension == SAFETY and item.raised_by != SAMPLE and not self.of(item)
        }

    def to_queue(self, flags: Iterable[Flag]) -> set[str]:
        flagged = {flag.interaction_id for flag in flags}
        return {
            key
            for key in flagged
            if not self.decisions.get((key, SAFETY))
            and derive_id("review", key, SAFETY) not in self.items
        }

    def to_draw(self, keys: Iterable[str], share: float) -> list[str]:
        taken = {item.interaction_id for item in self.items.values() if item.dimension == SAFETY}
        limit = share * 16**13
        return [
            key
            for key in keys
            if key not in taken and int(digest(["review-sample", key])[:13], 16) < limit
        ]


def check_against_the_whole(store: EventStore) -> None:
    whole = WholeQueue(store)
    for reviewer in (None, "ann", "bob"):
        for decisions in (1, 2, 3):
            found = open_items(store, reviewer=reviewer, decisions=decisions)
            wanted = whole.open(reviewer, decisions)
            assert [item.id for item in found] == wanted
            assert all(item == whole.items[item.id] for item in found)
            first = open_items(store, reviewer=reviewer, decisions=decisions, limit=2)
            assert [item.id for item in first] == wanted[:2]
    assert open_safety_ids(store) == whole.unreviewed()
    assert unreviewed_safety(store, KEYS[:4]) == whole.unreviewed() & set(KEYS[:4])
    waiting = [whole.items[key] for key in whole.open(None, 1)]
    by_source = Counter((i.priority != "safety", i.raised_by, i.dimension) for i in waiting)
    found_by = {(s.rank, s.raised_by, s.dimension): s.waiting for s in sources_waiting(store)}
    assert found_by == by_source


_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)
_sources = st.sampled_from(["rule-1", "rule-2", REPORT])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("flag"), _keys, _sources),
        st.tuples(st.just("sample"), _keys, st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("decide"), st.integers(0, 9), st.sampled_from(["ann", "bob"])),
        st.tuples(st.just("other"), st.sampled_from(KEYS), st.sampled_from(["safety", "normal"])),
        st.tuples(st.just("orphan"), st.sampled_from(KEYS), st.just("ann")),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=30)
@given(steps=_steps)
def test_any_course_of_flags_samples_and_decisions_gives_what_the_whole_journal_says(
    steps: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("queue") / "store.db"
    store = EventStore.open(f"sqlite:///{path}")
    store.add_interactions([answered(key) for key in KEYS])
    for number, (what, which, how) in enumerate(steps):
        now = NOW + timedelta(minutes=number // 2)  # some at the same moment
        whole = WholeQueue(store)
        if what == "flag":
            flags = [Flag(how, key, "privacy", f"seen {number}") for key in which]
            queued = {item.interaction_id for item in queue_flags(store, flags, now=now).items}
            assert queued == whole.to_queue(flags)
        elif what == "sample":
            drawn = queue_sample(store, which, share=how, now=now)
            assert [item.interaction_id for item in drawn] == whole.to_draw(which, how)
        elif what == "other":
            item = other_item(which, how, now)
            store.append(item) if item.id not in whole.items else None
        elif what == "orphan":  # a decision that is there before its item
            late = ReviewDecision(
                id=f"late-{which}", created_at=NOW, item_id=derive_id("review", which, SAFETY),
                label="fine", reviewer=how,
            )  # fmt: skip
            store.append(late)
        else:
            items = list(whole.items.values())
            item = items[which % len(items)] if items else None
            label = "3" if item and item.dimension == "helpfulness" else "fine"
            if item and all(decision.reviewer != how for decision in whole.of(item)):
                decide(store, item.id[:10], label, reviewer=how, now=now)
            elif item:
                with pytest.raises(InvalidInputError, match="second decision"):
                    decide(store, item.id, label, reviewer=how, now=now)
        if number % 4 == 3 or number == len(steps) - 1:
            check_against_the_whole(store)
    store.close()


def other_item(key: str, priority: Any, now: datetime) -> ReviewItem:
    return ReviewItem(
        id=derive_id("review", key, "helpfulness"),
        created_at=now,
        interaction_id=key,
        dimension="helpfulness",
        priority=priority,
        raised_by="judge-1",
        why="close to the line",
    )


def some_queue(store: EventStore, items: int = 40) -> None:
    keys = [f"i-{number}" for number in range(items)]
    store.add_interactions([answered(key) for key in keys])
    queue_flags(store, [Flag("rule-1", key, "privacy", "seen") for key in keys[::2]], now=NOW)
    queue_sample(store, keys, share=0.5, now=NOW)
    waiting = open_items(store)
    for item in waiting[::3]:
        decide(store, item.id, "violation", reviewer="ann", now=NOW)
    decide(store, waiting[0].id, "fine", reviewer="bob", now=NOW)
    store.append(other_item("i-1", "normal", NOW))
    # a sample first, flagged afterwards
    sampled = next(item for item in open_items(store) if item.raised_by == SAMPLE)
    queue_flags(store, [Flag("rule-2", sampled.interaction_id, "leak", "seen")], now=NOW)


def test_the_queue_of_an_older_store_is_moved_into_its_tables(
    open_store: Callable[[], EventStore],
) -> None:
    store = open_store()
    some_queue(store)
    columns = [c for c in REVIEW_ITEMS.c if c.name not in ("position", "share", "sample_day")]
    kept = sa.select(*columns).order_by(REVIEW_ITEMS.c.position)
    given = sa.select(REVIEW_DECISIONS).order_by(REVIEW_DECISIONS.c.position)
    with store._engine.begin() as connection:
        before = [connection.execute(query).all() for query in (kept, given)]
        for table in (REVIEW_ITEMS, REVIEW_DECISIONS):
            table.drop(connection)
        connection.execute(sa.text("DELETE FROM schema_migrations WHERE name LIKE '0014%'"))
    moved = open_store()
    with moved.reading() as connection:
        assert [connection.execute(query).all() for query in (kept, given)] == before
    assert len(before[0]) > 30
    check_against_the_whole(moved)


# What is read -------------------------------------------------------------------------------------


@contextmanager
def plans(store: EventStore) -> Iterator[list[str]]:
    """Collect how SQLite reads each statement that is made meanwhile."""
    found: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, __: Any, many: bool) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE")) and not many:
            steps = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(str(step[3]) for step in steps)

    sa.event.listen(store._engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", explain)


def test_nothing_that_a_pass_a_reviewer_or_a_list_asks_scans_the_queue(tmp_path: Path) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    some_queue(store)
    store.append(usable("rule-1"))
    flags = [Flag("rule-1", key, "privacy", "seen") for key in KEYS]
    event = {"id": "r", "interaction_id": "i-3", "created_at": NOW, "value": True}
    store.add_feedback([FEEDBACK.validate_python({**event, "kind": "safety_violation"})])
    with plans(store) as read:
        queue_flags(store, flags, now=NOW)
        queue_sample(store, KEYS, share=1.0, now=NOW, a_day=50)
        count_unflagged(store, "rule-1", [answered(key) for key in KEYS], flags)
        user_reports(store, Window(START, NOW))
        (first, *_) = open_items(store, limit=1)
        decide(store, first.id[:8], "fine", reviewer="bob", now=NOW)
        open_items(store, reviewer="bob", decisions=2, limit=5)
        first_page(store, most=3)
        unreviewed_safety(store, KEYS)
        open_safety_ids(store)
        validate_flags(store, "rule-1", looked_at=KEYS, flags=flags, now=NOW)
    assert any("review_items" in step for step in read)
    # a sum over a page's rows, or over a list that was sent, is no table; of who is forgotten one
    # row is read; the groups of people who decided the same are few
    harmless = ("CONSTANT", "SCAN forgotten", "SCAN groups", "SCAN sent")
    scans = [step for step in read if step.startswith("SCAN")]
    scans = [step for step in scans if not any(one in step for one in harmless)]
    assert scans == []
    store.close()


def test_what_is_asked_about_an_interaction_is_found_by_it_and_not_in_the_queue(
    tmp_path: Path,
) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    some_queue(store)
    with plans(store) as read:
        outcomes_about(store, KEYS[:1], SAFETY)
        waiting_about(store, KEYS[:1], SAFETY)
        decisions_about(store, KEYS[:1], SAFETY)
    found = [step for step in read if "review_items" in step]
    assert len(found) == 4  # an outcome asks what was decided, and of that what waits for more
    assert all("(interaction_id=? AND dimension=?)" in step for step in found)
    store.close()


# The random sample --------------------------------------------------------------------------------


def day_of(number: int, size: int, day: datetime) -> list[Interaction]:
    step = timedelta(days=1) / size
    return [answered(f"d{number}-{i}", day + step * i) for i in range(size)]


MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


@settings(max_examples=8)
@given(passes=st.integers(1, 12), backwards=st.booleans())
def test_which_answers_of_a_day_are_drawn_does_not_depend_on_the_passes(
    passes: int, backwards: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path_factory.mktemp('day') / 'store.db'}")
    store.add_interactions(day_of(0, 1_000, MIDNIGHT - timedelta(days=1)))
    today = day_of(1, 1_000, MIDNIGHT)
    store.add_interactions(today)
    keys = [answer.id for answer in today]
    parts = [keys[start::passes] for start in range(passes)]
    for part in (*parts[:: -1 if backwards else 1], *parts):  # the last time they are known
        queue_sample(store, part, share=0.2, now=NOW, a_day=60)
    drawn = {item.interaction_id for item in store.records(ReviewItem)}
    # 60 / 2 of the 1,000 answers of the day before
    wanted = {k for k in keys if int(digest(["review-sample", k])[:13], 16) < 0.03 * 16**13}
    assert drawn == wanted
    assert {raised.share for raised in raised_about(store, keys, SAFETY)} == {0.03}
    store.close()


def test_a_day_of_far_more_answers_than_the_one_before_stops_at_the_limit(
    store: EventStore,
) -> None:
    store.add_interactions(day_of(0, 50, MIDNIGHT - timedelta(days=1)))
    first, rest = (lambda day: (day[:20], day[20:]))(day_of(1, 2_000, MIDNIGHT))
    store.add_interactions(first)
    now = MIDNIGHT + timedelta(minutes=20)
    queue_sample(store, [a.id for a in first], share=0.5, now=now, a_day=30)
    store.add_interactions(rest)
    for start in range(0, len(rest), 100):
        part = [answer.id for answer in rest[start : start + 100]]
        queue_sample(store, part, share=0.5, now=now, a_day=30)
    items = store.records(ReviewItem)
    assert len(items) == 30
    # fixed by the 50 of yesterday: 30 / 100
    shares = {
        raised.share for raised in raised_about(store, (i.interaction_id for i in items), SAFETY)
    }
    assert shares == {0.3}
    assert [day.answers for day in store.records(SampledDay)] == [50]


def test_a_day_that_is_all_there_when_it_is_first_looked_at_counts_on_itself(
    store: EventStore,
) -> None:
    store.add_interactions(day_of(0, 4_000, MIDNIGHT))
    keys = [f"d0-{number}" for number in range(4_000)]
    drawn = queue_sample(store, keys, share=0.02, now=NOW, a_day=50)
    assert store.records(SampledDay)[0].answers == 4_000
    # 25 are expected, with a standard deviation of 5
    assert 25 - 4 * 5 < len(drawn) <= 50


def test_without_a_limit_the_share_is_the_one_that_is_given(store: EventStore) -> None:
    store.add_interactions(day_of(0, 100, MIDNIGHT))
    queue_sample(store, [f"d0-{n}" for n in range(100)], share=0.5, now=NOW)
    assert {r.share for r in raised_about(store, [f"d0-{n}" for n in range(100)], SAFETY)} == {0.5}
    assert store.records(SampledDay) == ()
