"""The review queue: what a person has to look at, and what follows from the decision.

    flags = (*rule_flags(config.rules, interactions), *user_reports(store, window))
    queue_flags(store, flags, now=now)
    queue_sample(store, ids, share=config.sample_share, now=now)
    decide(store, "3f2a", "violation", reviewer="ann", now=now)
    validate_flags(store, source, looked_at=ids, flags=flags, now=now)

What is flagged goes to people first. A flag becomes a `safety_violation` of its own only where the
flags of its source, in this version, were found usable; any other touches no signal until somebody
decides. A decision is feedback with source `review`, and since the latest feedback counts, a
reviewer's `fine` overrules a flag, also one that comes later.

A random sample of what nobody flagged is reviewed as well: it tells what the sources miss.

Cost: each call follows what it is given (flags, ids, a page), however long the queue: see
`ratchet.store.review_items`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Interaction,
    JudgeValidation,
    ReviewItem,
    SafetyPass,
    SafetyViolation,
    SampledDay,
    derive_id,
    draw_of,
    spoken,
)
from ratchet.review.deciding import REVIEW as REVIEW
from ratchet.review.deciding import decide as decide
from ratchet.review.deciding import say
from ratchet.safety.rules import REPORT, Flag
from ratchet.safety.source_validation import (
    DEFAULT_BAR,
    SAFETY,
    VIOLATION,
    Reviewed,
    SourceBar,
    validate_source,
    validated_version,
)
from ratchet.store import EventStore, Window
from ratchet.store.arrivals import count_answers
from ratchet.store.review_items import (
    Given,
    Raised,
    count_sampled,
    name_sample,
    open_reviews,
    outcomes_about,
    raised_about,
    reports_in,
    sources_waiting,
    waiting_about,
)
from ratchet.store.review_rows import SAMPLE
from ratchet.store.rows import chunks

logger = logging.getLogger(__name__)

SAFETY_QUEUE = "safety"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_PASS = timedelta(days=1)
"""So far back the first screening looks."""
LATE = timedelta(minutes=10)
"""Answers may arrive so late: the next screening looks at this span again."""


@dataclass(frozen=True, slots=True)
class Queued:
    """What became of flags.

    Attributes:
        items: New items of the queue.
        counted: Interactions that now count as violations, since a usable source flagged them.
    """

    items: tuple[ReviewItem, ...]
    counted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What the queue knows about the safety of some interactions.

    Attributes:
        raised: Its items about them.
        decided: The decision about each that counts, where people decided it.
    """

    raised: tuple[Raised, ...]
    decided: dict[str, Given]


def window_to_screen(store: EventStore, now: datetime) -> Window:
    """Return the window that the next screening looks at: what came in since the last one."""
    last = store.latest(SafetyPass)
    since = now - FIRST_PASS if last is None else last.screened_until - LATE
    return Window(since, now)


def queue_flags(
    store: EventStore,
    flags: Iterable[Flag],
    *,
    now: datetime,
    people: int = 1,
    unanimous: bool = False,
) -> Queued:
    """Put what is flagged in the queue; flags of usable sources count at once.

    An interaction is queued once, whatever flags it and however often. A flag on an interaction
    that people decided queues nothing and counts for nothing: the decision stands.

    A flag that counts is dated with the answer: it is about the answer, and monitoring compares all
    interactions at the same age.

    Args:
        store: The store.
        flags: What is flagged.
        now: The time.
        people: How many people decide each.
        unanimous: Whether all of them must agree.
    """
    by_interaction: dict[str, list[Flag]] = {}
    for flag in flags:
        by_interaction.setdefault(flag.interaction_id, []).append(flag)
    usable = usable_sources(store, {f.source for part in by_interaction.values() for f in part})
    items: list[ReviewItem] = []
    counted: list[str] = []
    for keys in chunks(by_interaction):  # so that no other writer waits for long
        with store.atomic():
            known, times = known_about(store, keys), store.answered_at(keys)
            queued = {item.id for item in known.raised}
            for key in keys:
                raised = by_interaction[key]
                decision = known.decided.get(key)
                if decision is not None:
                    reports = [flag for flag in raised if flag.source == REPORT]
                    _restate(store, decision, reports, now)
                    continue
                item = _item(key, raised, now, people, unanimous)
                if item.id not in queued:
                    store.append(item)
                    items.append(item)
                sources = usable & {flag.source for flag in raised}
                if _count_at_once(store, key, times.get(key), sorted(sources)):
                    counted.append(key)
    return Queued(tuple(items), tuple(counted))


