"""Follow a signal from a JSON line to the report, in a process whose catalogue declares it.

    python -m tests.records.new_signal NAME DATABASE_URL FOLDER

Prints what each stage made of it as one JSON object. There are six answers in two arms of an
experiment, then three days of `m/3` with one bad answer in ten and six hours of `m/4` with six.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.analyze.failures.failed import which_failed, why_failed
from ratchet.analyze.monitoring import DEFAULT_THRESHOLDS, check_thresholds, rate_chart
from ratchet.analyze.monitoring.charts import find_signal, read_window
from ratchet.analyze.monitoring.watch import WatchConfig, recent_metrics, watch
from ratchet.collect.ingest import ingest_file
from ratchet.deploy.rollout.evidence import Errors, read_signal
from ratchet.deploy.rollout.exposure_counts import Period, read_tally
from ratchet.deploy.routing import switch
from ratchet.gateway.schemas import feedback_schema
from ratchet.outcomes.experience import experience_metrics
from ratchet.outcomes.join import join_feedback
from ratchet.outcomes.quality import QualityWeights, quality
from ratchet.records import (
    Baseline,
    Readout,
    Release,
    RolloutPlan,
    SampleRatio,
    Variant,
    VariantReadout,
    VariantTest,
)
from ratchet.records.signals import BY_NAME
from ratchet.store import EventStore, Window
from ratchet.views.text.cycle import render_text
from ratchet.views.text.rollouts import variants_markdown
from ratchet.views.text.timeline import moments_between
from tests.views.text.test_cycle import analysis, report

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, LAG = timedelta(hours=1), timedelta(minutes=5)
WATCH = WatchConfig(batch_seconds=900, baseline_days=2.0, minimum_hours=24.0, active_days=30.0)
EXPERIMENT = Window(START, START + HOUR)
LIVE = START + timedelta(days=1)
"""When `m/3` begins to answer; `m/4` follows after three days."""
GIVEN = {"a1": True, "a2": False, "a3": True, "a4": False, "a5": None, "a6": "yes"}


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of the world; a6 has a value that breaks the record's rule."""
    bad = BY_NAME[name].bad
    for place, (key, given) in enumerate(GIVEN.items()):
        arm = ("champion", "challenger")[place % 2]
        metadata = {"experiment": "e", "arm": arm}
        yield answer(key, f"m/{1 + place % 2}", START + place * timedelta(minutes=5), metadata)
        if given is not None:
            yield event(name, key, given, START + place * timedelta(minutes=5))
    yield event("copy", "a1", True, START)
    for hour in range(78):
        version, bad_ones = ("m/3", 2) if hour < 72 else ("m/4", 12)
        for place in range(20):
            key, moment = f"{hour}-{place}", LIVE + hour * HOUR + place * timedelta(minutes=3)
            yield answer(key, version, moment, {})
            yield event(name, key, bad if (place + hour) % 20 < bad_ones else not bad, moment)


def answer(key: str, version: str, moment: datetime, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "id": key, "session_id": key, "user_id": key, "created_at": moment.isoformat(),
        "model_version": version, "response": "!", "metadata": metadata,
        "messages": [{"role": "user", "content": "?"}],
    }  # fmt: skip


def event(kind: str, key: str, value: object, moment: datetime) -> dict[str, Any]:
    soon = (moment + timedelta(minutes=1)).isoformat()
    about = {"id": f"{key}:{kind}", "interaction_id": key, "created_at": soon}
    return about | {"kind": kind, "value": value}


def follow(name: str, url: str, folder: Path) -> dict[str, Any]:
    store = EventStore.open(url)
    file = folder / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, rows(name))), "utf-8")
    ingested = ingest_file(file, store, now=LIVE + 100 * HOUR)
    found = {
        "set_aside": ingested.set_aside,
        "stored": store.stored_feedback([f"a1:{name}"])[f"a1:{name}"].canonical(),
        "counted": store.counts()[name],
        "columns": store.signals(EXPERIMENT, lag=LAG)[name].to_pylist(),
        "in_the_api": name in json.dumps(feedback_schema()),
    }
    found |= _outcomes(store, name) | _board(store, name) | _rollout(store, name)
    store.close()
    return found


