"""A home of a year for the benchmark `pages`: traffic, a review queue, and all that happened.

A cycle a night with its analysis, training set, candidate and decision, a rollout every ten days
with a look every ten minutes for two days, three alerts a day with their steps, thirty actions of
people a day. One reviewer is far ahead of the others: half of the queue waits for a second person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from ratchet.records import (
    Candidate,
    Cycle,
    CycleEnd,
    KnownAnswer,
    Record,
    Release,
    ReviewDecision,
    ReviewItem,
    Rollout,
    RolloutPlan,
    Routing,
    TrainingSet,
    Variant,
)
from ratchet.records.accounts import AuditEntry
from ratchet.store import EventStore
from ratchet.store.review_rows import copy_reviews, name_deciders
from ratchet.store.rows import chunks, microseconds
from ratchet.store.tables import JOURNAL, REVIEW_DECISIONS, REVIEW_ITEMS
from ratchet.web.accounts import hash_password, new_account
from tests.benchmarks.rows_store import Place, fill
from tests.views.text.test_rollouts import look
from tests.web.filled import alert, analysis, decision

PASSWORD = "correct horse battery"
AHEAD, OTHERS = "ada", ("bob", "cleo", "dan")
"""A reviewer who decided half of the queue, and others who begin."""
CHECKED = 500
"""Known items that each reviewer labelled."""
AGREED = 2_500
"""Items that two people decided."""
MENU = ("1", "2", "3", "4", "5")
SETS = 365


def prepare(place: Place, items: int) -> None:
    """Fill the store of a place: its traffic, a queue of so many items, a year of records."""
    fill(place, 0, place.rows)
    store = EventStore.open(place.url)
    now = datetime.fromtimestamp(place.end / 1e6, UTC)
    for name, role in (
        (AHEAD, "reviewer"),
        *((one, "reviewer") for one in OTHERS),
        ("eve", "admin"),
    ):
        account = new_account(name, role, now=now, password_hash=hash_password(PASSWORD))
        store.add_account(account)
    year = list(_year(now))
    with store.atomic():
        for record in sorted(year, key=lambda one: one.created_at):
            store.append(record)
    _keep(store, _queue(place, items, now))
    store.close()


def _keep(store: EventStore, records: Iterator[Record]) -> None:
    """Store records of the queue as the migration does those of an older store: many at once."""
    rows = (
        {
            "kind": type(one).__name__, "id": one.id, "body": one.canonical(),
            "created_at": microseconds(one.created_at),
            "subject": one.reviewer if isinstance(one, KnownAnswer) else None,
        }
        for one in records
    )  # fmt: skip
    with store.atomic() as connection:
        for chunk in chunks(rows):
            connection.execute(sa.insert(JOURNAL), chunk)
        copy_reviews(connection, JOURNAL, REVIEW_ITEMS, REVIEW_DECISIONS)
        both = sa.update(REVIEW_ITEMS).where(REVIEW_ITEMS.c.decided > 1)
        connection.execute(both.values(state=2))
        name_deciders(connection, REVIEW_ITEMS, REVIEW_DECISIONS)
    if connection.dialect.name == "postgresql":
        with store._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))


def _queue(place: Place, items: int, now: datetime) -> Iterator[Record]:
    rng = np.random.default_rng(3)
    for number in range(items + AGREED):
        begun = now - timedelta(days=2) + timedelta(milliseconds=number)
        known = number < CHECKED
        yield ReviewItem(
            id=f"item-{number:07d}", created_at=begun, dimension="helpfulness", priority="normal",
            interaction_id=f"interaction-{number % place.rows:09d}", raised_by="low_confidence",
            why="chosen", queue="known" if known else "low_confidence", people=2,
            known=MENU[number % 5] if known else None,
        )  # fmt: skip
        labels = rng.choice(MENU, 2)
        if known:
            yield KnownAnswer(
                id=f"known-{number}", created_at=begun, item_id=f"item-{number:07d}",
                dimension="helpfulness", label=str(labels[0]), right=MENU[number % 5],
                reviewer=AHEAD,
            )  # fmt: skip
            continue
        agreed = number < AGREED + CHECKED
        people: Sequence[str] = (AHEAD, OTHERS[number % 3]) if agreed else (AHEAD,)
        for reviewer, label in zip(people if number < items // 2 else (), labels, strict=False):
            yield ReviewDecision(
                id=f"said-{reviewer}-{number}", created_at=begun, item_id=f"item-{number:07d}",
                label=str(label), reviewer=reviewer,
            )  # fmt: skip


def _year(now: datetime) -> Iterator[Record]:
    rng = np.random.default_rng(4)
    for day in range(SETS):
        at = now - timedelta(days=SETS - day, hours=3)
        older, newer = f"support-router/{day + 1}", f"support-router/{day + 2}"
        key = f"cycle-{day}"
        yield Cycle(
            id=key, number=day + 1, created_at=at, champion=older, options_digest="o", seed=0,
            window_start=at - timedelta(days=1), window_end=at, example_set_id="held-out",
        )  # fmt: skip
        yield _analysis(key, at, older, rng)
        yield TrainingSet(
            id=f"set-{day}", cycle_id=key, created_at=at + timedelta(minutes=1), digest=f"{day:x}",
            path=f"datasets/{day}", size=30_000, funnel=(("interactions", 480_000),),
        )  # fmt: skip
        yield Candidate(
            id=f"candidate-{day}", cycle_id=key, created_at=at + timedelta(minutes=2),
            model_name="support-router", version=str(day + 2), adapter_digest="d" * 64, path="x",
            training_set_id=f"set-{day}", run_id=f"run-{day}", training_seconds=900.0,
            losses=tuple(float(one) for one in rng.random(200)),
        )  # fmt: skip
        changes: dict[str, Any] = {"champion": older, "challenger": newer, "cycle_id": key}
        waits = None if day < SETS - 3 else "the policy asks for a person"
        yield decision(at + timedelta(minutes=3), id=f"decision-{day}", approval=waits, **changes)
        yield Release(
            id=f"release-{day}", created_at=at + timedelta(minutes=4), action="promote",
            champion=newer, previous=older, decision_id=f"decision-{day}",
        )  # fmt: skip
        yield CycleEnd(id=key, created_at=at + timedelta(minutes=5), outcome="finished")
        yield from _alerts(day, at)
        yield from _actions(day, at)
        if day % 10 == 0:
            yield from _rollout(day, at, older, newer)
    last = Variant(version=f"support-router/{SETS + 1}", share=1.0, name="champion")
    yield Routing(id="routing", created_at=now, experiment="none", variants=(last,))


def _analysis(key: str, at: datetime, version: str, rng: np.random.Generator) -> Record:
    """An analysis with as many metrics and clusters as one of real traffic has."""
    down, copied = 0.1 + 0.1 * rng.random(), 0.3 * rng.random()
    made = analysis(f"analysis-{key}", at, version, down, copied)
    metrics = [
        made.metrics[0].model_copy(update={"name": f"{made.metrics[0].name} {number}"})
        for number in range(20)
    ]
    clusters = [
        made.clusters[0].model_copy(update={"id": f"cluster-{number}", "name": f"topic {number}"})
        for number in range(12)
    ]
    return made.model_copy(
        update={"metrics": (*made.metrics, *metrics), "clusters": tuple(clusters), "cycle_id": key}
    )


def _alerts(day: int, at: datetime) -> Iterator[Record]:
    for number in range(3):
        key, begun = f"alert-{day}-{number}", at + timedelta(hours=4 * number)
        last = day >= SETS - 3
        steps = ("opened", "updated") if last else ("opened", "updated", "acknowledged", "resolved")
        for place, change in enumerate(steps):
            moment = begun + timedelta(minutes=20 * place)
            yield alert(key, moment, id=f"{key}-{change}", change=change)


def _actions(day: int, at: datetime) -> Iterator[Record]:
    for number in range(30):
        yield AuditEntry(
            id=f"audit-{day}-{number}", created_at=at + timedelta(minutes=number), by="eve",
            action="acknowledge", about=f"alert-{day}-0", reason="I look after it",
        )  # fmt: skip


def _rollout(day: int, at: datetime, older: str, newer: str) -> Iterator[Record]:
    plan = RolloutPlan()
    yield Rollout(
        id=f"rollout-{day}", created_at=at, plan=plan, signals=plan.signals[:2],
        champion=Variant(version=older, share=0.95, name="champion"),
        challenger=Variant(version=newer, share=0.05, name="challenger"),
    )  # fmt: skip
    for number in range(288):
        moment = at + timedelta(minutes=10 * (number + 1))
        changes = {
            "id": f"look-{day}-{number}",
            "rollout_id": f"rollout-{day}",
            "number": number + 1,
        }
        changes |= {"model_version": newer, "created_at": moment, "until": moment}
        changes["decision"] = "promote" if number == 287 else "wait"
        yield look().model_copy(update=changes)