def queue_sample(
    store: EventStore,
    interaction_ids: Iterable[str],
    *,
    share: float,
    now: datetime,
    a_day: int | None = None,
    dimension: str = SAFETY,
    people: int = 1,
    unanimous: bool = False,
) -> tuple[ReviewItem, ...]:
    """Put a random sample of interactions that nobody flagged in the queue, marked so.

    Drawn by a digest of the id, so that a second run over the same interactions adds nothing. Queue
    the flags first: what is in the queue already is not drawn.

    With a limit of `a_day` the share of a day's answers aims at half of it: at `a_day` / 2 N, N
    the answers of the day before, or of the day itself where more of them are there when the first
    of it is looked at. It is then fixed, so that neither the order nor the number of passes
    matters, as long as a day brings less than about twice the answers of the one before. On a day
    that brings more, nothing is drawn once the limit is reached. Each item keeps its chance, by
    which `validate_flags` weighs it.

    Args:
        store: The store.
        interaction_ids: What every source looked at, e.g. a day's answers.
        share: Chance of each to be drawn, in [0, 1]; the greatest, where there is a limit.
        now: The time.
        a_day: So many of the answers of a day (in UTC) at most; None for no limit.
        dimension: What people are asked about them.
        people: How many people decide each.
        unanimous: Whether all of them must agree.

    Raises:
        InvalidInputError: The share is out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"share must be in [0, 1], got {share}; pass 0.02 for 2 %")
    places = {key: draw_of("review-sample", key) for key in interaction_ids}
    candidates = [key for key, place in places.items() if place < share]
    items = []
    for keys in chunks(candidates):
        with store.atomic():
            taken = {item.interaction_id for item in raised_about(store, keys, dimension)}
            fresh = {key: places[key] for key in keys if key not in taken}
            for key, (chance, day) in _drawn(store, fresh, share, a_day, now, dimension).items():
                item = _sample_item(key, dimension, now, people, unanimous)
                store.append(item)
                name_sample(store, item.id, share=chance, day=day)
                items.append(item)
    return tuple(items)


def _drawn(
    store: EventStore,
    places: Mapping[str, float],
    share: float,
    a_day: int | None,
    now: datetime,
    dimension: str,
) -> dict[str, tuple[float, int]]:
    """Return what is drawn, with the chance that each had and the day of its answer."""
    times = store.answered_at(list(places))
    days = {key: (times.get(key, now) - EPOCH).days for key in places}
    chances, room = dict.fromkeys(days.values(), share), dict[int, int]()
    for day in chances if a_day is not None else ():
        assert a_day is not None
        answers = _expected_answers(store, day, now)
        chances[day] = min(share, a_day / (2 * answers))
        room[day] = a_day - count_sampled(store, day, dimension)
    drawn = set()
    for key in sorted(places, key=lambda key: places[key]):
        day = days[key]
        if places[key] < chances[day] and room.get(day, 1) > 0:
            drawn.add(key)
            if day in room:
                room[day] -= 1
    for day in (day for day, left in room.items() if left <= 0):
        date = (EPOCH + timedelta(days=day)).date()
        logger.info("the random sample of the answers of %s is complete: %s", date, a_day)
    return {key: (chances[days[key]], days[key]) for key in places if key in drawn}


def _expected_answers(store: EventStore, day: int, now: datetime) -> int:
    """Return how many answers a day's sample counts on; the first to ask fixes it."""
    start = EPOCH + timedelta(days=day)
    key = derive_id("sampled-day", start.date().isoformat())
    known = store.get(SampledDay, key)
    if known is None:
        one_day = timedelta(days=1)
        answers = max(
            count_answers(store, Window(start - one_day, start)),
            count_answers(store, Window(start, start + one_day)),
            1,
        )
        known = SampledDay(id=key, created_at=now, day=start.date().isoformat(), answers=answers)
        store.append(known)
    return known.answers