def _outcomes(store: EventStore, name: str) -> dict[str, Any]:
    signal = BY_NAME[name]
    outcomes = join_feedback(store.interactions(EXPERIMENT), store.feedback(EXPERIMENT))
    scored = quality(outcomes, QualityWeights())
    alone = QualityWeights.model_validate({"copied": 0.0, signal.part.name: 1.0})
    metrics = experience_metrics(outcomes, scored)
    everything = Window(START, LIVE + 100 * HOUR, "m/4")
    many = join_feedback(store.interactions(everything), store.feedback(everything))
    failed = which_failed(many, quality(many, QualityWeights()), QualityWeights())
    over = check_thresholds(
        experience_metrics(many, quality(many, QualityWeights())),
        model_version="m/4", cycle_id="c", now=START,
    )  # fmt: skip
    told = report(
        counts=store.counts(), analysis=analysis().model_copy(update={"metrics": metrics})
    )
    return {
        "column": getattr(outcomes, signal.column).tolist(),
        "quality": scored.implicit.tolist(),
        "quality_alone": quality(outcomes, alone).implicit.tolist(),
        "metric": next(m for m in metrics if m.name == signal.rate.metric).canonical(),
        "why_failed": why_failed(outcomes, 0 if signal.bad else 1),
        "told": int(failed.told.sum()),
        "thresholds": [item.signal for item in DEFAULT_THRESHOLDS],
        "over": [alert.signal for alert in over],
        "chart_center": rate_chart(many, signal.rate.metric).chart.center,
        "report": render_text(told),
        "charted": _charted(store, signal.rate.metric),
    }


def _charted(store: EventStore, metric: str) -> list[Any]:
    """Return words and mean of a metric as `ratchet chart` takes them."""
    window = Window(START, LIVE + 100 * HOUR, "m/4")
    charted = find_signal(metric)
    values = charted.values(read_window(store, window).columns)
    return [charted.says, float(np.nanmean(values))]


def _board(store: EventStore, name: str) -> dict[str, Any]:
    watch(store, WATCH, now=LIVE + 72 * HOUR + LAG)
    done = watch(store, WATCH, now=LIVE + 78 * HOUR + LAG)
    finding = next(verdict.finding for verdict in done.verdicts if verdict.model_version == "m/4")
    baseline = store.records(Baseline, subject="m/3")[0]
    metrics, _ = recent_metrics(store, WATCH, "m/4", now=LIVE + 78 * HOUR + LAG)
    release = Release(
        id="r", created_at=START, action="start", previous=None,
        champion="m/1" if BY_NAME[name].bad else "m/2",
    )  # fmt: skip
    switch(store, release, by="test", told=True)
    told = moments_between(store, since=START, until=LIVE)
    return {
        "baseline": {item.name: [item.events, item.trials] for item in baseline.signals},
        "finding": [finding.signal, finding.says] if finding else None,
        "message": done.alerts[-1].message if done.alerts else "",
        "last_hour": {item.name: item.value for item in metrics},
        "timeline": [moment.text for moment in told],
    }


def _rollout(store: EventStore, name: str) -> dict[str, Any]:
    (share,) = BY_NAME[name].shares
    tally = read_tally(
        store, [Period(START, START + HOUR)], experiment="e", arms=("champion", "challenger"),
        versions=("m/1", "m/2"), lag=LAG,
    )  # fmt: skip
    events, trials = tally.of(share.name)
    watched = next(item for item in RolloutPlan().signals if item.name == share.name)
    readout = read_signal(
        tally, 1, watched, [[0.5]], Errors.shared(0.04, 0.05, 1), ready=False, minimum_users=2
    )
    ratio = SampleRatio(users={}, log_evidence=0.0, log_threshold=4.0, moved=0, ready=False)
    primary = watched.model_copy(update={"primary": True})
    test = VariantTest(
        id="t", created_at=START, name="tone", signals=(primary,),
        variants=(Variant(version="m/2", share=0.5, name="new"), Variant(version="m/1", share=0.5)),
    )  # fmt: skip
    shown = VariantReadout(
        id="o", created_at=START, test_id="t", until=START, control="champion", sample_ratio=ratio,
        readouts=(readout,), shown_better=(), shown_worse=(), conclusion="-", interactions=6,
    )  # fmt: skip
    return {
        "events": events.sum(axis=(0, 1)).tolist(),
        "trials": trials.sum(axis=(0, 1)).tolist(),
        "margin": watched.margin,
        "readout": Readout.model_validate_json(readout.model_dump_json()).signal,
        "rollout_text": variants_markdown(test, shown),
    }


if __name__ == "__main__":
    print(json.dumps(follow(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
