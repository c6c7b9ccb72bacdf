"""Failure clusters in the flow `analyze`: real Prefect, MLflow, MiniLM and real messages to a bank.

Two intents fail on the first day. On the second one of them is mended, and another one, which leaks
what it must not, has begun to fail.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from ratchet.records import (
    AlertEvent,
    Analysis,
    Correction,
    Cycle,
    ExampleSet,
    FailureCluster,
    Feedback,
    Interaction,
    Message,
    RegressionSet,
    Thumbs,
    TrainingRequest,
    digest,
)
from ratchet.review.queue import decide, open_items
from ratchet.settings import Settings
from ratchet.store import EventStore
from tests.flows.prefect_home import new_home, python_process

pytestmark = pytest.mark.slow  # clusters are tested without Prefect in tests/analyze/failures

CHAMPION = "support-router/1"
START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
A_DAY = 900
CARD, TOP_UP, PIN = "lost_or_stolen_card", "top_up_reverted", "change_pin"
FAILING = ({CARD: 0.9, TOP_UP: 0.9}, {CARD: 0.9, PIN: 0.9})
ELSEWHERE = 0.05
LEAK = "Pay to DE89 3704 0044 0532 0130 00."  # the IBAN registry's example


@dataclass(frozen=True)
class Day:
    """What one run of the flow left."""

    analysis: Analysis
    intents: dict[str, str]
    vectors: int

    def cluster(self, intent: str) -> FailureCluster | None:
        """The cluster whose shown failures are mostly of an intent."""
        for cluster in self.analysis.clusters:
            shown = [self.intents[example.interaction_id] for example in cluster.beside[:5]]
            if shown.count(intent) > len(shown) / 2:
                return cluster
        return None


@dataclass(frozen=True)
class Home:
    """A home folder after two days."""

    settings: Settings
    days: tuple[Day, Day]
    api: str
    run: Callable[[str], str]

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)


def _chance(*parts: object) -> float:
    return int(digest(list(parts))[:8], 16) / 16**8


def _messages(folder: Path) -> list[tuple[str, str]]:
    """Messages of 15 intents, each met twice: once a day."""
    with (folder / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    others = sorted({intent for _, intent in rows} - {CARD, TOP_UP, PIN})[::6][:12]
    kept = [row for row in rows if row[1] in {CARD, TOP_UP, PIN, *others}]
    return sorted(kept, key=lambda row: digest(row[0]))[:A_DAY]


def _fill(store: EventStore, day: int, messages: list[tuple[str, str]]) -> dict[str, str]:
    interactions: list[Interaction] = []
    feedback: list[Feedback] = []
    intents: dict[str, str] = {}
    for number, (text, intent) in enumerate(messages):
        key = f"d{day}-{number}"
        intents[key] = intent
        failed = _chance("failed", day, number) < FAILING[day].get(intent, ELSEWHERE)
        leaks = failed and day == 1 and intent == PIN and number % 3 == 0
        at = START + day * DAY + timedelta(minutes=1.5 * number)
        interactions.append(
            Interaction(
                id=key,
                session_id=f"s{key}",
                user_id=f"u{number % 200}",
                created_at=at,
                model_version=CHAMPION,
                messages=(Message(role="user", content=text),),
                response=LEAK if leaks else "I cannot say." if failed else f"About {intent}.",
                latency_seconds=0.1,
                segment="app" if number % 4 else "web",
            )
        )
        said = {"interaction_id": key, "created_at": at}
        feedback.append(Thumbs(id=f"t{key}", value="down" if failed else "up", **said))
        if failed and number % 2:
            feedback.append(Correction(id=f"c{key}", value=f"About {intent}.", **said))
    store.add_interactions(interactions)
    store.add_feedback(feedback)
    store.append(
        Cycle(
            id=f"cycle-{day + 1}",
            number=day + 1,
            created_at=START + day * DAY,
            champion=CHAMPION,
            options_digest="x",
            seed=0,
            window_start=START + day * DAY,
            window_end=START + (day + 1) * DAY,
            example_set_id="none",
        )
    )
    return intents


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, shared_data: Path
) -> Iterator[Home]:
    made = new_home(tmp_path_factory.mktemp("failures"), served_once)
    messages = _messages(shared_data)
    imports = "from ratchet.flows.analyze import analyze"
    with made.serving() as environment, python_process(environment, imports) as run:
        days = []
        for day in range(2):
            store = made.store
            intents = _fill(store, day, messages)
            run("analyze()")
            analysis = store.latest(Analysis)
            assert analysis is not None
            days.append(Day(analysis, intents, _vectors(made.settings)))
            store.close()
        api = made.servers.prefect_api
        yield Home(made.settings, (days[0], days[1]), api, run)


def _vectors(settings: Settings) -> int:
    import sqlite3

    with sqlite3.connect(settings.store_url.removeprefix("sqlite:///")) as database:
        return int(database.execute("SELECT count(*) FROM embeddings").fetchone()[0])


def test_the_failing_intents_are_found_with_whom_they_touch(home: Home) -> None:
    day = home.days[0]
    card, top_up = day.cluster(CARD), day.cluster(TOP_UP)
    assert card is not None
    assert top_up is not None
    assert card.interval[0] > 2 * ELSEWHERE
    assert card.users is not None
    assert 2 <= card.users <= card.size
    assert {item.name for item in card.segments} == {"app", "web"}
    assert sum(item.failed for item in card.versions) == card.size
    assert day.analysis.untold == 0
    right = [example for example in card.beside if example.source is not None]
    assert right
    assert all("card" in str(example.better) or "About" in str(example.better) for example in right)


def test_the_second_day_embeds_nothing_again_and_knows_the_cluster(home: Home) -> None:
    first, second = home.days
    assert first.vectors == second.vectors  # the same messages came again
    before, after = first.cluster(CARD), second.cluster(CARD)
    assert before is not None
    assert after is not None
    assert after.id == before.id
    assert after.trend in ("steady", "growing", "shrinking")
    assert after.first_seen == START + DAY


def test_what_is_mended_is_gone_and_what_is_new_raises_a_signal(home: Home) -> None:
    first, second = home.days
    mended, new = first.cluster(TOP_UP), second.cluster(PIN)
    assert mended is not None
    assert new is not None
    assert new.trend == "new"
    assert mended.id in {item.id for item in second.analysis.earlier if item.trend == "gone"}
    alerts = [event for event in home.store.records(AlertEvent) if event.kind == "cluster"]
    assert [event.cluster for event in alerts if event.change == "opened"] == [new.name]
    assert alerts[0].severity == "critical"  # it leaks
    events = httpx.post(
        f"{home.api}/events/filter",
        json={"filter": {"event": {"name": ["ratchet.alert.opened"]}}},
    ).json()["events"]
    assert "cluster" in {event["payload"]["kind"] for event in events}


def test_a_regression_set_is_frozen_and_shares_no_user_with_the_request(home: Home) -> None:
    cluster = home.days[0].cluster(CARD)
    assert cluster is not None
    frozen = home.store.get(RegressionSet, cluster.id)
    assert frozen is not None
    examples = home.store.get(ExampleSet, frozen.example_set_id)
    assert examples is not None
    assert len(examples.examples) >= 8
    requests = [r for r in home.store.records(TrainingRequest) if r.cluster_id == cluster.id]
    assert len(requests) == 2  # one a day; the set is the first day's
    assert {request.regression_set_id for request in requests} == {frozen.example_set_id}
    held = {message.content for e in examples.examples for message in e.messages}
    for request in requests:
        assert request.interaction_ids
        offered = home.store.stored_interactions(request.interaction_ids)
        assert not held & {item.prompt for item in offered.values()}


def test_a_cluster_about_safety_goes_to_people_first(home: Home) -> None:
    cluster = home.days[1].cluster(PIN)
    assert cluster is not None
    assert cluster.safety >= 2
    store = home.store
    request = next(
        r for r in reversed(store.records(TrainingRequest)) if r.cluster_id == cluster.id
    )
    assert request.blocked is not None
    assert request.interaction_ids == ()
    assert store.get(RegressionSet, cluster.id) is None
    waiting = [item for item in open_items(store) if item.interaction_id in request.reviewed]
    assert {item.interaction_id for item in waiting} == set(request.reviewed)
    for item in waiting:
        decide(store, item.id, "violation", reviewer="ann", now=START + 2 * DAY)
    home.run("analyze()")
    again = next(r for r in reversed(store.records(TrainingRequest)) if r.cluster_id == cluster.id)
    assert again.blocked is None
    assert again.interaction_ids
    assert not set(again.reviewed) & set(again.interaction_ids)


def test_mlflow_and_prefect_show_the_clusters(home: Home, tmp_path: Path) -> None:
    client = MlflowClient(home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = runs["cycle 2 analyze"]
    page = Path(client.download_artifacts(run.info.run_id, "failures.html", str(tmp_path)))
    text = page.read_text("utf-8")
    for cluster in home.days[1].analysis.clusters:
        assert cluster.name in text
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    charts = {f"plots/{name}.png" for name in ("thumbs-down-rate", "quality")}
    assert {"plots/failure-map.png", *charts} <= pictures, sorted(pictures)
    artifacts = httpx.post(f"{home.api}/artifacts/latest/filter", json={}).json()
    assert {"failures", "failure-map"} <= {item["key"] for item in artifacts}
    shown = json.dumps(artifacts)
    assert "failures.html" in shown
