"""A release that is worse, from its traffic to the rollback: real servers, a real worker.

The store is filled with two versions, the second clearly worse. The flow `analyze` finds it, tells
a web server and Prefect; the automation of prefect.yaml, once enabled, starts the rollback.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from mlflow import MlflowClient

from ratchet.records import AlertEvent, Delivery, Interaction, Message, Regenerate, Release, Thumbs
from ratchet.servers import Servers
from ratchet.settings import Settings
from ratchet.store import EventStore
from ratchet.tracking import Tracker
from tests.flows.prefect_home import new_home, python_process, run_python

# watched without Prefect in tests/analyze/monitoring, by a served flow in test_served_loop
pytestmark = pytest.mark.slow
GOOD, BAD = "support-router/1", "support-router/2"
RELEASED_HOURS_AGO = 6
OPTIONS = {"cycle": False, "watch": {"baseline_days": 2.0}}
IMPORTS = """
from ratchet.analyze.monitoring.watch import BoardVerdict, WatchConfig
from ratchet.flows._watch import publish_board, send_alerts
from ratchet.flows.analyze import AnalyzeOptions, analyze
from ratchet.flows.rollback import RollbackOptions, rollback
"""
ANALYZE = f"analyze(AnalyzeOptions.model_validate({OPTIONS}))"
DRAW_EVERY_BOARD = f"""
verdict = BoardVerdict("{GOOD}", "in control", 0.0, 5.0)
publish_board(WatchConfig(baseline_days=2.0), verdict, True)
"""


def _fill(store: EventStore, now: datetime) -> None:
    """Two and a half days of a version with 10 % thumbs down, then six hours of one with 60 %."""
    rng = np.random.default_rng(5)
    hour = timedelta(hours=1)
    released = now - RELEASED_HOURS_AGO * hour
    for version, start, end, pause, down in (
        (GOOD, now - 62 * hour, released, 120, 0.1),
        (BAD, released, now, 60, 0.6),
    ):
        moments = [
            start + timedelta(seconds=s) for s in range(0, int((end - start) / hour * 3600), pause)
        ]
        interactions, feedback = [], []
        for number, moment in enumerate(moments):
            key = f"{version}:{number}"
            interactions.append(
                Interaction(
                    id=key, session_id=key, user_id="u", created_at=moment, model_version=version,
                    messages=(Message(role="user", content="where is it"),), response="delivery",
                )
            )  # fmt: skip
            soon = moment + timedelta(seconds=30)
            thumb = "down" if rng.random() < down else "up"
            feedback.append(Thumbs(id=f"t{key}", interaction_id=key, created_at=soon, value=thumb))
            again = bool(rng.random() < 0.1)
            feedback.append(
                Regenerate(id=f"r{key}", interaction_id=key, created_at=soon, value=again)
            )
        store.add_interactions(interactions)
        store.add_feedback(feedback)


@dataclass(frozen=True)
class Home:
    """A home folder with a Prefect server, and a web server that alerts are sent to."""

    settings: Settings
    environment: dict[str, str]
    api: str
    inbox: list[dict[str, Any]]
    servers: Servers
    run: Callable[[str], str]

    @property
    def store(self) -> EventStore:
        return EventStore.open(self.settings.store_url)

    @property
    def tracker(self) -> Tracker:
        return Tracker(
            self.settings.tracking_uri,
            artifacts=self.settings.artifacts,
            model_name="support-router",
        )

    def prefect(self, *arguments: str) -> str:
        return run_python(self.environment, "-m", "prefect", *arguments, seconds=120.0)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = httpx.post(f"{self.api}/{path}", json=body or {})
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def emitted(self, name: str) -> list[dict[str, Any]]:
        found = self.ask("events/filter", {"filter": {"event": {"name": [name]}}})
        return list(found["events"])

    def rollbacks(self, version: str | None = None) -> list[dict[str, Any]]:
        """Return the runs that the automation started, about one version or all."""
        deployed = {"deployments": {"name": {"any_": ["rollback"]}}}
        found = self.ask("flow_runs/filter", deployed)
        about = {run["id"]: run["parameters"]["options"]["model_version"] for run in found}
        return [run for run in found if version in (None, about[run["id"]])]


def _until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask until there is an answer: events travel through queues."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.3)
    return answer


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"json://127.0.0.1:{server.server_address[1]}/alerts", received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    served_once: Path,
    inbox: tuple[str, list[dict[str, Any]]],
) -> Iterator[Home]:
    """The home after two passes, with the automation enabled before the first."""
    address, received = inbox
    folder = tmp_path_factory.mktemp("watch")
    served = new_home(folder, served_once, RATCHET_NOTIFY=address)
    store = served.store
    _fill(store, datetime.now(UTC))
    store.close()
    with served.serving() as environment, python_process(environment, IMPORTS) as run:
        servers = served.servers
        made = Home(served.settings, environment, servers.prefect_api, received, servers, run)
        _register(made)
        for _ in range(2):
            made.run(ANALYZE)
        yield made


def _register(home: Home) -> None:
    """Two versions in the registry, the deployment `rollback`, and its automation enabled."""
    tracker = home.tracker
    good, bad = (tracker.register_base(name, digest=name) for name in ("first", "second"))
    tracker.move_champion(bad.reference, good.reference)
    assert (good.reference, bad.reference) == (GOOD, BAD)
    home.prefect("work-pool", "create", "ratchet", "--type", "process")
    home.prefect("--no-prompt", "deploy", "--name", "rollback")
    automation = _rollback_of(home)
    assert automation["enabled"] is False  # nothing rolls back by itself unless a person says so
    _switch(home, on=True)


def _rollback_of(home: Home) -> dict[str, Any]:
    """Return the automation of the deployment `rollback`; that of `loop` stays off throughout."""
    found = {item["name"].partition("__")[0]: item for item in home.ask("automations/filter")}
    assert not any(item["enabled"] for name, item in found.items() if name != "rollback")
    automation: dict[str, Any] = found["rollback"]
    return automation


def _switch(home: Home, *, on: bool) -> None:
    automation = _rollback_of(home)
    changed = httpx.patch(f"{home.api}/automations/{automation['id']}", json={"enabled": on})
    assert changed.status_code == 204, changed.text


def test_a_worse_release_opens_one_alert_of_its_board_and_the_next_pass_adds_nothing(
    home: Home,
) -> None:
    events = home.store.records(AlertEvent)
    assert {event.model_version for event in events} == {BAD}
    (event,) = [event for event in events if event.kind == "board"]
    assert (event.change, event.severity, event.signal) == ("opened", "critical", "thumbs_down")
    assert event.lower <= 0.6 <= event.upper
    # mean and two daily waves, five coefficients, fitted to 1,440 thumbs: three standard errors
    error = 3.0 * math.sqrt(5.0 / (1_440 * 0.1 * 0.9))
    assert abs(math.log(event.expected / (1.0 - event.expected)) - math.log(0.1 / 0.9)) < error
    released = datetime.now(UTC) - timedelta(hours=RELEASED_HOURS_AGO)
    assert event.since is not None
    assert abs(event.since - released) < timedelta(minutes=30)
    assert event.action.startswith(f"roll back to {GOOD}")


def test_the_fixed_threshold_opens_its_own_alert_once(home: Home) -> None:
    (event,) = [event for event in home.store.records(AlertEvent) if event.kind == "threshold"]
    assert (event.change, event.severity, event.expected) == ("opened", "critical", 0.25)


def test_each_alert_reached_the_web_server_once(home: Home) -> None:
    events = home.store.records(AlertEvent)
    assert len(events) == 2
    assert sorted(body["title"] for body in home.inbox) == [
        f"New critical alert: thumbs down of {BAD}",
        f"New critical alert: thumbs down rate of {BAD}",
    ]
    bodies = " ".join(body["message"] for body in home.inbox)
    assert all(event.message in bodies and event.action in bodies for event in events)
    deliveries = home.store.records(Delivery)
    for channel in ("json", "prefect"):
        reached = [item.event_id for item in deliveries if item.channel == channel]
        assert sorted(reached) == sorted(event.id for event in events)
    assert all(item.delivered for item in deliveries)


def test_picture_and_alerts_are_artifacts_of_the_run(home: Home) -> None:
    found = {item["key"]: item for item in home.ask("artifacts/latest/filter")}
    assert {"board", "alerts"} <= set(found)
    assert found["board"]["description"] == f"{BAD}: alarm"
    assert found["board"]["data"].startswith("data:image/png;base64,")
    for event in home.store.records(AlertEvent):
        assert event.severity in found["alerts"]["data"]
    assert "roll back to support-router/1" in found["alerts"]["data"]


def test_mlflow_has_the_evidence_of_a_pass_with_news_and_the_picture(
    home: Home, tmp_path: Path
) -> None:
    client = MlflowClient(home.settings.tracking_uri)
    experiment = client.get_experiment_by_name("ratchet")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {f"watch {GOOD}", f"watch {BAD}"}
    run = runs[f"watch {BAD}"]
    assert run.data.metrics["log_evidence"] >= run.data.metrics["log_threshold"]
    # of the pass that opened the alert; the next one had no news, and may be the first of an hour
    assert len(client.get_metric_history(run.info.run_id, "log_evidence")) in (1, 2)
    assert run.data.tags["ratchet.verdict"] == "alarm"
    assert run.data.tags["ratchet.stage"] == "watch"
    picture = client.download_artifacts(run.info.run_id, "plots/board.svg", str(tmp_path))
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    good = runs[f"watch {GOOD}"].data
    assert good.metrics["log_evidence"] < good.metrics["log_threshold"]


def test_a_pass_is_one_flow_run_without_tasks(home: Home) -> None:
    passes = home.ask("flow_runs/filter", {"flows": {"name": {"any_": ["analyze"]}}})
    assert len(passes) == 2
    assert {run["state"]["type"] for run in passes} == {"COMPLETED"}
    assert home.ask("task_runs/count") == 0


def test_the_alert_is_a_prefect_event_with_labels_to_trigger_on(home: Home) -> None:
    found = {
        event["resource"]["ratchet.kind"]: event for event in home.emitted("ratchet.alert.opened")
    }
    assert set(found) == {"board", "threshold"}
    event = found["board"]
    assert event["resource"] == {
        "prefect.resource.id": f"ratchet.version.{BAD}",
        "prefect.resource.name": BAD,
        "ratchet.severity": "critical",
        "ratchet.fresh": "true",
        "ratchet.kind": "board",
    }
    stored = next(item for item in home.store.records(AlertEvent) if item.kind == "board")
    assert event["payload"] == stored.canonical()
    assert "flow-run" in {related["prefect.resource.role"] for related in event["related"]}


def test_a_board_without_traffic_is_passed_over_when_pictures_are_drawn(home: Home) -> None:
    before = len(home.ask("artifacts/filter"))
    assert "no picture of support-router/1" in home.run(DRAW_EVERY_BOARD)
    assert len(home.ask("artifacts/filter")) == before


def test_the_alert_started_a_rollback_once_and_a_worker_brings_the_previous_version_back(
    home: Home,
) -> None:
    (started,) = _until(lambda: home.rollbacks(BAD))
    options = started["parameters"]["options"]
    assert options["model_version"] == BAD
    opened = home.store.records(AlertEvent)[0]
    assert options["note"] == f"alert: {opened.message}"
    home.prefect("worker", "start", "--pool", "ratchet", "--run-once")
    (ended,) = home.rollbacks(BAD)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    champion = home.tracker.champion()
    assert champion is not None
    assert champion.reference == GOOD
    (release,) = home.store.records(Release)
    assert (release.action, release.champion) == ("rollback", GOOD)
    assert (release.by, release.note) == ("an automation", options["note"])
    (event,) = _until(lambda: home.emitted("ratchet.release.rollback"))
    assert event["payload"] == release.canonical()
    # an alert about a version that is not the champion (any more) changes nothing
    for other in (BAD, "support-router/99"):
        home.run(f"rollback(RollbackOptions(model_version={other!r}))")
    champion = home.tracker.champion()
    assert champion is not None
    assert champion.reference == GOOD
    assert home.store.records(Release) == (release,)


def test_only_a_critical_alert_of_a_fresh_versions_board_starts_a_rollback(home: Home) -> None:
    _until(lambda: home.rollbacks(BAD))

    def emit(version: str, change: str = "opened", **labels: str) -> None:
        resource = {
            "prefect.resource.id": f"ratchet.version.{version}",
            "prefect.resource.name": version,
            "ratchet.severity": "critical", "ratchet.fresh": "true", "ratchet.kind": "board",
        }  # fmt: skip
        event = {
            "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "payload": {},
            "event": f"ratchet.alert.{change}",
            "resource": resource | {f"ratchet.{name}": value for name, value in labels.items()},
        }  # fmt: skip
        answer = httpx.post(f"{home.api}/events", json=[event])
        assert answer.status_code == 204, answer.text

    emit("other/1", severity="warning")
    emit("other/2", fresh="false")
    emit("other/3", kind="threshold")
    emit("other/4", kind="pipeline")
    emit("other/5", change="resolved")
    emit("other/6", change="acknowledged")

    def rolled_back() -> list[str]:
        return sorted(run["parameters"]["options"]["model_version"] for run in home.rollbacks())

    # each is waited for, so that what was emitted before has had its time
    emit("other/7", change="updated")  # a warning that became critical
    _until(lambda: "other/7" in rolled_back())
    emit('odd "name"/8')  # a template that pastes the name into JSON would break on it
    _until(lambda: 'odd "name"/8' in rolled_back())
    assert rolled_back() == ['odd "name"/8', "other/7", BAD]


def test_every_step_of_a_day_that_was_not_sent_is_sent_once_however_many_there_are(
    home: Home,
) -> None:
    """80 steps: more than the 50 that were looked at once; another version, so no rollback."""
    (made,) = [event for event in home.store.records(AlertEvent) if event.kind == "threshold"]
    moment = datetime.now(UTC)
    ages = [*(timedelta(minutes=m) for m in range(80)), timedelta(hours=25)]
    for number, age in enumerate(ages):
        changed = {
            "id": f"unsent-{number}", "alert_id": f"alert-{number}", "created_at": moment - age,
            "model_version": "other/80",
        }  # fmt: skip
        home.store.append(made.model_copy(update=changed))
    before = len(home.inbox)
    for _ in range(2):
        home.run("send_alerts(())")
    assert len(home.inbox) - before == 80
    keys = [f"unsent-{number}" for number in range(80)]
    for channel in ("json", "prefect"):
        sent = [d.event_id for d in home.store.records(Delivery) if d.channel == channel]
        assert sorted(key for key in sent if key.startswith("unsent")) == sorted(keys)


@pytest.mark.slow
def test_an_automation_that_a_person_switched_on_stays_on_at_the_next_start(home: Home) -> None:
    before = _rollback_of(home)
    assert before["enabled"]
    home.servers.register_deployments()
    after = _rollback_of(home)
    assert after["name"] == before["name"]
    assert after["enabled"]


@pytest.mark.slow
def test_one_that_a_person_switched_off_stays_off(home: Home) -> None:
    _switch(home, on=False)
    home.servers.register_deployments()
    assert not _rollback_of(home)["enabled"]
    _switch(home, on=True)
