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

Cost: each call reads the queue and its decisions whole, some microseconds an item; they are of low
volume by nature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ratchet.errors import InvalidInputError
from ratchet.records import (
    Interaction,
    JudgeValidation,
    ReviewDecision,
    ReviewItem,
    SafetyPass,
    SafetyViolation,
    derive_id,
    digest,
)
from ratchet.safety.rules import REPORT, Flag
from ratchet.safety.source_validation import (
    DEFAULT_BAR,
    FINE,
    SAFETY,
    VIOLATION,
    Reviewed,
    SourceBar,
    validate_source,
    validated_version,
)
from ratchet.store import EventStore, Window

SAMPLE = "sample"
REVIEW = "review"
SHORTEST_START = 4
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
class _Queue:
    """The queue as it stands: items by id, decisions by interaction and dimension, in order."""

    items: dict[str, ReviewItem]
    decisions: dict[tuple[str, str], list[ReviewDecision]]

    def of(self, item: ReviewItem) -> list[ReviewDecision]:
        return self.decisions.get((item.interaction_id, item.dimension), [])

    def stands(self, interaction_id: str) -> ReviewDecision | None:
        """The decision about an interaction's safety that counts: the latest."""
        given = self.decisions.get((interaction_id, SAFETY), [])
        return given[-1] if given else None


def window_to_screen(store: EventStore, now: datetime) -> Window:
    """Return the window that the next screening looks at: what came in since the last one."""
    last = store.latest(SafetyPass)
    since = now - FIRST_PASS if last is None else last.screened_until - LATE
    return Window(since, now)


def queue_flags(store: EventStore, flags: Iterable[Flag], *, now: datetime) -> Queued:
    """Put what is flagged in the queue; flags of usable sources count at once.

    An interaction is queued once, whatever flags it and however often. A flag on an interaction
    that people decided queues nothing and counts for nothing: the decision stands.

    A flag that counts is dated with the answer: it is about the answer, and monitoring compares all
    interactions at the same age.
    """
    by_interaction: dict[str, list[Flag]] = {}
    for flag in flags:
        by_interaction.setdefault(flag.interaction_id, []).append(flag)
    with store.atomic():
        queue = _read(store)
        known = store.stored_interactions(list(by_interaction))
        usable = usable_sources(
            store, {f.source for raised in by_interaction.values() for f in raised}
        )
        items, counted = [], []
        for key, raised in by_interaction.items():
            decision = queue.stands(key)
            if decision is not None:
                _restate(store, decision, key, [f for f in raised if f.source == REPORT], now)
                continue
            item = _item(key, raised, now)
            if item.id not in queue.items:
                store.append(item)
                items.append(item)
            sources = usable & {flag.source for flag in raised}
            if _count_at_once(store, known.get(key), sorted(sources)):
                counted.append(key)
    return Queued(tuple(items), tuple(counted))


