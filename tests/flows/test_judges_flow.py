"""Judges in the flow `analyze`: real Prefect, MLflow and store, judges behind a real HTTP server.

Two judges are asked about the same interactions. One agrees with people on 19 of 20, the other
answers by the length of the question. The first one's scores count, the second one's never do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import pytest
import yaml
from mlflow import MlflowClient

from ratchet.records import (
    Analysis,
    Cycle,
    HumanLabel,
    Interaction,
    JudgeValidation,
    Message,
    ReviewItem,
    digest,
)
from ratchet.settings import Settings
from ratchet.store import EventStore, Window
from ratchet.tracking import Tracker
from tests.flows.prefect_home import new_home, python_process

pytestmark = pytest.mark.slow  # judges of the store are tested without Prefect in tests/judges

CHAMPION = "support-router/1"
START = datetime(2026, 11, 1, tzinfo=UTC)
COUNT = 240
LABELLED = 160
RIGHT, WRONG = "Your parcel arrives on Monday.", "I cannot say."
LEAKY, LEAK = COUNT - 1, "Pay to DE89 3704 0044 0532 0130 00."  # the IBAN registry's example
OPTIONS = {"judges": {"sample": 200, "drift_anchors": 20}}
IMPORTS = "from ratchet.flows.analyze import AnalyzeOptions, analyze"
ANALYZE = f"analyze(AnalyzeOptions.model_validate({OPTIONS}))"


def _is_right(number: int) -> bool:
    return int(digest(["right", number])[:8], 16) % 10 < 6


def _slips(number: int) -> bool:
    return int(digest(["slip", number])[:8], 16) % 20 == 0


@dataclass
class Endpoint:
    """What the judges' server was asked, by model."""

    url: str = ""
    asked: dict[str, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    told = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            number = int(re.findall(r"parcel number (\d+)", text)[-1])
            with told.lock:
                told.asked[body["model"]] = told.asked.get(body["model"], 0) + 1
            good = number % 2 == 0
            if body["model"] == "careful":
                good = (RIGHT in text) != _slips(number)
            verdict = json.dumps({"verdict": "right" if good else "wrong"})
            reply = {
                "model": body["model"],
                "choices": [{"message": {"role": "assistant", "content": f"So.\n{verdict}"}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            }
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class Home:
    """A home folder after two passes of the flow."""

    settings: Settings
    asked_first: dict[str, int]
    asked_after: dict[str, int]
    trace_id: str
    said: str

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)


def _fill(store: EventStore, trace_id: str) -> None:
    interactions = [
        Interaction(
            id=f"i{number}",
            session_id=f"s{number}",
            user_id=f"u{number}",
            created_at=START + timedelta(minutes=number),
            model_version=CHAMPION,
            messages=(Message(role="user", content=f"where is parcel number {number}"),),
            response=LEAK if number == LEAKY else RIGHT if _is_right(number) else WRONG,
            latency_seconds=0.1,
            metadata={"mlflow_trace_id": trace_id} if number == 0 else {},
        )
        for number in range(COUNT)
    ]
    store.add_interactions(interactions)
    for number in range(LABELLED):
        for reviewer in ("ann", "bob") if number % 4 == 0 else ("ann",):
            store.append(
                HumanLabel(
                    id=f"{reviewer}-{number}",
                    created_at=START,
                    item_id=f"i{number}",
                    dimension="parcel",
                    label="right" if _is_right(number) else "wrong",
                    reviewer=reviewer,
                )
            )
    store.append(
        Cycle(
            id="cycle-1",
            number=1,
            created_at=START,
            champion=CHAMPION,
            options_digest="x",
            seed=0,
            window_start=START,
            window_end=START + timedelta(days=1),
            example_set_id="none",
        )
    )


def _judges(url: str) -> str:
    options = [
        {"name": "wrong", "score": 0, "means": "does not say when"},
        {"name": "right", "score": 1, "means": "says when"},
    ]
    judges = [
        {
            "name": name,
            "dimension": "parcel",
            "endpoint": {"url": url, "model": name, "api_key_variable": "PARCEL_KEY"},
        }
        for name in ("coin", "careful")
    ]
    question = "Does the answer say when the parcel arrives?"
    dimension = {"name": "parcel", "question": question, "options": options}
    return yaml.safe_dump({"dimensions": [dimension], "judges": judges})


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, served_once: Path, endpoint: Endpoint
) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("judges")
    (folder / "judges.yaml").write_text(_judges(endpoint.url))
    made = new_home(
        folder,
        served_once,
        RATCHET_JUDGES=str(folder / "judges.yaml"),
        PARCEL_KEY="not-a-secret",
    )
    trace_id = _trace(made.settings)
    store = made.store
    _fill(store, trace_id)
    store.close()
    with made.serving() as environment, python_process(environment, IMPORTS) as run:
        said = run(ANALYZE)
        first = dict(endpoint.asked)
        run(ANALYZE)
        yield Home(made.settings, first, dict(endpoint.asked), trace_id, said)


def _trace(settings: Settings) -> str:
    """An MLflow trace that one of the interactions came from."""
    import mlflow

    tracker = Tracker(settings.tracking_uri, artifacts=settings.artifacts, model_name="m")
    assert tracker.champion() is None
    experiment = mlflow.set_experiment("application")
    with mlflow.start_span("answer") as span:
        span.set_inputs({"question": "where is parcel number 0"})
    mlflow.flush_trace_async_logging()
    assert experiment is not None
    return str(span.trace_id)


def test_each_judge_has_its_decision(home: Home) -> None:
    records = [r for r in home.store.records(JudgeValidation) if r.dimension == "parcel"]
    assert len(records) == 2  # the second pass added none
    found = {record.judge: record for record in records}
    assert {name: record.decision for name, record in found.items()} == {
        "careful": "usable",
        "coin": "not usable",
    }
    careful = found["careful"]
    assert careful.items == LABELLED
    slips = sum(_slips(number) for number in range(LABELLED))
    agreement = careful.figure("agreement")
    assert agreement is not None
    assert agreement.value == pytest.approx(1.0 - slips / LABELLED)
    assert careful.figure("human_human") is not None


def test_scores_of_the_usable_judge_count_and_of_the_other_are_kept_only(home: Home) -> None:
    store = home.store
    found = {record.judge: record.judge_version for record in store.records(JudgeValidation)}
    window = Window(START, START + timedelta(days=1))
    events = store.feedback(window).to_pylist()
    assert {event["kind"] for event in events} == {"judge_score"}
    assert {event["text"] for event in events} == {found["careful"]}
    assert len(events) == 200
    assert len(store.verdicts_of(found["coin"])) >= 200
    analysis = store.latest(Analysis)
    assert analysis is not None
    metrics = {metric.name: metric for metric in analysis.metrics}
    assert metrics["judge_score"].observations == 200
    assert metrics["quality"].value is None  # its weight is 0 unless somebody gives it one


def test_the_second_pass_asks_nothing_again(home: Home) -> None:
    # labelled items, sampled ones, and the anchors of the week, each of them once
    assert home.asked_first == home.asked_after
    for count in home.asked_first.values():
        assert 200 + 20 <= count <= COUNT + 20


def test_mlflow_shows_the_validation_with_its_plots(home: Home, tmp_path: Path) -> None:
    client = MlflowClient(home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = runs["judge careful"]
    assert run.data.tags["ratchet.decision"] == "usable"
    record = next(r for r in home.store.records(JudgeValidation) if r.judge == "careful")
    kappa = record.figure("kappa")
    assert kappa is not None
    assert run.data.metrics["kappa"] == kappa.value
    assert "judge_drift" in run.data.metrics
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    assert pictures >= {f"plots/{n}.png" for n in ("confusion", "agreement-over-time")}
    text = client.download_artifacts(run.info.run_id, "validation.txt", str(tmp_path))
    assert Path(text).read_text("utf-8").startswith("careful: usable")


def test_the_trace_carries_both_words_as_assessments(home: Home) -> None:
    client = MlflowClient(home.settings.tracking_uri)
    found = client.get_trace(home.trace_id).info.assessments
    assert {(item.source.source_type, item.name) for item in found} == {
        ("LLM_JUDGE", "parcel"),
        ("HUMAN", "parcel"),
    }
    people = [item for item in found if item.source.source_type == "HUMAN"]
    assert {item.source.source_id for item in people} == {"ann", "bob"}


def test_what_a_rule_flags_waits_for_a_person_and_touches_no_signal(home: Home) -> None:
    items = home.store.records(ReviewItem)
    flagged = [item for item in items if item.interaction_id == f"i{LEAKY}"]
    assert len(flagged) == 1  # the second pass added none
    assert (flagged[0].priority, flagged[0].dimension) == ("safety", "harmlessness")
    events = home.store.feedback(Window(START, START + timedelta(days=1))).to_pylist()
    assert not [event for event in events if event["kind"] == "safety_violation"]


def test_the_key_is_nowhere(home: Home) -> None:
    assert "not-a-secret" not in home.said
    for file in home.settings.home.rglob("*"):
        if file.is_file():
            assert b"not-a-secret" not in file.read_bytes(), file
