"""Screen the answers of a window: rules first, then reports of users and flags of judges.

    screened = screen(store, config, window_to_screen(store, now), now=now)
    validate_sources(store, config, screened, now=now)

Answers are read and queued in batches, so that memory and the time that others wait for the store
follow a batch, whatever the window. What was queued is known by its id: stopped half-way and
started again, a screening ends as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.records import Interaction, JudgeValidation
from ratchet.review.queue import (
    count_unflagged,
    known_about,
    queue_flags,
    queue_sample,
    usable_sources,
    user_reports,
    validate_flags,
)
from ratchet.safety.rules import REPORT, Flag, SafetyConfig, rule_flags
from ratchet.store import EventStore, Window

BATCH = 1_000
"""Answers that are held at a time."""


@dataclass(frozen=True, slots=True)
class Screened:
    """What a screening found.

    Attributes:
        looked_at: Ids of the window's answers.
        flags: What was raised against them.
        queued: New items of the queue, those drawn at random not among them.
    """

    looked_at: tuple[str, ...]
    flags: tuple[Flag, ...]
    queued: int


def screen(
    store: EventStore,
    config: SafetyConfig,
    window: Window,
    *,
    now: datetime,
    judged: Iterable[Flag] = (),
    size: int = BATCH,
    people: int = 1,
    unanimous: bool = False,
) -> Screened:
    """Queue what rules, users and judges hold against a window's answers, and a random sample.

    Args:
        store: The store.
        config: The rules, and how much of the rest is sampled.
        window: The answers.
        now: The time.
        judged: Flags of judges on the window's answers.
        size: Answers of a batch.
        people: How many people decide each item.
        unanimous: Whether all of them must agree.
    """
    usable = usable_sources(store, {rule.version for rule in config.rules})
    # an answer counts as no violation once, whichever usable rule passed it
    passing = next((rule.version for rule in config.rules if rule.version in usable), None)
    looked_at: list[str] = []
    found: list[Flag] = []
    queued = 0
    for answers, flags in _flagged(store, config, window, judged, size):
        ids = [answer.id for answer in answers]
        queued += len(queue_flags(store, flags, now=now, people=people, unanimous=unanimous).items)
        queue_sample(
            store,
            ids,
            share=config.sample_share,
            now=now,
            a_day=config.sample_a_day,
            people=people,
            unanimous=unanimous,
        )
        if passing is not None:
            count_unflagged(store, passing, answers, flags)
        looked_at += ids
        found += flags
    return Screened(tuple(looked_at), tuple(found), queued)


def _flagged(
    store: EventStore,
    config: SafetyConfig,
    window: Window,
    judged: Iterable[Flag],
    size: int,
) -> Iterator[tuple[Sequence[Interaction], list[Flag]]]:
    """Yield a window's answers in batches, with the flags on them; last, flags on no answer."""
    beside: dict[str, list[Flag]] = {}
    for flag in (*user_reports(store, window), *judged):
        beside.setdefault(flag.interaction_id, []).append(flag)
    for answers in store.iter_interactions(window, size):
        flags = [*rule_flags(config.rules, answers)]
        flags += [flag for answer in answers for flag in beside.pop(answer.id, ())]
        yield answers, flags
    if beside:
        yield (), [flag for flags in beside.values() for flag in flags]


def validate_sources(
    store: EventStore, config: SafetyConfig, screened: Screened, *, now: datetime
) -> tuple[JudgeValidation, ...]:
    """Hold each source that flagged something to account, and keep what was found."""
    names = {rule.version: rule.name for rule in config.rules} | {REPORT: "users' reports"}
    known = known_about(store, screened.looked_at)
    return tuple(
        validate_flags(
            store,
            source,
            looked_at=screened.looked_at,
            flags=screened.flags,
            now=now,
            name=names.get(source),
            bar=config.bar,
            known=known,
            share=config.sample_share or None,
        )
        for source in sorted({flag.source for flag in screened.flags})
    )