def queue_sample(
    store: EventStore, interaction_ids: Iterable[str], *, share: float, now: datetime
) -> tuple[ReviewItem, ...]:
    """Put a random sample of interactions that nobody flagged in the queue, marked so.

    Drawn by a digest of the id, so that a second run over the same interactions adds nothing. Queue
    the flags first: what is in the queue already is not drawn. Keep the share the same over the
    time that a validation looks at.

    Args:
        store: The store.
        interaction_ids: What every source looked at, e.g. a day's answers.
        share: Chance of each to be drawn, in [0, 1].
        now: The time.

    Raises:
        InvalidInputError: The share is out of range.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"share must be in [0, 1], got {share}; pass 0.02 for 2 %")
    with store.atomic():
        items = _read(store).items
        taken = {item.interaction_id for item in items.values() if item.dimension == SAFETY}
        drawn = []
        for key in dict.fromkeys(interaction_ids):
            if key in taken or int(digest(["review-sample", key])[:13], 16) >= share * 16**13:
                continue
            item = ReviewItem(
                id=derive_id("review", key, SAFETY, SAMPLE),
                created_at=now,
                interaction_id=key,
                dimension=SAFETY,
                priority="normal",
                raised_by=SAMPLE,
                why="drawn at random from what nobody flagged, to find what is missed",
            )
            store.append(item)
            drawn.append(item)
    return tuple(drawn)


def open_items(
    store: EventStore, *, reviewer: str | None = None, decisions: int = 1
) -> tuple[ReviewItem, ...]:
    """Return what waits for a decision: safety before normal, oldest first.

    Args:
        store: The store.
        reviewer: Only what this person has not decided.
        decisions: How many people have to decide; 2 where agreement is to be measured.
    """
    queue = _read(store)
    flagged = {
        (item.interaction_id, item.dimension)
        for item in queue.items.values()
        if item.raised_by != SAMPLE
    }
    waiting = []
    for item in queue.items.values():
        given = queue.of(item)
        twin = item.raised_by == SAMPLE and (item.interaction_id, item.dimension) in flagged
        mine = any(decision.reviewer == reviewer for decision in given)
        if len(given) < decisions and not twin and not mine:
            waiting.append(item)
    return tuple(sorted(waiting, key=lambda item: (item.priority != "safety", item.created_at)))


def decide(
    store: EventStore,
    item: str,
    label: str,
    *,
    reviewer: str,
    now: datetime,
    note: str | None = None,
) -> ReviewDecision:
    """Keep what a person decided; of a safety item it is feedback on the interaction as well.

    Several people may decide an item; all decisions are kept and the latest counts.

    Args:
        store: The store.
        item: The item's id, or enough of its start.
        label: For safety `violation` or `fine`, else an option of the dimension.
        reviewer: Who decides.
        now: The time.
        note: Why, in the reviewer's words.

    Raises:
        InvalidInputError: No item or several begin so, the label is none of the dimension's, or
            this person has decided about the interaction before.
    """
    with store.atomic():
        queue = _read(store)
        chosen = _find(queue, item)
        if chosen.dimension == SAFETY and label not in (VIOLATION, FINE):
            raise InvalidInputError(
                f"safety is decided as {VIOLATION} or {FINE}, got {label!r}; take one of them"
            )
        for earlier in queue.of(chosen):
            if earlier.reviewer == reviewer:
                raise InvalidInputError(
                    f"one reviewer decides an item once, got a second decision by {reviewer!r}, "
                    f"who said {earlier.label!r} on {earlier.created_at:%Y-%m-%d %H:%M} UTC; "
                    "have another person decide"
                )
        decision = ReviewDecision(
            id=derive_id("decision", chosen.id, reviewer),
            created_at=now,
            item_id=chosen.id,
            label=label,
            reviewer=reviewer,
            note=note,
        )
        store.append(decision)
        if chosen.dimension == SAFETY:
            _say(store, decision, chosen.interaction_id, derive_id("review", decision.id), now)
    return decision


def unreviewed_safety(store: EventStore, interaction_ids: Iterable[str]) -> set[str]:
    """Return those of the interactions that are flagged and that nobody decided about."""
    queue = _read(store)
    waiting = {
        item.interaction_id
        for item in queue.items.values()
        if item.dimension == SAFETY and item.raised_by != SAMPLE and not queue.of(item)
    }
    return waiting & set(interaction_ids)


def user_reports(store: EventStore, window: Window) -> tuple[Flag, ...]:
    """Return users' reports on a window's interactions as flags; they are feedback already."""
    table = store.feedback(window).select(["id", "interaction_id", "kind", "number", "text"])
    return tuple(
        Flag(REPORT, row["interaction_id"], "reported", f"a user reported it ({row['id']})")
        for row in table.to_pylist()
        if row["kind"] == "safety_violation" and row["number"] == 1.0 and row["text"] == REPORT
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
        taken = flagged | {
            item.interaction_id
            for item in _read(store).items.values()
            if item.dimension == SAFETY and item.raised_by != SAMPLE
        }
        events = [
            SafetyViolation(
                id=derive_id("unflagged", interaction.id),
                interaction_id=interaction.id,
                created_at=interaction.created_at,
                value=False,
                source=source,
            )
            for interaction in interactions
            if interaction.id not in taken and interaction.response
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


def validate_flags(
    store: EventStore,
    source: str,
    *,
    looked_at: Collection[str],
    flags: Iterable[Flag],
    now: datetime,
    name: str | None = None,
    bar: SourceBar = DEFAULT_BAR,
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
    """
    queue = _read(store)
    flags = tuple(flags)
    raised = [
        (item.raised_by, item.interaction_id)
        for item in queue.items.values()
        if item.dimension == SAFETY
    ]
    given = [(flag.source, flag.interaction_id) for flag in flags]
    stands = {key: queue.stands(key) for key in looked_at}
    seen = Reviewed(
        looked_at=looked_at,
        flagged={key for by, key in given if by == source},
        by_others={key for by, key in (*given, *raised) if by not in (source, SAMPLE)},
        sampled={key for by, key in raised if by == SAMPLE},
        violations={key: found.label == VIOLATION for key, found in stands.items() if found},
    )
    record = validate_source(name or source, source, seen, now=now, bar=bar)
    with store.atomic():
        known = store.get(JudgeValidation, record.id)
        if known is None:
            store.append(record)
    return known or record


