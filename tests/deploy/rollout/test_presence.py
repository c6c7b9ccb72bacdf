"""A rollout of an application that sends `regenerate` only when it happens."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.deploy.rollout.canary import start_rollout, take_look
from ratchet.deploy.routing import current_routing
from ratchet.errors import InsufficientDataError
from ratchet.records import Regenerate, RolloutPlan, Routing, WatchedSignal
from ratchet.store import EventStore, Window
from tests.deploy.rollout.served import NEW_VARIANT, PLAN, released, serve
from tests.store.reported_store import declare

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
FAR = NOW + timedelta(days=400)
REGENERATED = RolloutPlan(
    stages=PLAN.stages,
    signals=(
        WatchedSignal(name="thumbs_down", margin=0.05, primary=True),
        WatchedSignal(name="regenerated", margin=0.05),
        WatchedSignal(name="failed", margin=0.02),
    ),
)


class YesAlone:
    """A store that loses the noes, as a page that never sends them."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def add_feedback(self, feedback):
        sent = [item for item in feedback if not isinstance(item, Regenerate) or item.value]
        return self._store.add_feedback(sent)


@pytest.fixture
def store(tmp_path, made_store):
    shutil.copyfile(made_store, tmp_path / "store.db")
    opened = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}", clock=lambda: FAR)
    yield opened
    opened.close()


def worse(store, routing: Routing, start: datetime, *, number: int, rate: float) -> None:
    """Regenerations of the challenger's answers that come on top."""
    rng = np.random.default_rng(7)
    rows = store.interactions(Window(start, start + timedelta(days=2), NEW_VARIANT.version))
    rows = rows.to_pylist()[:number]
    store.add_feedback(
        [
            Regenerate(
                id=f"more {row['id']}", interaction_id=row["id"], value=True,
                created_at=row["created_at"] + timedelta(seconds=40),
            )
            for row in rows
            if rng.random() < rate
        ]
    )  # fmt: skip


def rolled_out(store, *, rate: float, hours: float = 10.0):
    rollout = start_rollout(store, NEW_VARIANT, REGENERATED, now=NOW)
    routing = current_routing(store)
    serve(YesAlone(store), routing, NOW, hours=hours, number=4_000, users=1_500)
    worse(store, routing, NOW, number=4_000, rate=rate)
    return rollout, take_look(store, rollout, NOW + timedelta(hours=hours))


def test_presence_alone_is_not_watched_and_aborts_nothing(store):
    released(YesAlone(store), NOW)
    rollout, look = rolled_out(store, rate=0.4)
    assert [signal.name for signal in rollout.signals] == ["thumbs_down", "failed"]
    ((name, reason),) = rollout.unwatched
    assert name == "regenerated"
    assert reason.startswith("known within 300 s of 0 answers of the last 7 days: application all")
    assert look.decision != "abort"


def test_an_application_that_stops_sending_noes_during_a_rollout_aborts_nothing(store):
    """The application sent noes before, and a page that replaced its own sends the yes alone."""
    released(store, NOW)
    rollout = start_rollout(store, NEW_VARIANT, REGENERATED, now=NOW)
    assert "regenerated" in [signal.name for signal in rollout.signals]
    serve(YesAlone(store), current_routing(store), NOW, hours=10, number=4_000, users=1_500)
    look = take_look(store, rollout, NOW + timedelta(hours=10))
    assert look.decision != "abort"


def test_a_declared_signal_is_watched_and_its_harm_aborts(store):
    declare(store, "regenerate", application="all", since=NOW - timedelta(days=10))
    released(YesAlone(store), NOW)
    rollout, look = rolled_out(store, rate=0.4)
    assert "regenerated" in [signal.name for signal in rollout.signals]
    assert look.decision == "abort"
    assert any("regenerated" in reason for reason in look.reasons)


def test_a_declared_signal_without_harm_aborts_nothing(store):
    declare(store, "regenerate", application="all", since=NOW - timedelta(days=10))
    released(YesAlone(store), NOW)
    _, look = rolled_out(store, rate=0.0)
    assert look.decision != "abort"
    (readout,) = [item for item in look.readouts if item.signal == "regenerated"]
    assert readout.control[1] > 2_000  # every answer is known, not only those with a yes
    assert readout.rates[0] == pytest.approx(0.1, abs=0.03)  # planted: 10 %


def test_a_primary_signal_of_presence_alone_names_the_way_out(store):
    released(YesAlone(store), NOW)
    signals = (WatchedSignal(name="regenerated", margin=0.05, primary=True),)
    plan = RolloutPlan(stages=PLAN.stages, signals=signals)
    with pytest.raises(InsufficientDataError, match="ratchet signals declare regenerate"):
        start_rollout(store, NEW_VARIANT, plan, now=NOW)