def _sample_item(
    key: str, dimension: str, now: datetime, people: int, unanimous: bool
) -> ReviewItem:
    return ReviewItem(
        id=derive_id("review", key, dimension, SAMPLE),
        created_at=now,
        interaction_id=key,
        dimension=dimension,
        priority="normal",
        raised_by=SAMPLE,
        why="drawn at random from what nobody flagged, to find what is missed",
        queue=SAMPLE,
        people=people,
        unanimous=unanimous,
    )


def open_items(
    store: EventStore,
    *,
    reviewer: str | None = None,
    decisions: int | None = None,
    limit: int | None = None,
    queue: str | None = None,
    dimension: str | None = None,
) -> tuple[ReviewItem, ...]:
    """Return what waits for a decision: safety before normal, oldest first.

    Args:
        store: The store.
        reviewer: Only what this person has neither decided nor passed on.
        decisions: What fewer people than this decided, whether it needs more or not; None for
            what needs more.
        limit: So many at most.
        queue: Only what this rule chose.
        dimension: Only what is decided on this dimension.
    """
    found = open_reviews(
        store,
        reviewer=reviewer,
        decisions=decisions,
        limit=limit,
        queue=queue,
        dimension=dimension,
    )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Listed:
    """The first page of what waits.

    Attributes:
        items: Safety before normal, oldest first.
        more: How many more like it the last item of a source stands for, by the item's id.
        waiting: How many wait in all.
    """

    items: tuple[ReviewItem, ...]
    more: Mapping[str, int]
    waiting: int


def first_page(store: EventStore, *, most: int, alike: int = 5) -> Listed:
    """Return the first of what waits for a decision; many flags of one source are shown as such.

    Args:
        store: The store.
        most: So many items at most.
        alike: So many of one source at most, where not all fit.
    """
    sources = sources_waiting(store)
    waiting = sum(source.waiting for source in sources)
    if waiting <= most:
        return Listed(open_items(store), {}, waiting)
    found = [
        (item.priority != "safety", item.created_at, number, item)
        for number, source in enumerate(sources[:most])
        for item in open_reviews(store, source=source, limit=alike)
    ]
    shown = sorted(found, key=lambda place: place[:3])[:most]
    last = {number: item.id for _, _, number, item in shown}
    of_source = Counter(number for _, _, number, _ in shown)
    more = {
        key: sources[number].waiting - of_source[number]
        for number, key in last.items()
        if sources[number].waiting > of_source[number]
    }
    return Listed(tuple(item for *_, item in shown), more, waiting)


def unreviewed_safety(store: EventStore, interaction_ids: Iterable[str]) -> set[str]:
    """Return those of the interactions that are flagged and that nobody decided about."""
    return waiting_about(store, interaction_ids, SAFETY)


def open_safety_ids(store: EventStore) -> set[str]:
    """Return all interactions that are flagged and that nobody decided about."""
    return waiting_about(store, None, SAFETY)


def user_reports(store: EventStore, window: Window) -> tuple[Flag, ...]:
    """Return users' reports on a window's interactions as flags; they are feedback already."""
    return tuple(
        Flag(REPORT, about, "reported", f"a user reported it ({key})")
        for key, about in reports_in(store, window, REPORT)
    )


def count_unflagged(
    store: EventStore, source: str, interactions: Sequence[Interaction], flags: Iterable[Flag]
) -> int:
    """Count what a usable source looked at and nobody flagged as no violation; return how many.

    Without them the rate of violations would be that among flagged answers. They are dated with the
    answer, before any flag, report or decision, and so never overrule one. A source that is not
    usable counts nothing.

    Args:
        store: The store.
        source: Version of a rule or judge.
        interactions: What it looked at.
        flags: Flags of all sources on them.
    """
    if source not in usable_sources(store, {source}):
        return 0
    flagged = {flag.interaction_id for flag in flags}
    with store.atomic():
        raised = raised_about(store, (item.id for item in interactions), SAFETY)
        taken = flagged | {item.interaction_id for item in raised if item.raised_by != SAMPLE}
        events = [
            SafetyViolation(
                id=derive_id("unflagged", interaction.id),
                interaction_id=interaction.id,
                created_at=interaction.created_at,
                value=False,
                source=source,
            )
            for interaction in interactions
            if interaction.id not in taken and spoken(interaction.answer)
        ]
        return store.add_feedback(events).new