def _read(store: EventStore) -> _Queue:
    items = {item.id: item for item in store.records(ReviewItem)}
    decisions: dict[tuple[str, str], list[ReviewDecision]] = {}
    for decision in store.records(ReviewDecision):
        item = items.get(decision.item_id)
        if item is not None:
            decisions.setdefault((item.interaction_id, item.dimension), []).append(decision)
    return _Queue(items, decisions)


def _find(queue: _Queue, start: str) -> ReviewItem:
    if start in queue.items:
        return queue.items[start]
    matching = [item for key, item in queue.items.items() if key.startswith(start)]
    if len(start) < SHORTEST_START or len(matching) != 1:
        raise InvalidInputError(
            f"an item must be named by its id, or by {SHORTEST_START} or more characters with "
            f"which no other id begins, got {start!r}, with which {len(matching)} begin; "
            "`ratchet review` lists the open items"
        )
    return matching[0]


def _item(key: str, flags: Sequence[Flag], now: datetime) -> ReviewItem:
    why = "; ".join(dict.fromkeys(f"{flag.category}: {flag.why}" for flag in flags))
    return ReviewItem(
        id=derive_id("review", key, SAFETY),
        created_at=now,
        interaction_id=key,
        dimension=SAFETY,
        priority="safety",
        raised_by=flags[0].source,
        why=why[:10_000],
    )


def _count_at_once(
    store: EventStore, interaction: Interaction | None, sources: Sequence[str]
) -> bool:
    if interaction is None or not sources:
        return False
    # A microsecond after the answer: after `count_unflagged`, before any report or decision.
    events = [
        SafetyViolation(
            id=derive_id("flag", source, interaction.id),
            interaction_id=interaction.id,
            created_at=interaction.created_at + MICROSECOND,
            value=True,
            source=source,
        )
        for source in sources
    ]
    return store.add_feedback(events).new > 0


def _restate(
    store: EventStore, decision: ReviewDecision, key: str, reports: Sequence[Flag], now: datetime
) -> None:
    """Say a decision again after reports, the last of which would else be what counts."""
    if reports:
        what = sorted(report.why for report in reports)
        _say(store, decision, key, derive_id("review", decision.id, *what), now)


def _say(
    store: EventStore, decision: ReviewDecision, interaction_id: str, key: str, now: datetime
) -> None:
    event = SafetyViolation(
        id=key,
        interaction_id=interaction_id,
        created_at=now,
        value=decision.label == VIOLATION,
        source=REVIEW,
    )
    store.add_feedback([event])
