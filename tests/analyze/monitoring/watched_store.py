"""Traffic of versions with planted rates, and passes over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from ratchet.analyze.monitoring.watch import WatchConfig, watch
from ratchet.records import BoardState, Interaction, Message, Regenerate, Thumbs
from ratchet.store import Window

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ASKED = (Message(role="user", content="Where is my parcel?"),)
CONFIG = WatchConfig(batch_seconds=900, baseline_days=2.0, minimum_hours=24.0, active_days=30.0)
READY = CONFIG.lag  # a pass at `end + READY` takes in all up to `end`
PER_HOUR = 100
RELEASE = MONDAY + 3 * DAY + timedelta(minutes=7)


def fill(store, version, start, hours, **rates):
    """Store what `traffic` gives, in time; return the number of answers."""
    answers, feedback = traffic(version, start, hours, **rates)
    store.add_interactions(answers)
    store.add_feedback(feedback)
    return len(answers)


def traffic(version, start, hours, *, regenerated=0.10, down=0.08, per_hour=PER_HOUR, key=""):
    """Return answers and feedback of a version: all regenerations are observed, 40 % thumbs.

    Latency is 1 s or less.
    """
    rng = np.random.default_rng([int(start.timestamp()), ord(version[-1])])
    size = int(hours * per_hour)
    seconds = np.sort(rng.uniform(0.0, hours * 3_600.0, size))
    seconds[0] = 0.0
    again, thumbs, bad = rng.random((3, size))
    answers, feedback = [], []
    for row in range(size):
        name = f"{version}-{start.timestamp():.0f}-{row}{key}"
        at = start + timedelta(seconds=float(seconds[row]))
        about = {"interaction_id": name, "created_at": at + timedelta(seconds=30)}
        answers.append(
            Interaction(
                id=name, session_id="s", user_id="u", created_at=at, model_version=version,
                messages=ASKED, response="x" * (1 + row % 50), latency_seconds=(row % 100) / 100,
            )
        )  # fmt: skip
        feedback.append(Regenerate(id=f"{name}-r", value=bool(again[row] < regenerated), **about))
        if thumbs[row] < 0.4:
            value = "down" if bad[row] < down else "up"
            feedback.append(Thumbs(id=f"{name}-t", value=value, **about))
    return answers, feedback


def hourly(store, start, hours, config=CONFIG):
    """Run a pass at the end of each hour; return the reports."""
    return [
        watch(store, config, now=start + step * HOUR + READY) for step in range(1, int(hours) + 1)
    ]


def says(report):
    return {verdict.model_version: verdict.says for verdict in report.verdicts}


def window(start, end, version="router/1"):
    return Window(start, end, version)


def board_of(store, version):
    return store.records(BoardState, subject=version, latest=1)[0]