def usable_sources(store: EventStore, sources: Collection[str]) -> set[str]:
    """Return those of the sources whose flags count at once: the latest validation says usable."""
    usable = set()
    for source in sources:
        version = validated_version(source)
        latest = store.records(JudgeValidation, latest=1, subject=version)
        if latest and latest[0].decision == "usable":
            usable.add(source)
    return usable


def known_about(store: EventStore, interaction_ids: Iterable[str]) -> Known:
    """Return what the queue knows about the safety of interactions."""
    ids = list(interaction_ids)
    return Known(
        raised=tuple(raised_about(store, ids, SAFETY)),
        decided=outcomes_about(store, ids, SAFETY),
    )


def validate_flags(
    store: EventStore,
    source: str,
    *,
    looked_at: Collection[str],
    flags: Iterable[Flag],
    now: datetime,
    name: str | None = None,
    bar: SourceBar = DEFAULT_BAR,
    known: Known | None = None,
    share: float | None = None,
) -> JudgeValidation:
    """Hold a source's flags against the decisions in the store, and keep what was found.

    The same flags and decisions give the stored validation again.

    Args:
        store: The store.
        source: Version of a rule or judge, or `report`.
        looked_at: Ids of all interactions that the source looked at; all sources' where possible.
        flags: Flags of all sources on them, this one's among them.
        now: The time.
        name: The rule's or judge's name; the source where None.
        bar: What the source has to reach.
        known: What the queue knows about `looked_at`, where it was read already.
        share: Chance to be drawn of what was drawn before each chance was kept, without a limit.
    """
    known = known or known_about(store, looked_at)
    given = [(flag.source, flag.interaction_id) for flag in flags]
    raised = [(item.raised_by, item.interaction_id) for item in known.raised]
    seen = Reviewed(
        looked_at=looked_at,
        flagged={key for by, key in given if by == source},
        by_others={key for by, key in (*given, *raised) if by not in (source, SAMPLE)},
        sampled={key for by, key in raised if by == SAMPLE},
        violations={key: found.label == VIOLATION for key, found in known.decided.items()},
        shares={
            item.interaction_id: chance
            for item in known.raised
            if item.raised_by == SAMPLE and (chance := item.share or share)
        },
    )
    record = validate_source(name or source, source, seen, now=now, bar=bar)
    with store.atomic():
        stored = store.get(JudgeValidation, record.id)
        if stored is None:
            store.append(record)
    return stored or record


def _item(
    key: str, flags: Sequence[Flag], now: datetime, people: int, unanimous: bool
) -> ReviewItem:
    why = "; ".join(dict.fromkeys(f"{flag.category}: {flag.why}" for flag in flags))
    return ReviewItem(
        id=derive_id("review", key, SAFETY),
        created_at=now,
        interaction_id=key,
        dimension=SAFETY,
        priority="safety",
        raised_by=flags[0].source,
        why=why[:10_000],
        queue=SAFETY_QUEUE,
        people=people,
        unanimous=unanimous,
    )


def _count_at_once(
    store: EventStore, key: str, answered_at: datetime | None, sources: Sequence[str]
) -> bool:
    if answered_at is None or not sources:
        return False
    # A microsecond after the answer: after `count_unflagged`, before any report or decision.
    events = [
        SafetyViolation(
            id=derive_id("flag", source, key),
            interaction_id=key,
            created_at=answered_at + MICROSECOND,
            value=True,
            source=source,
        )
        for source in sources
    ]
    return store.add_feedback(events).new > 0


def _restate(store: EventStore, decision: Given, reports: Sequence[Flag], now: datetime) -> None:
    """Say a decision again after reports, the last of which would else be what counts."""
    if reports:
        key = derive_id("review", decision.id, *sorted(report.why for report in reports))
        say(store, decision.label, decision.interaction_id, key, now)
